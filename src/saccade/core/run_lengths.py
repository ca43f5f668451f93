"""Masks of single objects as COCO's run lengths, by faster-coco-eval, and as the patch of pixels around them. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as COCO's compressed run lengths: size (height, width), counts as `faster_coco_eval.mask` and pycocotools take them."""

    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """The part of a mask that holds all of its pixels: bool `[h, w]`, its first pixel at (top, left) of the mask."""

    pixels: Mask
    top: int
    left: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 around its pixels; zeros where there is none."""
        rows, columns = np.flatnonzero(self.pixels.any(1)), np.flatnonzero(self.pixels.any(0))
        if not len(rows):
            return 0, 0, 0, 0
        x, y = self.left, self.top
        return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1

    def cut(self, top: int, bottom: int, left: int, right: int) -> Patch:
        """What lies within these limits, in the same place."""
        rows = slice(max(0, top - self.top), max(0, bottom - self.top))
        columns = slice(max(0, left - self.left), max(0, right - self.left))
        return Patch(self.pixels[rows, columns], max(self.top, top), max(self.left, left))

    def resized(self, source: tuple[int, int], size: tuple[int, int]) -> Patch:
        """The patch of the mask of `source` (height, width) scaled to `size`, each pixel that of the nearest."""
        rows, top = _nearest(self.top, self.pixels.shape[0], source[0], size[0])
        columns, left = _nearest(self.left, self.pixels.shape[1], source[1], size[1])
        return Patch(self.pixels[rows[:, None], columns], top, left)


def _nearest(start: int, length: int, source: int, size: int) -> tuple[NDArray[np.int64], int]:
    """Of the pixels of a scaled side those whose nearest lies in `length` from `start` on: which one that is, and the first of them."""
    first, last = (int(np.ceil(place * size / source - 0.5)) for place in (start, start + length))
    places = ((np.arange(max(0, first), min(size, last)) + 0.5) * (source / size)).astype(np.int64) - start
    return np.minimum(np.maximum(places, 0), max(0, length - 1)), max(0, first)


def checked(counts: bytes | Sequence[int], size: tuple[int, int]) -> Rle:
    """Run lengths of a file, compressed or not, that fill a mask of `size` (height, width) exactly; raises ValueError for others."""
    from faster_coco_eval import mask as coco

    runs = _numbers(counts) if isinstance(counts, bytes) else np.array(counts, np.int64)
    if not len(runs) or (runs < 0).any() or (runs > size[0] * size[1]).any() or int(runs.sum()) != size[0] * size[1]:
        raise ValueError(f"run lengths must fill a mask of {size[0]}x{size[1]} (height x width) exactly")
    if not isinstance(counts, bytes):
        counts = coco.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"]
    return Rle(size, bytes(counts))


def to_mask(shape: Rle) -> Mask:
    """bool `[H, W]`."""
    from faster_coco_eval import mask as coco

    decoded: NDArray[np.uint8] = coco.decode({"size": list(shape.size), "counts": shape.counts})
    return decoded.astype(bool)


def from_mask(mask: Mask) -> Rle:
    """bool `[H, W]` -> run lengths."""
    from faster_coco_eval import mask as coco

    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return Rle((int(mask.shape[0]), int(mask.shape[1])), encoded["counts"])


def patch(shape: Rle) -> Patch:
    """One of whole columns of what is covered, and of no more rows than needed; of no pixels where nothing is. Decoded here, as the
    library would decode the whole mask, which takes ten times as long for a small object in a large image."""
    height = shape.size[0]
    edges = np.cumsum(_numbers(shape.counts))
    begin, end = edges[: len(edges) // 2 * 2 : 2], edges[1::2]
    begin, end = begin[end > begin], end[end > begin]
    if not len(begin):
        return Patch(np.zeros((0, 0), bool), 0, 0)
    left, right = int(begin[0]) // height, (int(end[-1]) - 1) // height + 1
    steps = np.zeros((right - left) * height + 1, np.int8)
    steps[begin - left * height] += 1
    steps[end - left * height] -= 1
    pixels = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(right - left, height).T
    if (begin // height != (end - 1) // height).any():
        return Patch(pixels, 0, left)
    top, bottom = int((begin % height).min()), int(((end - 1) % height).max()) + 1
    return Patch(pixels[top:bottom], top, left)


def from_patch(part: Patch, size: tuple[int, int]) -> Rle:
    """Run lengths of a mask of `size` (height, width) in which a patch lies; what sticks out of it is cut off."""
    from faster_coco_eval import mask as coco

    part = part.cut(0, size[0], 0, size[1])
    columns = np.zeros((part.pixels.shape[1], part.pixels.shape[0] + 2), np.int8)
    columns[:, 1:-1] = part.pixels.T
    steps = np.diff(columns, axis=1)
    (across, down), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    begin = (part.left + across) * size[0] + part.top
    edges = np.stack([begin + down, begin + end], axis=1).ravel()
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # to the bottom of a column, and on from the top of the next
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    runs = np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))
    if edges.size and edges[-1] == size[0] * size[1]:
        runs = runs[:-1]
    return Rle(size, bytes(coco.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"]))


def covered(shape: Rle) -> int:
    """Pixels that a mask covers."""
    from faster_coco_eval import mask as coco

    return int(coco.area({"size": list(shape.size), "counts": shape.counts}))


def overlaps(found: Sequence[Rle], truths: Sequence[Rle], crowd: Mask) -> NDArray[np.float64]:
    """Intersection of masks of one size over their union, of a crowd over the first mask's own area: float64 `[D, G]`."""
    from faster_coco_eval import mask as coco

    if not (found and truths):
        return np.zeros((len(found), len(truths)))
    given: list[list[dict[str, Any]]] = [[{"size": list(one.size), "counts": one.counts} for one in several] for several in (found, truths)]
    return np.asarray(coco.iou(*given, crowd.tolist()), np.float64).reshape(len(found), len(truths))


def _numbers(counts: bytes) -> NDArray[np.int64]:
    """As `rleFrString` of COCO's maskApi.c: five bits a character and one that says that more follow; from the fourth on differences."""
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if not len(ends) or ends[-1] != len(codes) - 1 or (codes < 0).any() or (codes > 63).any():
        raise ValueError("run lengths must be whole and of the characters 0 to o")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("a run length is too long")
    runs = np.add.reduceat((codes & 31) << 5 * place, starts)
    runs -= np.where(codes[ends] & 16, 1 << 5 * (place[ends] + 1), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs
