"""Masks of classes: the class of each pixel as a number of 8 bits, kept deflated, and written as pictures that people can look at."""

from __future__ import annotations

import colorsys
import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = 255  # pixels that count neither in the loss nor in metrics
HUE = 137.508  # degrees from one class to the next: the golden angle


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers of the pixels of one image, uint8 `[H, W]`, deflated: a mask of classes takes a hundredth of its size."""

    size: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, values: NDArray[np.uint8]) -> Packed:
        """uint8 `[H, W]`."""
        return cls((values.shape[0], values.shape[1]), zlib.compress(np.ascontiguousarray(values).data, 1))

    @property
    def values(self) -> NDArray[np.uint8]:
        """uint8 `[H, W]`, read only."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.size)


def resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """`[H, W]` at `size` (height, width), each pixel that of the nearest."""
    if values.shape == size:
        return values
    rows, columns = (((np.arange(side) + 0.5) * (own / side)).astype(np.int64) for own, side in zip(values.shape, size, strict=True))
    found: NDArray[Any] = values[rows[:, None], columns]
    return found


def colour(label: int) -> tuple[int, int, int]:
    """What a class is shown in: black for the first, which is mostly the background."""
    if not label:
        return 0, 0, 0
    red, green, blue = colorsys.hls_to_rgb(label * HUE % 360 / 360, 0.5, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def png(classes: NDArray[np.uint8]) -> bytes:
    """A mask uint8 `[H, W]` as a palette PNG: the index is the class, the colour is for people; 255 is white."""
    from PIL import Image

    image = Image.frombytes("P", (classes.shape[1], classes.shape[0]), classes.tobytes())
    image.putpalette([part for label in range(255) for part in colour(label)] + [255, 255, 255])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False)
    return file.getvalue()
