"""What the original model answered, kept beside an export, so that its proof can be repeated anywhere without the original."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.core import prepare
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.files import DamagedError, read_all
from saccade.core.geometry import FILL, whole
from saccade.core.images import Picture
from saccade.core.progress import Progress
from saccade.data.dataset import Dataset
from saccade.prediction import tiling
from saccade.prediction.session import Session

Size = tuple[int, int]
Outputs = dict[str, NDArray[np.float32]]

FILE = "reference.npz"
FEW = 16  # images that are also tried one by one, and at other sizes


@dataclass(frozen=True)
class Reference:
    """card: of the original. sources: relative POSIX paths, [N]; sums: SHA-256 of each file. outputs: by size (height, width) of the
    prepared image, the card's own first, arrays float32 [N, ...] by name; at the other sizes of the first FEW images only."""

    card: Card
    sources: tuple[str, ...]
    sums: tuple[str, ...]
    outputs: Mapping[Size, Outputs]

    def to_bytes(self) -> bytes:
        """A NumPy archive without pickles."""
        arrays = {f"{h}x{w}/{name}": values for (h, w), outputs in self.outputs.items() for name, values in outputs.items()}
        words = {"card": self.card.to_json(), "sums": "\n".join(self.sums), "sources": "\0".join(self.sources)}
        plain = {name: np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8) for name, text in words.items()}
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **plain, **arrays)
        return data.getvalue()

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Raises UserError where the file is missing or is none."""
        data = read_all(path)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: np.asanyarray(archive[name]) for name in archive.files}
            words = {name: arrays.pop(name).tobytes().decode("utf-8", "surrogateescape") for name in ("card", "sums", "sources")}
            outputs: dict[Size, Outputs] = {}
            for name, values in arrays.items():
                size, _, output = name.partition("/")
                height, width = map(int, size.split("x"))
                outputs.setdefault((height, width), {})[output] = values
        except Exception as error:  # NumPy and zipfile answer damage with KeyError, zlib.error, MemoryError and whatever else
            raise DamagedError(
                f"is no reference of an export, or is damaged: {str(error) or type(error).__name__}", where=str(path)
            ) from None
        sources, sums = tuple(words["sources"].split("\0")), tuple(words["sums"].split("\n"))
        found = cls(Card.from_json(words["card"], where=str(path)), sources, sums, outputs)
        if not found._fits():
            raise DamagedError("is no reference of an export: its parts do not fit together", where=str(path))
        return found

    def _fits(self) -> bool:
        """Whether there is a sum and a row of numbers for each source, at the card's own size and for the first few at others."""
        count, own = len(self.sources), self.card.input.size
        rows = {size: count if size == own else min(FEW, count) for size in self.outputs}
        arrays = [(values, rows[size]) for size, outputs in self.outputs.items() for values in outputs.values()]
        whole = own in self.outputs and all(self.sources) and len(self.sums) == count
        return whole and all(values.dtype == np.float32 and values.shape[:1] == (row,) for values, row in arrays)


def answer(session: Session, dataset: Dataset, places: NDArray[np.int64], sizes: Sequence[Size], progress: Progress) -> Reference:
    """What `session` says of the images of `dataset` at `places`, at its card's size, and of the first FEW at further `sizes`."""
    sums = tuple(file_sum(dataset.tree.image(dataset.paths[place])) for place in places)
    outputs = {size: run(session, dataset, places[: None if number == 0 else FEW], size, progress) for number, size in enumerate(sizes)}
    return Reference(session.card, tuple(dataset.paths[place] for place in places), sums, outputs)


def run(
    session: Session, dataset: Dataset, places: NDArray[np.int64], size: Size, progress: Progress, *, batch: int | None = None
) -> Outputs:
    """The session's outputs for these images, prepared as its own card says but at `size`: images that come at their own pixels are cut or
    filled up to it, where it is not the card's own."""
    spec = replace(session.card.input, size=size)
    other = spec.resize == "native" and size != session.card.input.size
    found: Outputs = {}
    waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for number, picture in enumerate(look(dataset, places, spec)):
        pixels = _cut(picture.pixels, size) if other else picture.pixels
        group = waiting.setdefault(pixels.shape, [])  # only images of one shape share a call
        group.append((number, pixels))
        if len(group) == (batch or tiling.most(session, pixels.shape[1:])):
            _answer(session, waiting.pop(pixels.shape), found, len(places))
            progress.advance(len(group))
    for group in waiting.values():
        _answer(session, group, found, len(places))
        progress.advance(len(group))
    return found


def _cut(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The part of `[C, H, W]` at the top left, of the size that an image of `size` has as an input."""
    height, width = whole(size, "native")
    part = pixels[:, :height, :width]
    room = ((0, 0), (0, height - part.shape[1]), (0, width - part.shape[2]))
    return np.ascontiguousarray(np.pad(part, room, constant_values=FILL))


def _answer(session: Session, group: Sequence[tuple[int, NDArray[np.uint8]]], found: Outputs, count: int) -> None:
    """Put the outputs for some of `count` images, each with its number, in their rows of `found`."""
    for name, values in tiling.run(session, np.stack([pixels for _, pixels in group])).items():
        rows = np.asarray(values, np.float32)
        whole = found.setdefault(name, np.zeros((count, *rows.shape[1:]), np.float32))
        kept = 2 if rows.ndim == 4 else rows.ndim  # maps are as large as their image, the rest is 0
        if rows.ndim != whole.ndim or rows.shape[:kept] != (len(group), *whole.shape[1:kept]):
            raise UserError(f"the model gives {name!r} of shape {list(rows.shape)} for {len(group)} images")
        whole = found[name] = grown(whole, rows.shape)
        for (number, _), row in zip(group, rows, strict=True):
            inner = tuple(map(slice, row.shape))
            whole[number][inner] = row


def grown(values: NDArray[np.float32], least: tuple[int, ...]) -> NDArray[np.float32]:
    """Values `[N, ...]` with zeros at the end of each further axis until it is as long as in `least`."""
    more = [(0, 0), *((0, max(0, side - own)) for own, side in zip(values.shape[1:], least[1:], strict=True))]
    return np.pad(values, more) if any(after for _, after in more) else values


def look(dataset: Dataset, places: NDArray[np.int64], spec: InputSpec) -> Iterator[Picture]:
    """Real files through the shipped preprocessing; raises UserError for one that cannot be read."""
    for place in places:
        yield prepare.read(dataset.tree.image(dataset.paths[place]), spec)


def file_sum(source: str | Path | bytes) -> str:
    """SHA-256 of a file's bytes; raises UserError where it cannot be read."""
    return hashlib.sha256(source if isinstance(source, bytes) else read_all(source)).hexdigest()


def find(reference: Reference, dataset: Dataset) -> NDArray[np.int64]:
    """The reference's images in a data set, in the reference's order; raises UserError where one is missing or has changed."""
    known = {path: place for place, path in enumerate(dataset.paths)}
    missing = [source for source in reference.sources if source not in known]
    if missing:
        message = f"must hold the {len(reference.sources)} images that were compared, {len(missing)} are missing, the first {missing[0]!r}"
        raise UserError(message, where=str(dataset.root), fix="give the data that the export was made with")
    places = np.array([known[source] for source in reference.sources], np.int64)
    for source, expected in zip(reference.sources, reference.sums, strict=True):
        if file_sum(dataset.tree.image(source)) != expected:
            raise UserError("has changed since the export was made", where=str(dataset.root / source), fix="restore it, or export again")
    return places
