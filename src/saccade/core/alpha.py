"""Transparency in four channels: red, green, blue and alpha, the colours premultiplied by alpha inside of the package.

So the colour of what cannot be seen counts for nothing, and each channel may be resampled or averaged by itself. Files, and Pillow's
"RGBA", have straight alpha: colours as they are where they are opaque. All here takes any leading axes; NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saccade.core.errors import UserError

Pixels = NDArray[np.uint8]


def premultiplied(pixels: Pixels) -> Pixels:
    """uint8 `[..., 4]` of straight alpha -> a new array of the same shape, each colour times alpha / 255, rounded to the nearest."""
    _check(pixels)
    wide = pixels[..., :3].astype(np.uint16)
    wide *= pixels[..., 3:]
    wide += 127  # 255 is odd: there are no halves to round
    return np.concatenate([(wide // 255).astype(np.uint8), pixels[..., 3:]], axis=-1)


def straight(pixels: Pixels) -> Pixels:
    """uint8 `[..., 4]`, premultiplied -> straight alpha, for writing a file; colours are 0 where alpha is.

    A colour above its alpha, which only a model's output can have, becomes 255. `premultiplied(straight(p))` is p again where none is; the
    other way round a colour returns within 127.5 / alpha + 0.5 of 255: what is hardly seen is hardly known.
    """
    _check(pixels)
    alpha = pixels[..., 3:].astype(np.uint16)
    wide = np.minimum(pixels[..., :3], alpha)
    wide *= 255
    wide += alpha // 2
    return np.concatenate([(wide // np.maximum(alpha, 1)).astype(np.uint8), pixels[..., 3:]], axis=-1)


def over_white(pixels: Pixels) -> Pixels:
    """uint8 `[..., 4]`, premultiplied -> uint8 `[..., 3]`, as it looks on white."""
    _check(pixels)
    alpha = pixels[..., 3:]
    return np.minimum(pixels[..., :3], alpha) + (255 - alpha)


def opaque(pixels: Pixels) -> Pixels:
    """uint8 `[..., 1 or 3]`, grey or colour -> `[..., 4]` that nothing shines through."""
    colours = pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1)
    return np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=-1)


def _check(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim < 1 or pixels.shape[-1] != 4:
        raise UserError(f"pixels with alpha must be uint8 [..., 4], are {pixels.dtype} {list(pixels.shape)}")
