"""How closely the edges of classes are met, in masks that are read from the top in bands: of a large image no more is held than a band
and the places of its edges. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.class_masks import BAND, IGNORED

Array = NDArray[Any]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # rows of an answer and of the truth, `[rows, W]` each
TOLERANCE = 0.0075  # of the image's diagonal, within which an edge is met (Csurka et al. 2013, section 2.2)
PERCENTILE = 95.0
MANY = 0.1  # share of the pixels of an image of no more than a band


def compared(bands: Iterable[Pair], size: tuple[int, int], labels: Iterable[int]) -> Array:
    """Of each of the labels, for an image of `size` (height, width): the label, edge pixels of the answer that are met and all of them, the
    same of the truth, and the Hausdorff distance at PERCENTILE, NaN where it is in one of both only: `[N, 6]`."""
    near = max(1.0, TOLERANCE * float(np.hypot(*size)))
    answer, truth = _edges(bands)
    rows = [[label, *_met(_places(answer, label), _places(truth, label), size, near)] for label in labels]
    return np.array(rows, np.float64).reshape(-1, 6)


def _edges(bands: Iterable[Pair]) -> tuple[list[Array], list[Array]]:
    """Edge pixels of the answer and of the truth, by parts: int32 `[P, 3]`, class, row, column."""
    found: tuple[list[Array], list[Array]] = [], []
    held: Pair | None = None  # the last row so far, which the next may make an edge of, and the one above it
    top = 0  # its row
    for band in bands:
        masks = band if held is None else tuple(np.concatenate(both) for both in zip(held, band, strict=True))
        first = 0 if held is None else len(held[0]) - 1
        _take(found, (masks[0], masks[1]), slice(first, len(masks[0]) - 1), top - first)
        top += len(masks[0]) - 1 - first
        held = masks[0][-2:], masks[1][-2:]
    if held is not None:
        last = len(held[0]) - 1
        _take(found, held, slice(last, last + 1), top - last)
    return found


def _take(found: tuple[list[Array], list[Array]], masks: Pair, rows: slice, top: int) -> None:
    """Add the edge pixels in `rows` of masks whose first row is `top`."""
    void = masks[1] == IGNORED
    for into, mask in zip(found, masks, strict=True):
        down, across = np.nonzero(_edge(mask, void)[rows])
        into.append(np.stack([mask[rows][down, across], down + rows.start + top, across], 1, dtype=np.int32, casting="unsafe"))


def _edge(mask: NDArray[np.uint8], void: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with one of another class beside, above or below them, both of which count."""
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        first, second = (slice(None, -1), slice(None))[:: 1 - 2 * axis], (slice(1, None), slice(None))[:: 1 - 2 * axis]
        other = (mask[first] != mask[second]) & ~void[first] & ~void[second]
        edge[first] |= other
        edge[second] |= other
    return edge


def _places(parts: list[Array], label: int) -> Array:
    """Row and column of the edge pixels of a class: `[P, 2]`."""
    return np.concatenate([part[part[:, 0] == label, 1:] for part in parts]) if parts else np.zeros((0, 2), np.int32)


def _met(answer: Array, truth: Array, size: tuple[int, int], near: float) -> tuple[float, float, float, float, float]:
    """Edge pixels `[P, 2]` of the answer that are met and all, the same of the truth, and the Hausdorff distance at PERCENTILE."""
    said, there = len(answer), len(truth)
    if not (said and there):
        return 0, said, 0, there, np.nan
    to_truth, to_answer = _distances(answer, truth, size), _distances(truth, answer, size)
    apart = max(float(np.percentile(one, PERCENTILE)) for one in (to_truth, to_answer))
    return int((to_truth <= near).sum()), said, int((to_answer <= near).sum()), there, apart


def _distances(points: Array, others: Array, size: tuple[int, int]) -> NDArray[np.float64]:
    """From each point to the nearest of the others, in pixels; of many by a transform of the whole, which takes as long for any number."""
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    pixels = size[0] * size[1]
    if pixels <= BAND and len(points) + len(others) > pixels * MANY:
        free = np.ones(size, bool)
        free[tuple(others.T)] = False
        transformed: NDArray[np.float64] = np.asarray(distance_transform_edt(free))[tuple(points.T)]
        return transformed
    found, _ = cKDTree(others).query(points)
    distances: NDArray[np.float64] = np.asarray(found)
    return distances
