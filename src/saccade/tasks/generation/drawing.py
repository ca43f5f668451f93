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


def scatter(points: NDArray[Any], labels: NDArray[np.int64] | None, names: Sequence[str] = (), side: int = 640) -> Pixels:
    """Points `[N, 2]` -> a square picture of dots, coloured by label; the name of each class stands in the middle of its dots."""
    from PIL import Image, ImageDraw

    colours = np.array([[78, 121, 167], [242, 142, 43], [225, 87, 89], [118, 183, 178], [89, 161, 79], [237, 201, 72], [176, 122, 161],
                        [255, 157, 167], [156, 117, 95], [90, 90, 90]], np.uint8)  # fmt: skip  # Tableau's ten
    picture = np.full((side, side, 3), GROUND, np.uint8)
    low, high = np.quantile(points, 0.005, axis=0), np.quantile(points, 0.995, axis=0)
    at = ((points - low) / np.maximum(high - low, 1e-9) * (side - 9) + 3).round().clip(1, side - 3).astype(int)
    for place, (x, y) in enumerate(at.tolist()):
        picture[side - 2 - y : side + 1 - y, x - 1 : x + 2] = colours[0 if labels is None else int(labels[place]) % len(colours)]
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for label in () if labels is None else np.unique(labels).tolist():
        x, y = np.median(at[labels == label], axis=0).tolist()
        name = names[label][:20] if names else str(label)
        pen.text((x, side - y), name, "black", anchor="mm", stroke_width=3, stroke_fill="white", font_size=18)
    return np.asarray(image)


def laid_out(rows: NDArray[Any]) -> NDArray[np.float64]:
    """`[N, L]` -> places in a plane `[N, 2]` at which neighbours stay neighbours: t-SNE (van der Maaten & Hinton
    2008), the same each time."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    found: NDArray[np.float64] = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(np.asarray(rows, np.float32))
    return found.astype(np.float64)
