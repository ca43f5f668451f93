"""How many images go into one call, and images at their own pixels that are too large for one: those are answered for in tiles. What is
evaluated and what is predicted both come through here, so that they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import finish, pixel_classes, tiles
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.geometry import padded
from saccade.core.prepare import prepare
from saccade.core.results import Result
from saccade.core.segmentation import Segmentation
from saccade.core.strips import Rows
from saccade.prediction.session import Session

PIXELS = 1 << 23  # of all images of a call: a map for each class is made of them


def most(session: Session, size: tuple[int, ...]) -> int:
    """Images of (height, width) a call: as suit the session, or fewer where they are large."""
    return max(1, min(session.batch, PIXELS // (size[0] * size[1])))


def tiled(card: Card) -> bool:
    """Whether a model's images come at their own pixels, and large ones so in tiles."""
    return card.task == "segment" and card.input.resize == "native"


def large(card: Card, size: tuple[int, int]) -> bool:
    """Whether an image of (height, width) is answered for in tiles."""
    height, width = padded(size)
    return tiled(card) and height * width > tiles.WHOLE


def run(session: Session, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """`session.run` of prepared images uint8 `[B, C, H, W]`, in tiles where they are large."""
    size: tuple[int, int] = images.shape[2:]
    if not large(session.card, size):
        return session.run(images)
    whole = np.empty((len(images), len(session.card.classes), *size), np.float32)
    for image, found in zip(images, whole, strict=True):
        for top, left, values in _blocks(session, _prepared(image), size):
            found[:, top : top + values.shape[1], left : left + values.shape[2]] = values
    return {"logits": whole}


def results(
    session: Session,
    images: NDArray[np.uint8],
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]] | None = None,
    *,
    complete: bool = False,
) -> list[Result]:
    """`core.finish.results` of what the session says of prepared images uint8 `[B, C, H, W]`, in tiles where they are large."""
    shape: tuple[int, int] = images.shape[2:]
    if not large(session.card, shape):
        return finish.results(session.run(images), session.card, sizes, sources, notes, complete=complete)
    remarks = [()] * len(sources) if notes is None else notes
    return [
        pixel_classes.from_blocks(_blocks(session, _prepared(image), shape), session.card, size, source, note, doubts=not complete)
        for image, size, source, note in zip(images, sizes, sources, remarks, strict=True)
    ]


def segmented(session: Session, strips: Rows, source: str) -> Segmentation:
    """The answer for a large image that is read as it goes: no more is held than the pixels of a row of tiles, the logits that it
    shares with the next, and the mask, deflated. Raises `core.strips.Unreadable` where the file is damaged."""
    spec = session.card.input

    def part(rows: slice, columns: slice) -> NDArray[np.uint8]:
        return prepare(strips.take(rows.start, rows.stop)[:, columns], spec)

    blocks = _blocks(session, part, strips.size)
    answer = pixel_classes.from_blocks(blocks, session.card, strips.size, source, (), doubts=True)
    return replace(answer, notes=strips.notes)  # which are complete now


def _prepared(image: NDArray[np.uint8]) -> Callable[[slice, slice], NDArray[np.uint8]]:
    return lambda rows, columns: image[:, rows, columns]


def _blocks(session: Session, part: Callable[[slice, slice], NDArray[np.uint8]], size: tuple[int, int]) -> Iterator[pixel_classes.Block]:
    """The logits of an image of (height, width) whose `part` is uint8 `[C, h, w]`."""

    def answer(rows: slice, columns: slice) -> NDArray[np.float32]:
        pixels = part(rows, columns)
        outputs = session.run(np.ascontiguousarray(pixels[None]))
        logits = pixel_classes.numbers(outputs.get("logits"), "logits")
        expected = (1, len(session.card.classes), *pixels.shape[1:])
        if logits.shape != expected:
            raise UserError(f"the model must give logits {list(expected)}, got {list(logits.shape)}")
        room = [(0, 0), *((0, tiles.TILE - side) for side in logits.shape[2:])]
        return np.pad(logits[0], room) if any(after for _, after in room) else logits[0]

    return tiles.blocks(answer, size, tiles.TILE, tiles.OVERLAP)
