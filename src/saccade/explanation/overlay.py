"""An attribution map drawn over its image, for a person to look at. NumPy, and matplotlib for the colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 224  # pixels of the longer side: a digit of 8 px would be a dot on the screen
COLORS = "inferno"  # perceptually uniform, and readable without colour vision
STRENGTH = 0.7  # opacity where the map is 1
UNSEEN = 0.4  # brightness of what the model never saw


def overlay(pixels: NDArray[np.uint8], values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """uint8 [H, W, 1 or 3] (or [H, W]) with a map [H, W] in 0..1 over it -> uint8 [h, w, 3].

    The stronger the map, the more opaque its colour; NaN (cut off before the model saw it) is darkened. Images smaller
    than 224 px are enlarged by a whole factor, pixel by pixel. Raises ValueError where the sizes differ.
    """
    import matplotlib

    picture = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if picture.shape[:2] != values.shape:
        raise ValueError(f"image and map must be of one size, are {picture.shape[:2]} and {values.shape}")
    seen = np.isfinite(values)
    strength = np.where(seen, np.clip(np.nan_to_num(values), 0, 1), 0).astype(np.float32)[:, :, None]
    colors = matplotlib.colormaps[COLORS](strength[:, :, 0])[:, :, :3].astype(np.float32) * 255
    base = np.broadcast_to(picture, (*values.shape, 3)).astype(np.float32)
    base = np.where(seen[:, :, None], base, base * UNSEEN)
    mixed = base + STRENGTH * strength * (colors - base)
    factor = max(1, -(-SMALLEST // max(values.shape)))
    return np.round(mixed).astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)
