"""Pictures whose pixels are numbers, not light: masks of classes and of instances."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from saccade.core import images
from saccade.core.errors import UserError

Values: TypeAlias = NDArray[np.int32]


def read(source: str | os.PathLike[str] | bytes, *, colours: bool = False, max_pixels: int = images.MAX_PIXELS) -> Values:
    """A picture's values as they stand in the file: int32 `[H, W]`.

    Palettes give the index, or with `colours` the colour behind it; 1, 8 and 16 bit grey pictures the value (white is 1 where there is one
    bit); colour pictures r << 16 | g << 8 | b, or without `colours` the value where all channels are equal in all pixels. Alpha and EXIF
    orientation count for nothing. Raises UserError as `images.read` does.
    """
    with images.opened(source, max_pixels) as (image, _):
        images.check_pixels(image.size, str(source)[:500] if not isinstance(source, bytes) else "bytes", max_pixels)
        if image.mode == "P" and not colours:
            return np.asarray(image).astype(np.int32)
        if image.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L") and not colours:
            return np.asarray(image).astype(np.int32)
        if image.mode in ("LA", "La") and not colours:
            return np.asarray(image)[:, :, 0].astype(np.int32)
        if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV"):
            raise UserError(f"must be a mask (grey, palette or RGB), but is of mode {image.mode}", where=str(source)[:500])
        pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    if not colours and (red == green).all() and (green == blue).all():
        return red
    return red << 16 | green << 8 | blue


def has_palette(source: str | os.PathLike[str] | bytes, max_pixels: int = images.MAX_PIXELS) -> bool:
    """Whether a picture's values are places in a palette. Raises UserError as `images.read` does."""
    with images.opened(source, max_pixels) as (image, _):
        return image.mode == "P"
