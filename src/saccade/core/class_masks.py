"""Masks of classes: the class of each pixel as a number of 8 bits, kept deflated, and written as pictures that people can look at."""

from __future__ import annotations

import colorsys
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import encoding

IGNORED = 255  # pixels that count neither in the loss nor in metrics
BAND = 1 << 22  # pixels that are expanded at once
PIECE = 1 << 20  # bytes that are inflated at once
DRAWN = 1 << 24  # pixels of a picture
HUE = 137.508  # degrees from one class to the next: the golden angle


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers of the pixels of one image, uint8 `[H, W]`, deflated: a mask of classes takes a hundredth of its size."""

    size: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, values: NDArray[np.uint8]) -> Packed:
        """uint8 `[H, W]`."""
        return cls.joined([values], (values.shape[0], values.shape[1]))

    @classmethod
    def joined(cls, bands: Iterable[NDArray[np.uint8]], size: tuple[int, int]) -> Packed:
        """From uint8 `[rows, W]` each, from the top, which need not be there at once."""
        packer = Packer(size)
        for band in bands:
            packer.add(band)
        return packer.packed()

    @property
    def values(self) -> NDArray[np.uint8]:
        """uint8 `[H, W]`, read only."""
        return np.frombuffer(zlib.decompress(self.data, bufsize=max(1, self.size[0] * self.size[1])), np.uint8).reshape(self.size)

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """uint8 `[rows, W]`, from the top, no more than BAND pixels (but a row) at a time; read only."""
        height, width = self.size
        rows = max(1, BAND // max(1, width))
        whole = memoryview(self.data)
        pieces = (whole[place : place + PIECE] for place in range(0, len(whole), PIECE))
        for part in encoding.inflated(pieces, [min(rows, height - top) * width for top in range(0, height, rows)]):
            yield np.frombuffer(part, np.uint8).reshape(-1, width)

    @property
    def step(self) -> int:
        """The least for which `every` gives no more than DRAWN pixels, about: what people look at need not have more."""
        return max(1, math.ceil(math.sqrt(self.size[0] * self.size[1] / DRAWN)))

    def every(self, step: int) -> NDArray[np.uint8]:
        """Every `step`th pixel of every `step`th row: uint8 `[ceil(H / step), ceil(W / step)]`."""
        kept, first = [np.empty((0, -(-self.size[1] // step)), np.uint8)], 0
        for band in self.bands():
            kept.append(band[-first % step :: step, ::step])
            first += len(band)
        return np.concatenate(kept)


class Packer:
    """Makes a Packed of bands that come one by one."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size, self._rows = size, 0
        self._deflate = zlib.compressobj(1)
        self._data = io.BytesIO()  # which gives its bytes without a copy

    def add(self, band: NDArray[np.uint8]) -> None:
        """uint8 `[rows, W]`, the next from the top."""
        self._data.write(self._deflate.compress(np.ascontiguousarray(band, np.uint8).data))
        self._rows += len(band)

    def packed(self) -> Packed:
        """All of them; raises ValueError where rows are missing."""
        if self._rows != self._size[0]:
            raise ValueError(f"must have {self._size[0]} rows, got {self._rows}")
        self._data.write(self._deflate.flush())
        return Packed(self._size, self._data.getvalue())


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


def png(classes: Packed | NDArray[np.uint8]) -> bytes:
    """A mask, uint8 `[H, W]` or packed, as a palette PNG: the index is the class, the colour is for people; 255 is white."""
    palette = bytes([part for label in range(255) for part in colour(label)] + [255, 255, 255])
    packed = classes if isinstance(classes, Packed) else Packed.of(classes)
    return b"".join(encoding.png_of(packed.bands(), packed.size, palette))
