"""The geometry and the pixels of "fit": whole, unsquashed, padded, the same whatever stands beside; and boxes back to the original."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core.card import InputSpec
from saccade.core.geometry import FILL, MULTIPLE, fitting, padded, to_source
from saccade.core.prepare import prepare, read

SIDES = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 3, 11, 17, 224, 500, 4000]))
SIZES = st.tuples(SIDES, SIDES)


@given(SIZES, SIZES)
def test_fitting_is_the_largest_that_fits(source: tuple[int, int], size: tuple[int, int]) -> None:
    scaled = fitting(source, size)
    scale = min(size[0] / source[0], size[1] / source[1])
    assert scaled[0] == size[0] or scaled[1] == size[1]
    assert all(1 <= scaled[axis] <= size[axis] for axis in (0, 1))
    assert all(abs(source[axis] * scale - scaled[axis]) <= 0.5 + 1e-9 or scaled[axis] == 1 for axis in (0, 1))
    whole = padded(scaled)
    assert all(side % MULTIPLE == 0 and 0 <= side - have < MULTIPLE for side, have in zip(whole, scaled, strict=True))


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from([1, 3]))
def test_the_image_stands_whole_in_its_corner(source: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*source, channels), np.uint8)
    out = prepare(pixels, InputSpec(channels, size, "fit"))
    scaled = fitting(source, size)
    assert out.shape == (channels, *padded(scaled)) and out.dtype == np.uint8 and out.flags.c_contiguous
    shown = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out[:, : scaled[0], : scaled[1]].transpose(1, 2, 0), np.atleast_3d(np.asarray(shown)))
    assert (out[:, scaled[0] :] == FILL).all() and (out[:, :, scaled[1] :] == FILL).all()


@given(SIZES, SIZES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(source: tuple[int, int], size: tuple[int, int], shares: list[float]) -> None:
    x, y = sorted(shares[:2]), sorted(shares[2:])
    box = np.array([[x[0] * source[1], y[0] * source[0], x[1] * source[1], y[1] * source[0]]])
    scaled = fitting(source, size)
    inside = box * np.tile([scaled[1] / source[1], scaled[0] / source[0]], 2)
    np.testing.assert_allclose(to_source(inside, source, size), box, rtol=1e-5, atol=1e-3)
    beyond = to_source(np.array([[-5.0, -5, 1e6, 1e6]]), source, size)
    assert beyond.tolist() == [[0, 0, source[1], source[0]]]


def test_turned_by_exif_and_shrunk_while_decoding() -> None:
    """A photo on its side is fitted as it is seen; one decoded at half its size has the original's."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(file, "JPEG", exif=exif)
    seen = read(file.getvalue(), InputSpec(3, (64, 64), "fit"))
    assert seen.size == (60, 40)
    assert seen.pixels.shape == (3, *padded(fitting((60, 40), (64, 64))))
    large = io.BytesIO()
    Image.fromarray(np.zeros((2000, 3001, 3), np.uint8)).save(large, "JPEG")
    told = read(large.getvalue(), InputSpec(3, (128, 128), "fit"))
    assert told.size == (2000, 3001)
    assert told.pixels.shape == (3, 96, 128)


@pytest.mark.parametrize("channels", [1, 3])
def test_odd_sizes(channels: int) -> None:
    assert prepare(np.zeros((17, 11, 3), np.uint8), InputSpec(channels, (17, 11), "fit")).shape == (channels, 32, 32)
