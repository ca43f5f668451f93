"""Maps of images that are too large to be answered for at once, from tiles that overlap. NumPy only.

Tiles begin at multiples of STEP, so that each cell of a network lies where it would lie in the whole image, as evenly spaced as that
allows. Of what two share, the quarter next to a tile's edge counts nothing, and between the quarters the one passes over into the other.
So where a network sees no further than OVERLAP / 4 pixels, the blended map is that of the whole image but for rounding.

K values at each of H x W pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TILE, OVERLAP = 1024, 256  # pixels; multiples of STEP
STEP = 32
WHOLE = 2048 * 2048  # pixels up to which an image is answered for at once


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, so that neighbours share `overlap` pixels at least (half of a tile at most); the last may reach
    beyond the side."""
    if side <= tile:
        return [0]
    last = -(-(side - tile) // STEP) * STEP
    count = -(-last // (tile - overlap)) + 1
    return [number * last // (count - 1) // STEP * STEP for number in range(count)]


def shares(begin: list[int], tile: int) -> list[Floats]:
    """What each tile counts at each of its pixels along a side: `[tile]` each, 1 in sum at every pixel of the side."""
    found = [np.ones(tile, np.float32) for _ in begin]
    for number, (first, second) in enumerate(itertools.pairwise(begin)):
        common = first + tile - second
        rising = np.clip((np.arange(tile, dtype=np.float32) + 0.5 - common / 4) / (common / 2), 0, 1)
        found[number + 1] *= rising
        found[number][second - first :] *= 1 - rising[:common]
    return found


def bands(answer: Callable[[slice, slice], Floats], size: tuple[int, int], tile: int, overlap: int) -> Iterator[tuple[int, Floats]]:
    """(first row, values `[K, rows, W]`) of an image of `size` (height, width), from the top, each row once.

    answer: the values `[K, tile, tile]` of a tile, by its rows and columns, which may reach beyond the image. No more than a row of tiles
    is held.
    """
    rows, columns = (starts(side, tile, overlap) for side in size)
    down, across = (shares(begin, tile) for begin in (rows, columns))
    carried: Floats | None = None
    for number, top in enumerate(rows):
        strip: Floats | None = None
        for left, share in zip(columns, across, strict=True):
            values = answer(slice(top, top + tile), slice(left, left + tile))
            if strip is None:
                strip = np.zeros((len(values), tile, columns[-1] + tile), np.float32)
            strip[:, :, left : left + tile] += values * share
        if strip is None:
            return
        strip *= down[number][:, None]
        if carried is not None:
            strip[:, : carried.shape[1]] += carried
        after = rows[number + 1] - top if number + 1 < len(rows) else size[0] - top
        carried = strip[:, after:].copy()
        yield top, strip[:, :after, : size[1]]
