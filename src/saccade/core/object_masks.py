"""Masks of objects, as their models give them -> pixels of the original images. NumPy.

What the outputs hold says in which form:

"grids" `[B, N, S, S]`: for each object how probably it covers each of S x S cells of its box (x1, y1, x2, y2), 0 to 1. It covers a pixel
with the middle (x, y) where

    sum_ij grid_ij t(u - j) t(v - i) >= 1/2,  t(d) = max(0, 1 - |d|),  u = S (x - x1) / (x2 - x1) - 1/2,  v = S (y - y1) / (y2 - y1) - 1/2:

linear between the middles of the cells, and towards nothing beyond the outermost, so that no mask leaves its box (He et al. 2017, "Mask
R-CNN", section 3.1: "resized to the RoI size, and binarized at a threshold of 0.5").

"weights" `[B, N, CONIC + F]` and "prototypes" `[B, F, h, w]`, maps of which there is a value at each CELL of the input from its corner on:
an object covers a pixel within CELL of its box where their sum and that of the conic, so weighted, is above 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.geometry import CELL, CONIC, SMALLEST, conic, fitting, padded
from saccade.core.pixel_classes import numbers
from saccade.core.run_lengths import Patch, Rle

Floats = NDArray[np.float64]


class Masks(Protocol):
    """Those of a batch."""

    def drawn(
        self, place: int, kept: NDArray[np.int64], boxes: NDArray[np.float32], size: tuple[int, int], fitted: tuple[int, int]
    ) -> tuple[Rle, ...]:
        """The masks of an image's objects whose boxes in the input are `boxes`, in the original of `size` (height, width), which is fitted
        into `fitted`."""
        ...


def form(outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what masks are made of."""
    return ("grids",) if "grids" in outputs else ("weights", "prototypes")


def of(outputs: Mapping[str, Any], images: int, places: tuple[int, ...]) -> Masks:
    """The masks of `places` (N) objects in each of so many images; raises UserError for what is no form of them."""
    arrays = [numbers(outputs[name], name) for name in form(outputs)]
    finite = all(bool(np.isfinite(array).all()) for array in arrays)
    shapes = " and ".join(str(array.shape) for array in arrays)
    if len(arrays) == 1:
        (grids,) = arrays
        if not finite or grids.ndim != 4 or not grids.shape[3] or grids.shape != (images, *places, grids.shape[3], grids.shape[3]):
            raise UserError(f"the model must give finite grids [B, N, S, S], got {shapes}")
        return _Grids(grids)
    weights, prototypes = arrays
    if not finite or prototypes.ndim != 4 or len(prototypes) != images or weights.shape != (images, *places, CONIC + prototypes.shape[1]):
        raise UserError(f"the model must give finite weights [B, N, {CONIC} + F] and prototypes [B, F, h, w], got {shapes}")
    return _Prototypes(weights, prototypes)


@dataclass(frozen=True)
class _Grids:
    """grids `[B, N, S, S]`."""

    grids: NDArray[np.float32]

    def drawn(
        self, place: int, kept: NDArray[np.int64], boxes: NDArray[np.float32], size: tuple[int, int], fitted: tuple[int, int]
    ) -> tuple[Rle, ...]:
        ratio, cells, one = _ratio(size, fitting(size, fitted)), self.grids.shape[3], np.ones(1)
        found = []
        for grid, box in zip(self.grids[place][kept], boxes.astype(np.float64), strict=True):
            (left, across), (top, down) = (_pixels(box[axis], box[axis + 2], size[1 - axis], ratio[axis]) for axis in (0, 1))
            # A row of nothing on each side; its first cell is -1.
            u, v = (cells * (middles - box[axis]) / (box[axis + 2] - box[axis]) + 0.5 for axis, middles in enumerate((across, down)))
            shown = _between(np.pad(grid, 1)[None], one, v, u) >= 0.5
            found.append(run_lengths.from_patch(Patch(shown, top, left), size))
        return tuple(found)


@dataclass(frozen=True)
class _Prototypes:
    """weights `[B, N, CONIC + F]` and prototypes `[B, F, h, w]`."""

    weights: NDArray[np.float32]
    prototypes: NDArray[np.float32]

    def drawn(
        self, place: int, kept: NDArray[np.int64], boxes: NDArray[np.float32], size: tuple[int, int], fitted: tuple[int, int]
    ) -> tuple[Rle, ...]:
        scaled = fitting(size, fitted)
        rows, columns = (side // CELL for side in padded(scaled))
        prototypes = self.prototypes[place][:, :rows, :columns]
        if prototypes.shape[1:] != (rows, columns):
            raise UserError(
                f"the model must give prototypes of {rows}x{columns} for an image of {size[0]}x{size[1]}, got {prototypes.shape}"
            )
        ratio = _ratio(size, scaled)
        found = []
        for row, box in zip(self.weights[place][kept].astype(np.float64), boxes.astype(np.float64), strict=True):
            middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, SMALLEST)
            (left, across), (top, down) = (_pixels(box[axis] - CELL, box[axis + 2] + CELL, size[1 - axis], ratio[axis]) for axis in (0, 1))
            used = np.flatnonzero(row[CONIC:])  # one alone where each object has a map of its own
            summed = _between(prototypes[used], row[CONIC:][used], down / CELL - 0.5, across / CELL - 0.5)
            about = conic(row[:CONIC], (across - middle[0]) / half[0], (down - middle[1])[:, None] / half[1])
            found.append(run_lengths.from_patch(Patch(summed + about > 0, top, left), size))
        return tuple(found)


def _ratio(size: tuple[int, int], scaled: tuple[int, int]) -> tuple[float, float]:
    """How many times as wide, and as high, an image of `size` (height, width) is in an input that it fills as `scaled`."""
    return scaled[1] / size[1], scaled[0] / size[0]


def _pixels(low: float, high: float, length: int, ratio: float) -> tuple[int, Floats]:
    """The first pixel of a side of `length` between two places of an input `ratio` times as large, and where the middles of all of them
    lie in that."""
    first, last = max(0, math.floor(low / ratio)), min(length, math.ceil(high / ratio))
    middles: Floats = (np.arange(first, last, dtype=np.float64) + 0.5) * ratio
    return first, middles


def _between(maps: NDArray[np.float32], weights: Floats, down: Floats, across: Floats) -> Floats:
    """The weighted sum of maps `[F, h, w]` at rows `[H]` and columns `[W]`, linearly between them: `[H, W]`."""
    (top, rows), (left, columns) = (_mixing(places, side) for places, side in zip((down, across), maps.shape[1:], strict=True))
    part = maps[:, top : top + rows.shape[1], left : left + columns.shape[1]]
    found: Floats = rows @ np.tensordot(weights, part, 1) @ columns.T
    return found


def _mixing(places: NDArray[np.float64], side: int) -> tuple[int, NDArray[np.float64]]:
    """The first of the cells of a side that places lie between, and the share of each in them: `[P, cells]`."""
    clipped = places.clip(0, side - 1)
    low = np.floor(clipped).astype(np.int64)
    high = np.minimum(low + 1, side - 1)
    first = int(low[0]) if len(low) else 0
    shares = np.zeros((len(places), int(high[-1]) - first + 1 if len(high) else 0))
    rows = np.arange(len(places))
    shares[rows, low - first] = 1 - (clipped - low)
    shares[rows, high - first] += clipped - low
    return first, shares
