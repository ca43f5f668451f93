from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core.alpha import premultiplied, straight
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import covering
from saccade.core.prepare import prepare, read

SIDES = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 3, 8, 11, 17, 224, 500]))
SIZES = st.tuples(SIDES, SIDES)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@given(SIZES, st.tuples(st.integers(1, 64), st.integers(1, 64)), st.sampled_from([1, 3, 4]), st.sampled_from([1, 3, 4]))
def test_any_shape_becomes_the_size_of_the_spec(source: tuple[int, int], size: tuple[int, int], have: int, want: int) -> None:
    if have == 4 > want:
        with pytest.raises(UserError, match=r"must be uint8 \[H, W, 1 or 3\]"):
            prepare(noise(*source, have), InputSpec(want, size))
        return
    out = prepare(noise(*source, have), InputSpec(want, size))
    assert out.shape == (want, *size)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous


@given(SIZES, SIZES)
def test_covering_is_the_smallest_that_covers(source: tuple[int, int], size: tuple[int, int]) -> None:
    scaled = covering(source, size)
    scale = max(size[0] / source[0], size[1] / source[1])
    assert scaled[0] >= size[0]
    assert scaled[1] >= size[1]
    assert scaled[0] == size[0] or scaled[1] == size[1]
    assert all(-1e-9 <= source[axis] * scale - scaled[axis] < 1 for axis in (0, 1))


@given(SIZES, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 255))
def test_a_flat_image_stays_flat(source: tuple[int, int], size: tuple[int, int], value: int) -> None:
    assert (prepare(np.full((*source, 3), value, np.uint8), InputSpec(3, size)) == value).all()


@pytest.mark.parametrize("source", [(17, 11), (11, 17), (1, 1), (5, 90), (90, 5), (64, 64), (200, 333), (3, 2)])
@pytest.mark.parametrize("size", [(8, 8), (24, 10), (10, 24), (64, 64)])
def test_equals_scaling_whole_and_cutting_the_middle(source: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = noise(*source)
    scale = max(size[0] / source[0], size[1] / source[1])
    scaled = [max(side, int(np.floor(have * scale + 1e-9))) for have, side in zip(source, size, strict=True)]
    whole = np.asarray(Image.fromarray(pixels).resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR))
    top, left = (round((have - want) / 2) for have, want in zip(scaled, size, strict=True))
    expected = whole[top : top + size[0], left : left + size[1]].transpose(2, 0, 1)
    difference = np.abs(prepare(pixels, InputSpec(3, size)).astype(int) - expected)
    assert difference.max() <= 1


@pytest.mark.parametrize("source", [(375, 500), (500, 375), (400, 711), (17, 11), (333, 334), (90, 240)])
@pytest.mark.parametrize("side", [8, 11, 64, 224])
def test_equals_torchvisions_preset_to_the_bit(source: tuple[int, int], side: int) -> None:
    from torchvision.transforms import functional

    image = Image.fromarray(noise(*source))
    expected = functional.center_crop(functional.resize(image, side), [side, side])
    if min(source) >= side:  # of what is enlarged only the window that is kept is made, within a level of this
        np.testing.assert_array_equal(prepare(np.asarray(image), InputSpec(3, (side, side))), np.asarray(expected).transpose(2, 0, 1))


def test_the_right_size_is_passed_through_and_the_middle_cut_in_whole_pixels() -> None:
    pixels = noise(17, 11)
    np.testing.assert_array_equal(prepare(pixels, InputSpec(3, (17, 11))), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(prepare(pixels, InputSpec(3, (11, 11))), pixels[3:14].transpose(2, 0, 1))
    np.testing.assert_array_equal(prepare(pixels, InputSpec(3, (17, 8))), pixels[:, 2:10].transpose(2, 0, 1))


def test_channels() -> None:
    pixels = noise(17, 11)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(prepare(pixels, InputSpec(1, (17, 11)))[0], grey)
    np.testing.assert_array_equal(prepare(grey[:, :, None], InputSpec(3, (17, 11))), np.stack([grey] * 3))
    np.testing.assert_array_equal(prepare(pixels[:, ::-1], InputSpec(3, (17, 11))), pixels[:, ::-1].transpose(2, 0, 1))


@given(SIZES, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_premultiplied_channels_are_resampled_each_by_itself(source: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = premultiplied(noise(*source, 4))
    out = prepare(pixels, InputSpec(4, size))
    for channel in range(4):
        np.testing.assert_array_equal(out[channel], prepare(pixels[:, :, channel : channel + 1], InputSpec(1, size))[0])
    assert (out[:3] <= out[3]).all()  # what is premultiplied stays so


def test_the_colour_of_what_is_not_seen_counts_for_nothing() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 100, 50, 255)
    pixels[:, 4:, :3] = noise(8, 4)
    planes = prepare(premultiplied(pixels), InputSpec(4, (4, 4)))
    other = premultiplied(np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8))
    np.testing.assert_array_equal(planes, prepare(other, InputSpec(4, (4, 4))))
    out = straight(planes.transpose(1, 2, 0))
    half = (out[..., 3] > 20) & (out[..., 3] < 235)
    assert half.any() and (out[..., 3] == 0).any() and (np.abs(out[half][:, :3] - [200.0, 100, 50]) <= 6).all()


def test_others_become_opaque(tmp_path: Path) -> None:
    for have in (1, 3):
        out = prepare(noise(17, 11, have), InputSpec(4, (8, 8)))
        np.testing.assert_array_equal(out[:3], prepare(noise(17, 11, have), InputSpec(3, (8, 8))))
        assert (out[3] == 255).all() and out.flags.c_contiguous
    path = tmp_path / "a.png"
    Image.fromarray(noise(17, 11, 4)).save(path)
    picture = read(path, InputSpec(4, (17, 11)))
    np.testing.assert_array_equal(picture.pixels, premultiplied(noise(17, 11, 4)).transpose(2, 0, 1))
    assert read(path, InputSpec(3, (17, 11))).notes == ("transparent pixels laid over white",) and picture.notes == ()


@pytest.mark.parametrize("shape", [(1, 60000), (60000, 1)])
def test_extreme_aspects_make_no_enormous_intermediate(shape: tuple[int, int]) -> None:
    started = time.perf_counter()
    out = prepare(noise(*shape), InputSpec(3, (512, 512)))  # scaled whole it would be 512 x 30,720,000
    assert out.shape == (3, 512, 512)
    assert time.perf_counter() - started < 1


def test_what_is_not_supported_is_said() -> None:
    with pytest.raises(UserError, match="not by 'stretch'"):
        prepare(noise(4, 4), InputSpec(3, (4, 4), "stretch"))
    with pytest.raises(UserError, match=r"must be uint8 \[H, W, 2\] and not empty"):
        prepare(noise(4, 4), InputSpec(2, (4, 4)))
    with pytest.raises(UserError, match=r"must be uint8 \[H, W, 1, 3 or 4\]"):
        prepare(noise(4, 4, 2), InputSpec(4, (4, 4)))
    for bad in (noise(4, 4)[:, :, 0], noise(4, 4, 2), noise(4, 4).astype(np.float32), noise(0, 4)):
        with pytest.raises(UserError, match="pixels must be uint8"):
            prepare(bad, InputSpec(3, (4, 4)))
