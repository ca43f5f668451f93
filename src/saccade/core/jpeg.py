"""JPEG files by libjpeg-turbo itself: the pixels that Pillow gives, which is built on it, without its copies; small where that will do."""

from __future__ import annotations

from typing import IO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from saccade.core import geometry

GAP = 2


def decode(image: Image.Image, file: IO[bytes]) -> NDArray[np.uint8] | None:
    """The pixels of a file that Pillow has opened as `image`, at the size that is drafted to: uint8 `[H, W, 3 or 1]`, not turned.

    None where Pillow must see to it: colours that are neither RGB nor grey, and whatever libjpeg warns of. `file` stands where it stood.
    """
    if image.mode not in ("RGB", "L"):
        return None
    width, height = image.size
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace="RGB" if image.mode == "RGB" else "GRAY", min_height=height, min_width=width, min_factor=1
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None


def reduced(image: Image.Image, file: IO[bytes], covering: tuple[int, int]) -> Image.Image:
    """A JPEG as it is or, where it is large, one that just covers (height, width) `covering`, made from the smallest of libjpeg's sizes
    that is GAP times that. Before it is turned.

    libjpeg rounds sides up: its last column or row may stand for a part of a pixel, which the box leaves out.
    """
    width, height = image.size
    image.draft(None, (GAP * covering[1], GAP * covering[0]))
    if image.size == (width, height):
        return image
    factor = next(n for n in (2, 4, 8) if image.size == (-(-width // n), -(-height // n)))
    pixels = decode(image, file)
    small = image if pixels is None else Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    scaled = geometry.covering((height, width), covering)
    return small.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR, box=(0, 0, width / factor, height / factor))
