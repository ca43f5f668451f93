"""Sources -> decoded -> prepared -> answered -> results, in order, as they come; a bad image is reported and the rest goes on.

Threads take batches of sources, each through all of its stages: while one decodes, another infers. On a processor each works with its
own share of the cores (`Session.streams`), which is faster than one call on all of them; memory holds a few batches, never the folder.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import images, prepare, strips
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.images import Picture
from saccade.core.results import Result
from saccade.prediction import tiling
from saccade.prediction.session import Session, cores
from saccade.prediction.sources import Source

Alone = Callable[[Session, Picture, str], Any]
Finish = Callable[[Session, NDArray[np.uint8], Sequence[tuple[int, int]], Sequence[str], Sequence[tuple[str, ...]]], Sequence[Any]]
AHEAD = 2  # batches, beside the one in each thread, that are answered before they are asked for


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that could not be read, and why."""

    source: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return {"source": self.source, "reason": self.reason}


def stream(
    session: Session,
    sources: Iterable[Source],
    *,
    finish: Finish = tiling.results,
    alone: Alone | None = None,
    max_pixels: int = images.MAX_PIXELS,
    workers: int | None = None,
) -> Iterator[Any]:
    """What `finish` makes of each source, or a Failed, in their order. Raises UserError where the model itself cannot answer.

    finish(session, prepared images of one shape, their sizes, names and notes) -> one object an image; without it, a Result. alone(session,
    image as it was read, its name): in its place, for each image by itself.
    """
    workers = workers or max(cores(), session.streams)
    turns = threading.BoundedSemaphore(session.streams)

    def answer(part: Sequence[Source]) -> list[Any]:
        read = [_ready(source, session, max_pixels, turns, alone) for source in part]
        with turns:
            return _answers(session, part, read, finish)

    batches = _batched(sources, session.batch)
    pool = ThreadPoolExecutor(workers, "saccade-predict")
    try:
        running: deque[Future[list[Any]]] = deque()
        for part in batches:
            if isinstance(part, UserError):  # of the sources: what came before is answered first
                yield from _drained(running)
                raise part
            running.append(pool.submit(answer, part))
            if len(running) >= workers + AHEAD:
                yield from running.popleft().result()
        yield from _drained(running)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _drained(running: deque[Future[list[Any]]]) -> Iterator[Any]:
    while running:
        yield from running.popleft().result()


def _batched(sources: Iterable[Source], size: int) -> Iterator[list[Source] | UserError]:
    """Lists of `size` sources; where the next one cannot be had, those before it and then the reason."""
    rest = iter(sources)
    part: list[Source] = []
    try:
        for source in rest:
            part.append(source)
            if len(part) == size:
                yield part
                part = []
    except UserError as error:
        yield part
        yield error
        return
    if part:
        yield part


def _ready(
    source: Source, session: Session, max_pixels: int, turns: threading.BoundedSemaphore, alone: Alone | None
) -> Picture | Result | Failed:
    """An image prepared, or the answer for one that is large, or looked at alone: at once, as a batch of them would not fit into memory."""
    if _large(source, session.card, max_pixels):
        with turns:
            return _by_rows(source, session, max_pixels)
    one = _read(source, session, max_pixels, prepared=alone is None)
    if isinstance(one, Picture) and alone is not None:
        with turns:
            return alone(session, one, source.name)
    if isinstance(one, Picture) and tiling.large(session.card, one.size):
        with turns:
            return tiling.segmented(session, strips.of(one), source.name)
    return one


def _large(source: Source, card: Card, max_pixels: int) -> bool:
    """Whether a file is answered for in tiles, by its header; bands are read whole. What is wrong with it is found when it is read."""
    if card.input.channels not in (1, 3) or not (tiling.tiled(card) and isinstance(source.content, str | os.PathLike | bytes)):
        return False
    try:
        with images.opened(source.content, max_pixels) as (image, _):
            return tiling.large(card, (image.height, image.width))
    except UserError:
        return False


def _by_rows(source: Source, session: Session, max_pixels: int) -> Result | Failed:
    """The answer for a large file, which is never held whole where its format allows that."""
    content = source.content if isinstance(source.content, bytes) else os.fsdecode(source.content)
    try:
        with strips.opened(content, channels=session.card.input.channels, max_pixels=max_pixels) as rows:
            return tiling.segmented(session, rows, source.name)
    except strips.Unreadable as error:
        return _failed(source, error)


def _read(source: Source, session: Session, max_pixels: int, *, prepared: bool) -> Picture | Failed:
    """Prepared where asked, but for what is large (`tiling`), which is as it was read."""
    try:
        spec = session.card.input
        picture = source.read(spec.channels, max_pixels, prepare.covered(spec))
        if not prepared or tiling.large(session.card, picture.size):
            return picture
        return replace(picture, pixels=prepare.prepare(picture.pixels, spec))
    except UserError as error:
        return _failed(source, error)


def _failed(source: Source, error: UserError) -> Failed:
    return Failed(source.name, f"{error.message} ({error.fix})" if error.fix else error.message)


def _answers(session: Session, sources: Sequence[Source], read: Sequence[Picture | Result | Failed], finish: Finish) -> list[Any]:
    """The answers in the order of the sources; only images of equal shape share a call, so that none depends on its neighbours."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(read):
        if isinstance(one, Picture):
            shapes.setdefault(one.pixels.shape, []).append(place)
    found: dict[int, Any] = {place: one for place, one in enumerate(read) if not isinstance(one, Picture)}
    calls = [
        group[start : start + count]
        for shape, group in shapes.items()
        for count in [tiling.most(session, shape[1:])]
        for start in range(0, len(group), count)
    ]
    for places in calls:
        pictures = [one for place in places if isinstance(one := read[place], Picture)]
        images = np.stack([one.pixels for one in pictures])
        names, sizes, notes = [sources[p].name for p in places], [one.size for one in pictures], [one.notes for one in pictures]
        found |= dict(zip(places, finish(session, images, sizes, names, notes), strict=True))
    return [_of(source, found[place]) for place, source in enumerate(sources)]


def _of(source: Source, answer: Any) -> Any:
    """An answer for a frame says where in its video that stands."""
    return answer if source.moment is None or not hasattr(answer, "moment") else replace(answer, moment=source.moment)
