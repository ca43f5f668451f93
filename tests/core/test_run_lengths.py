"""Masks as run lengths and as patches: the same pixels whichever way they are held, moved or compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faster_coco_eval import mask as coco
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import run_lengths
from saccade.core.run_lengths import Patch, Rle

SIZE = (17, 11)


@st.composite
def masks(draw: Any) -> np.ndarray:
    """Specks, blocks that reach over edges, whole columns, all and nothing."""
    height, width = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    mask = np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width)) < draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
    mask[:top] = mask[:, :left] = False
    return mask


def whole(part: Patch, size: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(size, bool)
    canvas[part.top : part.top + part.pixels.shape[0], part.left : part.left + part.pixels.shape[1]] = part.pixels
    return canvas


@given(masks())
def test_there_and_back(mask: np.ndarray) -> None:
    packed, size = run_lengths.from_mask(mask), mask.shape
    assert np.array_equal(run_lengths.to_mask(packed), mask)
    part = run_lengths.patch(packed)
    assert np.array_equal(whole(part, size), mask)
    assert run_lengths.from_patch(part, size) == run_lengths.from_patch(Patch(mask, 0, 0), size) == packed
    assert run_lengths.covered(packed) == mask.sum()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert part.box == ((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if mask.any() else (0, 0, 0, 0))


@given(masks(), *[st.integers(-3, 23)] * 4)
def test_what_sticks_out_is_cut(mask: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
    shifted = Patch(mask, top, left)
    packed = run_lengths.from_patch(shifted, SIZE)
    expected = np.zeros((60, 60), bool)
    expected[20 + top : 20 + top + mask.shape[0], 20 + left : 20 + left + mask.shape[1]] = mask
    assert np.array_equal(run_lengths.to_mask(packed), expected[20 : 20 + SIZE[0], 20 : 20 + SIZE[1]])
    limits = np.zeros((60, 60), bool)
    limits[20 + top : max(20 + top, 20 + bottom), 20 + left : max(20 + left, 20 + right)] = True
    inner = shifted.cut(top, bottom, left, right)
    assert inner.pixels.sum() == (expected & limits).sum()


@given(masks(), st.integers(1, 40), st.integers(1, 40))
def test_scaled_as_the_whole_mask_would_be(mask: np.ndarray, height: int, width: int) -> None:
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    part = run_lengths.patch(run_lengths.from_mask(mask)).resized(mask.shape, (height, width))
    assert np.array_equal(whole(part, (height, width)), mask[rows[:, None], columns])


def test_overlaps() -> None:
    one, other = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    one[:4, :4] = other[2:4, :8] = True
    packed = [run_lengths.from_mask(mask) for mask in (one, other)]
    found = run_lengths.overlaps(packed, packed, np.zeros(2, bool))
    np.testing.assert_allclose(found, [[1, 8 / 24], [8 / 24, 1]])
    np.testing.assert_allclose(run_lengths.overlaps(packed[:1], packed, np.array([False, True])), [[1, 8 / 16]])
    assert run_lengths.overlaps([], packed, np.zeros(2, bool)).shape == (0, 2)


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
