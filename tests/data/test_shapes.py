"""What covers an object: outlines far outside of the image, run lengths of other people's files, boxes, outlines of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.core import run_lengths
from saccade.data import shapes
from saccade.data.annotations import Object, Ring
from saccade.data.tree import FolderTree

TREE = FolderTree(Path())
SIZE = (17, 11)


def filled(*rings: Ring) -> np.ndarray:
    return run_lengths.to_mask(shapes.rle(Object(0, shape=rings), SIZE, TREE))


def test_what_reaches_far_outside_is_cut_before_it_is_filled() -> None:
    whole = (-1e308, -1e308, 1e308, -1e308, 1e308, 1e308, -1e308, 1e308)
    assert filled(whole).all()
    half = (-1e9, -1e9, 5.0, -1e9, 5.0, 1e9, -1e9, 1e9)
    assert np.array_equal(filled(half), filled((0, 0, 5, 0, 5, 17, 0, 17)))
    slope = filled((0.0, 0.0, 1e6, 1e6, 0.0, 1e6))  # all below the diagonal
    assert np.array_equal(slope, filled((0.0, 0.0, 50.0, 50.0, 0.0, 50.0)))
    assert not filled((1e9, 1e9, 2e9, 1e9, 2e9, 2e9)).any()


def test_outlines_of_less_than_three_points_cover_nothing() -> None:
    assert not filled((1.0, 1.0, 5.0, 5.0)).any() and not filled((1.0, 1.0)).any()
    triangle = (1.0, 1.0, 8.0, 1.0, 8.0, 8.0)
    assert np.array_equal(filled((1.0, 1.0, 5.0, 5.0), triangle), filled(triangle))


def test_a_box_turned_clockwise() -> None:
    assert shapes.turned((0, 0, 4, 2), 90, (0, 0)) == pytest.approx((0, 0, 0, 4, -2, 4, -2, 0))


def test_pieces_and_their_areas() -> None:
    mask = np.zeros(SIZE, bool)
    mask[1:3, 1:3] = mask[6:14, 2:10] = True
    found = shapes.pieces(Object(0, shape=run_lengths.from_mask(mask)), SIZE, TREE)
    assert sorted(map(shapes.area, found)) == pytest.approx([4 - 0.5, 64 - 0.5])  # corners are cut
    assert shapes.pieces(Object(0, (1, 2, 3, 4)), SIZE, TREE) == ()


def test_the_box_of_a_shape() -> None:
    assert shapes.box(Object(0, shape=((1, 2, 3, 4, 0.5, 7), (9, 9, 10, 8, 9, 8))), SIZE, TREE) == (0.5, 2, 10, 9)
    assert shapes.box(Object(0, shape=run_lengths.from_mask(np.zeros(SIZE, bool))), SIZE, TREE) == (0, 0, 0, 0)
