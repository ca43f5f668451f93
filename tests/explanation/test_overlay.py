"""The picture a person looks at."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.explanation.overlay import overlay


@pytest.mark.parametrize("shape", [(17, 11, 3), (8, 8, 1), (8, 8), (300, 200, 3), (1, 1, 3)])
def test_shape_and_enlargement(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 90, np.uint8)
    drawn = overlay(pixels, np.zeros(shape[:2], np.float32))
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    assert max(drawn.shape[:2]) >= 224
    factor = drawn.shape[0] // shape[0]
    assert drawn.shape[:2] == (shape[0] * factor, shape[1] * factor)
    assert (drawn == 90).all()  # no evidence, no colour


def test_large_images_keep_their_size() -> None:
    assert overlay(np.zeros((300, 200, 3), np.uint8), np.zeros((300, 200))).shape == (300, 200, 3)


def test_strong_places_are_coloured_and_weak_ones_are_not() -> None:
    pixels, values = np.full((224, 224, 3), 60, np.uint8), np.zeros((224, 224), np.float32)
    values[:112] = 1
    drawn = overlay(pixels, values)
    assert (drawn[112:] == 60).all()
    assert drawn[0, 0, 0] > 150  # the bright end of the colours
    values[:112] = 0.5
    middle = overlay(pixels, values)
    assert np.abs(middle[0, 0].astype(int) - 60).sum() < np.abs(drawn[0, 0].astype(int) - 60).sum()


def test_what_was_not_seen_is_dark_and_nothing_is_changed_in_place() -> None:
    pixels, values = np.full((224, 224, 3), 100, np.uint8), np.full((224, 224), np.nan, np.float32)
    drawn = overlay(pixels, values)
    assert (drawn == 40).all()
    assert (pixels == 100).all()
    assert np.isnan(values).all()


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="one size"):
        overlay(np.zeros((5, 4, 3), np.uint8), np.zeros((4, 5)))
