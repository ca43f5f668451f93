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


def blocks(answer: Callable[[slice, slice], Floats], size: tuple[int, int], tile: int, overlap: int) -> Iterator[tuple[int, int, Floats]]:
    """(first row, first column, values `[K, rows, columns]`) of an image of `size` (height, width), each pixel once; blocks beside
    each other have the same rows, and come from the left, then from the top.

    answer: the values `[K, tile, tile]` of a tile, by its rows and columns, which may reach beyond the image. Held is what the tiles of a
    row share with those below.
    """
    rows, columns = (starts(side, tile, overlap) for side in size)
    down, across = (shares(begin, tile) for begin in (rows, columns))
    deepest = max((first + tile - second for first, second in itertools.pairwise(rows)), default=0)
    below = np.empty((0, 0, 0), np.float32)  # of the rows that two rows of tiles share: what those above said, and at columns that are done
    above = 0  # those below; how many rows of it there are
    for number, top in enumerate(rows):
        after = rows[number + 1] - top if number + 1 < len(rows) else size[0] - top
        right = np.empty((0, tile, 0), np.float32)
        for place, left in enumerate(columns):
            values = answer(slice(top, top + tile), slice(left, left + tile)) * (across[place] * down[number][:, None])
            values[:, :, : right.shape[2]] += right if right.size else 0
            wide = columns[place + 1] - left if place + 1 < len(columns) else size[1] - left
            right, values = values[:, :, wide:].copy(), values[:, :, :wide]
            if not len(below):
                below = np.zeros((len(values), deepest, size[1]), np.float32)
            values[:, :above] += below[:, :above, left : left + wide]
            if number + 1 < len(rows):
                below[:, : tile - after, left : left + wide] = values[:, after:]
            yield top, left, values[:, :after]
        above = tile - after
