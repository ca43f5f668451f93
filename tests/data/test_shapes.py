"""What covers an object: outlines far outside of the image, run lengths of other people's files, boxes, outlines of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import mask as coco
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import run_lengths
from saccade.core.run_lengths import Rle
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


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32))
def test_run_lengths_that_pycocotools_would_write_are_taken(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    packed = coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    assert np.array_equal(run_lengths.to_mask(run_lengths.checked(packed, (height, width))), mask)
    edges = np.flatnonzero(np.diff(mask.reshape(-1, order="F"), prepend=False))
    runs = np.diff(edges, prepend=0, append=mask.size).tolist()
    assert run_lengths.checked(runs, (height, width)) == Rle((height, width), packed)


@given(st.binary(max_size=12) | st.text("0123456789o`_PQR", max_size=12).map(str.encode))
def test_run_lengths_of_any_bytes_are_whole_or_refused(counts: bytes) -> None:
    try:
        found = run_lengths.checked(counts, SIZE)
    except ValueError:
        return
    assert run_lengths.to_mask(found).shape == SIZE


@pytest.mark.parametrize("counts", [b"", b"o", b"ooo", b"0", b"\xff", b"k5`", [], [187, 1], [188, -1], [0] * 5, [186]])
def test_run_lengths_that_do_not_fill_the_mask(counts: bytes | list[int]) -> None:
    with pytest.raises(ValueError, match="run length"):
        run_lengths.checked(counts, SIZE)


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
