"""Sheets of many small images: grids, strips and rows, as arrays. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
GAP = 2
GROUND = 255


def grid(images: Pixels, columns: int | None = None, gap: int = GAP) -> Pixels:
    """uint8 `[N, H, W, C]` -> one picture `[h, w, C]`, row by row; about square where `columns` is not given.

    The ground between is white, or clear where images have 4 channels."""
    count, height, width, channels = images.shape
    columns = columns or max(1, math.ceil(math.sqrt(count * height / width)))
    rows = max(1, -(-count // columns))
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 0 if channels == 4 else GROUND, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def beside(columns: Sequence[Pixels], gap: int = GAP) -> Pixels:
    """Sets of as many images `[N, H, W, C]` -> a picture of N rows, the sets side by side."""
    rows = np.stack(list(columns), 1)
    return grid(rows.reshape(-1, *rows.shape[2:]), len(columns), gap)


def scatter(points: NDArray[Any], labels: NDArray[np.int64] | None, side: int = 480) -> Pixels:
    """Points `[N, 2]` -> a square picture of dots, coloured by label."""
    colours = np.array([[78, 121, 167], [242, 142, 43], [225, 87, 89], [118, 183, 178], [89, 161, 79], [237, 201, 72], [176, 122, 161],
                        [255, 157, 167], [156, 117, 95], [90, 90, 90]], np.uint8)  # fmt: skip  # Tableau's ten
    picture = np.full((side, side, 3), GROUND, np.uint8)
    low, high = np.quantile(points, 0.005, axis=0), np.quantile(points, 0.995, axis=0)
    at = ((points - low) / np.maximum(high - low, 1e-9) * (side - 9) + 3).round().clip(1, side - 3).astype(int)
    for place, (x, y) in enumerate(at.tolist()):
        picture[side - 2 - y : side + 1 - y, x - 1 : x + 2] = colours[0 if labels is None else int(labels[place]) % len(colours)]
    return picture


def principal(rows: NDArray[Any]) -> NDArray[np.float64]:
    """`[N, L]` -> its two principal components `[N, 2]`, their signs made definite."""
    centred = np.asarray(rows, np.float64) - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(1)].diagonal())[:, None]
    found: NDArray[np.float64] = centred @ axes.T
    return found if found.shape[1] == 2 else np.column_stack([found[:, 0], np.zeros(len(found))])
