"""Where tiles lie, what they count, and that what is blended from them is the map of the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import tiles


@given(st.integers(1, 9000), st.sampled_from([(1024, 256), (96, 32), (64, 32), (128, 64)]))
def test_tiles_cover_a_side(side: int, shape: tuple[int, int]) -> None:
    tile, overlap = shape
    begin = tiles.starts(side, tile, overlap)
    assert begin[0] == 0 and begin[-1] + tile >= min(side, tile)
    assert all(start % tiles.STEP == 0 for start in begin)
    assert begin[-1] + tile >= side and (len(begin) == 1 or begin[-1] + tile - side < tiles.STEP)
    assert all(first < second <= first + tile - overlap for first, second in itertools.pairwise(begin))
    counted = np.zeros(begin[-1] + tile)
    for start, share in zip(begin, tiles.shares(begin, tile), strict=True):
        counted[start : start + tile] += share
        assert (share >= 0).all()
    np.testing.assert_allclose(counted[:side], 1, atol=1e-6)


def blended(whole: np.ndarray, tile: int, overlap: int, reach: int) -> np.ndarray:
    """From tiles that know the whole map, but for what lies within `reach` of their inner edges."""
    height, width = whole.shape[1:]

    def answer(rows: slice, columns: slice) -> np.ndarray:
        part = np.zeros((len(whole), tile, tile), np.float32)
        shown = whole[:, rows, columns]
        part[:, : shown.shape[1], : shown.shape[2]] = shown
        spoilt = np.full((tile, tile), True)
        top, left = (reach if part.start else 0 for part in (rows, columns))
        bottom = tile - reach if rows.stop < height else tile
        right = tile - reach if columns.stop < width else tile
        spoilt[top:bottom, left:right] = False
        part[:, spoilt] += 1000
        return part

    found = np.full(whole.shape, np.nan, np.float32)
    for top, left, values in tiles.blocks(answer, (height, width), tile, overlap):
        place = found[:, top : top + values.shape[1], left : left + values.shape[2]]
        assert np.isnan(place).all() and place.shape == values.shape
        place[:] = values
    return found


@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (65, 64), (200, 300), (128, 97), (500, 64), (63, 400)])
def test_the_map_of_the_whole(shape: tuple[int, int]) -> None:
    whole = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    np.testing.assert_allclose(blended(whole, 64, 32, 8), whole, atol=1e-5)


def test_a_reach_beyond_a_quarter_of_the_overlap_shows() -> None:
    whole = np.zeros((1, 200, 200), np.float32)
    assert blended(whole, 64, 32, 12).max() > 1
