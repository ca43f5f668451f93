"""The connected pieces of a mask of classes, from its runs: the mask itself is looked at in bands of rows, and never held whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.core.class_masks import Packed
from saccade.core.run_lengths import Patch

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """A connected piece of one class.

    label: class index; area: pixels; perimeter: sides of pixels between it and others, or the image's edge; centroid: (x, y) and box: x1,
    y1, x2, y2 in pixels from the corner of the image's first pixel.
    """

    label: int
    area: int
    perimeter: int
    centroid: tuple[float, float]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Pieces:
    """The pieces of a mask, by class, then from the top, connected by sides, not by corners.

    Of each run of pixels of one class in one row, sorted by piece: row `[R]`, first and end (columns) `[R]`; bounds: where the runs of each
    piece begin, and their number, `[P + 1]`; regions: `[P]`.
    """

    row: Ints
    first: Ints
    end: Ints
    bounds: Ints
    regions: tuple[Region, ...]

    @classmethod
    def together(cls, parts: Sequence[Pieces]) -> Pieces:
        """Those of several masks, in their order; one at least."""
        row, first, end = (np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "first", "end"))
        counts = np.concatenate([np.diff(part.bounds) for part in parts])
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(row, first, end, bounds, tuple(region for part in parts for region in part.regions))

    def patch(self, number: int) -> Patch:
        """The pixels of a piece within its box."""
        left, top, right, bottom = self.regions[number].box
        runs = slice(self.bounds[number], self.bounds[number + 1])
        places = (self.row[runs] - top) * (right - left + 1)  # a column more, where runs that reach the right side end
        marks = np.zeros(((bottom - top) * (right - left + 1)), np.int8)
        marks[places + self.first[runs] - left] = 1
        marks[places + self.end[runs] - left] = -1
        inside = np.cumsum(marks, dtype=np.int8).astype(bool).reshape(bottom - top, -1)[:, :-1]
        return Patch(inside, top, left)


def pieces(mask: Packed, without: Collection[int] = (), least: int = 1) -> Pieces:
    """The pieces of `least` pixels and more of all classes but those in `without`."""
    width = mask.size[1]
    start, stop, label = _runs(mask, without)
    upper, lower, common = _touching(start, stop, label, width)
    piece = _joined(upper, lower, len(start))
    count = int(piece.max(initial=-1)) + 1
    length = stop - start
    area = np.bincount(piece, length, count).astype(np.int64)
    perimeter = np.bincount(piece, 2 + 2 * length, count) - 2 * np.bincount(piece[upper], common, count)
    row, first = start // width, start % width
    end = first + length
    x = np.bincount(piece, length * (first + end) / 2, count) / np.maximum(area, 1)
    y = np.bincount(piece, length * (row + 0.5), count) / np.maximum(area, 1)
    order = np.argsort(piece, kind="stable")
    begins = np.searchsorted(piece[order], np.arange(count))
    box = [np.minimum, np.minimum, np.maximum, np.maximum]
    left, top, right, bottom = (
        side.reduceat(of[order], begins) if count else of for side, of in zip(box, (first, row, end, row + 1), strict=True)
    )
    kinds = label[order][begins]
    ranked = np.lexsort((start[order][begins], kinds))
    kept = ranked[area[ranked] >= least]
    regions = tuple(
        Region(
            int(kinds[k]),
            int(area[k]),
            int(perimeter[k]),
            (float(x[k]), float(y[k])),
            (int(left[k]), int(top[k]), int(right[k]), int(bottom[k])),
        )
        for k in kept.tolist()
    )
    each = np.append(begins, len(order))
    runs = [order[each[k] : each[k + 1]] for k in kept.tolist()]
    together = np.concatenate(runs) if runs else order[:0]
    bounds = np.concatenate([[0], np.cumsum([len(one) for one in runs])]).astype(np.int64)
    return Pieces(row[together], first[together], end[together], bounds, regions)


def _runs(mask: Packed, without: Collection[int]) -> tuple[Ints, Ints, Ints]:
    """Where runs start and stop, counted over the rows one after the other, and their classes; from the top."""
    found = list(_by_band(mask, without)) or [(np.empty(0, np.int64),) * 3]
    start, stop, label = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return start, stop, label


def _by_band(mask: Packed, without: Collection[int]) -> Iterator[tuple[Ints, Ints, Ints]]:
    width, before = mask.size[1], 0
    for band in mask.bands():
        new = np.ones(band.shape, bool)
        new[:, 1:] = band[:, 1:] != band[:, :-1]
        start = np.flatnonzero(new)
        stop = np.append(start[1:], band.size)
        label = band.ravel()[start].astype(np.int64)
        kept = ~np.isin(label, list(without))
        yield start[kept] + before * width, stop[kept] + before * width, label[kept]
        before += len(band)


def _touching(start: Ints, stop: Ints, label: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """Pairs of runs of one class, the second in the row below the first, and how many pixels of them touch."""
    low = np.searchsorted(stop, start + width, "right")
    often = np.maximum(np.searchsorted(start, stop + width, "left") - low, 0)
    upper = np.repeat(np.arange(len(start)), often)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(often) - often, often) + np.repeat(low, often)
    same = label[upper] == label[lower]
    upper, lower = upper[same], lower[same]
    common = np.minimum(stop[upper] + width, stop[lower]) - np.maximum(start[upper] + width, start[lower])
    return upper, lower, common


def _joined(upper: Ints, lower: Ints, count: int) -> Ints:
    """The piece of each run."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, np.int64)
    _, piece = connected_components(coo_array((np.ones(len(upper), bool), (upper, lower)), (count, count)), directed=False)
    found: Ints = np.asarray(piece, np.int64)
    return found
