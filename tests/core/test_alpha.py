"""Premultiplied and straight alpha: there and back, and as it looks on white."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from saccade.core.alpha import opaque, over_white, premultiplied, straight
from saccade.core.errors import UserError

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(lambda axes: (*axes, 4))
PIXELS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape))
COLOUR, ALPHA = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
EVERY = np.stack([COLOUR, COLOUR[:, ::-1], COLOUR // 2, ALPHA], 2)  # every colour at every alpha


def test_every_colour_at_every_alpha() -> None:
    found = premultiplied(EVERY)
    exact = EVERY[..., :3] * (EVERY[..., 3:] / 255)
    assert np.abs(found[..., :3] - exact).max() < 0.5 + 1e-9
    np.testing.assert_array_equal(found[..., 3], ALPHA)
    back = straight(found)
    error = np.abs(back[..., :3].astype(float) - EVERY[..., :3])
    seen = ALPHA > 0
    assert (error[seen] <= 127.5 / ALPHA[seen][:, None] + 0.5 + 1e-9).all()
    assert (back[~seen] == 0).all() and (error[ALPHA == 255] == 0).all()
    np.testing.assert_array_equal(premultiplied(back), found)


@given(PIXELS)
def test_there_and_back(pixels: np.ndarray) -> None:
    before = pixels.copy()
    found = premultiplied(pixels)
    assert found.shape == pixels.shape and found.dtype == np.uint8 and (found[..., :3] <= found[..., 3:]).all()
    back = straight(found)
    assert back.shape == pixels.shape and back.dtype == np.uint8
    np.testing.assert_array_equal(premultiplied(back), found)
    np.testing.assert_array_equal(back[..., 3], pixels[..., 3])
    white = over_white(found)
    assert white.shape == (*pixels.shape[:-1], 3) and white.dtype == np.uint8
    exact = pixels[..., :3] * (pixels[..., 3:] / 255) + (255.0 - pixels[..., 3:])
    assert not white.size or np.abs(white - exact).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(pixels, before)


@given(PIXELS)
def test_what_no_file_holds_stays_within_bounds(pixels: np.ndarray) -> None:
    """A model's colours may lie above their alpha: they count as no more than that."""
    within = np.concatenate([np.minimum(pixels[..., :3], pixels[..., 3:]), pixels[..., 3:]], -1)
    np.testing.assert_array_equal(straight(pixels), straight(within))
    np.testing.assert_array_equal(over_white(pixels), over_white(within))


def test_as_pillow_lays_it_over_white() -> None:
    image = Image.fromarray(EVERY)
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    assert np.abs(over_white(premultiplied(EVERY)).astype(int) - np.asarray(white)).max() <= 1


def test_opaque() -> None:
    assert opaque(np.array([[7]], np.uint8)).tolist() == [[7, 7, 7, 255]]
    assert opaque(np.array([1, 2, 3], np.uint8)).tolist() == [1, 2, 3, 255]


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 4), np.float32), np.zeros((), np.uint8)])
def test_what_has_no_alpha_is_refused(bad: np.ndarray) -> None:
    for function in (premultiplied, straight, over_white):
        with pytest.raises(UserError, match=r"must be uint8 \[\.\.\., 4\], are"):
            function(bad)
