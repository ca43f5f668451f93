"""A large JPEG decoded at 1/2, 1/4 or 1/8 of its size: enough pixels, the same picture, and all that is told of it unchanged."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from saccade.core import geometry, images, prepare
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.images import Picture
from saccade.core.jpeg import GAP

BACK = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what a camera does to a picture before it writes that orientation
MODES = ("RGB", "L", "CMYK")


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture without fine detail, other in each corner and channel."""
    small = np.random.Generator(np.random.Philox(seed)).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: NDArray[np.uint8], mode: str = "RGB", *, orientation: int = 0, kind: str = "JPEG", **options: object) -> bytes:
    image = Image.fromarray(pixels).convert(mode)
    if orientation:
        if BACK[orientation] is not None:
            image = image.transpose(Image.Transpose(BACK[orientation]))
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation  # type: ignore[index]
    file = io.BytesIO()
    image.save(file, kind, **{"quality": 92, **options})
    return file.getvalue()


def check(data: bytes | Path, covering: tuple[int, int], channels: int = 3) -> tuple[Picture, Picture]:
    """What holds for any JPEG; gives the whole picture and the reduced one."""
    whole, found = images.read(data, channels=channels), images.read(data, channels=channels, covering=covering)
    assert (found.size, found.notes, found.source) == (whole.size, whole.notes, whole.source)
    assert whole.size == whole.pixels.shape[:2], "without `covering` nothing is reduced"
    assert found.pixels.dtype == np.uint8 and found.pixels.flags.writeable and found.pixels.flags.c_contiguous
    assert found.pixels.shape[2] == channels
    if found.pixels.shape != whole.pixels.shape:
        assert factor_of(whole.size, covering) > 1, "too few pixels would have been left"
        # Turned by a quarter, the side that is rounded down is the same one.
        assert found.pixels.shape[:2] == geometry.covering(whole.size, covering)
    else:
        np.testing.assert_array_equal(found.pixels, whole.pixels)
    return whole, found


def factor_of(size: tuple[int, int], covering: tuple[int, int]) -> int:
    """By how much it can be reduced with GAP times `covering` left."""
    return max(f for f in (1, 2, 4, 8) if f == 1 or all(side >= f * GAP * need for side, need in zip(size, covering, strict=True)))


@settings(max_examples=120)
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 110), st.integers(1, 110)),
    st.sampled_from(MODES),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([1, 3]),
)
def test_any_size_mode_and_orientation(
    size: tuple[int, int], covering: tuple[int, int], mode: str, orientation: int, progressive: bool, channels: int
) -> None:
    data = jpeg(smooth(*size), mode, orientation=orientation, progressive=progressive)
    whole, found = check(data, covering, channels)
    assert whole.size == size
    expected = geometry.covering(size, covering) if factor_of(size, covering) > 1 else size
    assert found.pixels.shape[:2] == expected, "it is reduced exactly where it may be"


EDGES = [(1, 1), (1, 5000), (5000, 1), (5000, 17), (7, 8), (8, 8), (9, 8), (16, 15), (3000, 4001), (5000, 5000)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", EDGES)
def test_sizes_at_the_edges(size: tuple[int, int], mode: str) -> None:
    if mode != "RGB" and size[0] * size[1] > 1e6:
        size = (size[0] // 3, size[1] // 3)
    file = io.BytesIO()
    Image.new(mode, (size[1], size[0]), 90 if mode == "L" else (90, 10, 200, 0)[: len(mode)]).save(file, "JPEG")
    for covering in ((1, 1), (224, 224), (313, 1), (size[0], size[1]), (max(1, size[0] // 16), max(1, size[1] // 16))):
        _, found = check(file.getvalue(), covering)
        assert found.size == size
        assert int(found.pixels.max()) - int(found.pixels.min()) == np.ptp(found.pixels[0, 0]), "all of it is of one colour"


def test_exactly_as_far_as_it_may_be() -> None:
    for factor in (2, 4, 8):
        side = GAP * factor * 10
        for size, reduced in (((side, side), factor), ((side - 1, side), factor // 2), ((side, side - 1), factor // 2)):
            _, found = check(jpeg(smooth(*size)), (10, 10))
            assert found.pixels.shape[:2] == (geometry.covering(size, (10, 10)) if reduced > 1 else size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_covered_along_its_own_sides(orientation: int) -> None:
    """Wanted and stored sides change places: 400 x 90 covers 100 x 20 twice at half its size, 90 x 400 does not."""
    pixels = smooth(400, 90)
    whole, found = check(jpeg(pixels, orientation=orientation, quality=100, subsampling=0), (100, 20))
    assert found.pixels.shape == (100, 22, 3)
    assert found.size == whole.size == (400, 90)
    assert images.read(jpeg(pixels, orientation=orientation), covering=(20, 100)).pixels.shape == (400, 90, 3)
    wanted = np.asarray(Image.fromarray(pixels).resize((22, 100), Image.Resampling.BOX, box=(0, 0, 90, 400))).astype(int)
    assert np.abs(found.pixels - wanted).mean() < 3, "it does not stand upright"


def prepared(data: bytes | Path, spec: InputSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As the model gets it: from the whole picture, and by `prepare.read`."""
    whole = prepare.prepare(images.read(data, channels=spec.channels).pixels, spec)
    found = prepare.read(data, spec)
    assert found.pixels.shape == whole.shape == (spec.channels, *spec.size)
    assert found.size == images.read(data).size
    return whole, found.pixels


SIZES = [(90, 90), (50, 50), (24, 24)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), *SIZES])
def test_photographs_are_prepared_nearly_alike(photos_folder: Path, size: tuple[int, int], channels: int) -> None:
    spec, differences, reduced = InputSpec(channels, size), [], 0
    for path in sorted(photos_folder.rglob("*.jpg")):
        whole, found = prepared(path, spec)
        differences.append(np.abs(whole.astype(int) - found).mean())
        reduced += images.read(path, covering=size).pixels.shape != images.read(path).pixels.shape
    assert len(differences) == 36
    assert reduced > 30, "hardly any photo was reduced: this shows nothing"
    assert np.mean(differences) < 1, "in levels of 255"
    assert max(differences) < 3, "one photo lies elsewhere"


@pytest.mark.parametrize("size", [(533, 400), (400, 533), (415, 777)])
def test_what_is_in_the_picture_stays_in_its_place(size: tuple[int, int]) -> None:
    """Soft waves along both sides: a picture that lies half a pixel aside differs by 8 levels, one in its place by 0.3 to 0.5."""
    down, across = (np.sin(np.arange(side) / 12) * 60 for side in size)
    pixels = np.repeat((127 + down[:, None] + across[None, :]).astype(np.uint8)[:, :, None], 3, 2)
    for wanted in ((90, 90), (45, 45), (50, 50)):
        whole, found = prepared(jpeg(pixels, quality=98), InputSpec(3, wanted))
        assert np.abs(whole.astype(int) - found).mean() < 1, wanted


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_hopper_in_all_orientations_is_prepared_nearly_alike(shared_data: Path, orientation: int) -> None:
    path = shared_data / "hard-inputs" / "files" / "exif-orientation" / f"hopper_orientation_{orientation}.jpg"
    assert images.read(path, covering=(20, 20)).pixels.shape[0] < images.read(path).pixels.shape[0]
    whole, found = prepared(path, InputSpec(3, (20, 20)))
    assert np.abs(whole.astype(int) - found).mean() < 1


def test_hard_inputs_are_good_or_bad_as_without(shared_data: Path) -> None:
    folder = shared_data / "hard-inputs"
    with (folder / "manifest.tsv").open() as file:
        paths = [folder / "files" / row["category"] / row["file"] for row in csv.DictReader(file, delimiter="\t")]

    def facts(path: Path, covering: tuple[int, int] | None) -> object:
        try:
            picture = images.read(path, covering=covering)
        except UserError as error:
            return str(error)
        return picture.size, picture.notes

    for path in paths:
        assert facts(path, (8, 8)) == facts(path, None), path


def save(kind: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        Image.fromarray(smooth(330, 200)).save(file, kind, **options)
        return file.getvalue()

    return make


OTHERS = {
    "PNG": save("PNG"),
    "WEBP": save("WEBP", quality=80),
    "GIF": save("GIF"),
    "BMP": save("BMP"),
    "PPM": save("PPM"),
    "TIFF": save("TIFF"),
    "TIFF with JPEG inside": save("TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_not_touched(name: str) -> None:
    data = OTHERS[name]()
    whole, found = images.read(data), images.read(data, covering=(4, 4))
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    assert found.size == whole.size == (330, 200)


def test_pictures_and_arrays_in_memory_are_not_touched() -> None:
    pixels, data = smooth(330, 200), jpeg(smooth(330, 200))
    np.testing.assert_array_equal(images.read(pixels, covering=(4, 4)).pixels, pixels)
    with Image.open(io.BytesIO(data)) as opened:
        assert images.read(opened, covering=(4, 4)).pixels.shape == (330, 200, 3)
        assert opened.size == (200, 330), "the user's own picture keeps its size"


def test_the_limit_is_that_of_the_whole_picture(tmp_path: Path) -> None:
    data = jpeg(smooth(400, 300))
    (tmp_path / "x.jpg").write_bytes(data)
    for source in (data, tmp_path / "x.jpg"):
        assert images.read(source, covering=(10, 10), max_pixels=400 * 300).pixels.shape == (13, 10, 3)
        with pytest.raises(UserError, match=r"at most 119,999 pixels, but has 120,000 \(height 400, width 300\)"):
            images.read(source, covering=(10, 10), max_pixels=400 * 300 - 1)
    at = data.index(b"\xff\xc0") + 5
    with pytest.raises(UserError, match="pixels"):
        images.read(data[:at] + struct.pack(">HH", 60000, 60000) + data[at + 4 :], covering=(10, 10))


@pytest.mark.parametrize("orientation", [0, 1, 6])
def test_further_pictures_of_a_camera(orientation: int) -> None:
    data = jpeg(smooth(640, 480), orientation=orientation, kind="MPO", save_all=True, append_images=[Image.new("RGB", (60, 80))])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO" and image.n_frames == 2
    whole, found = check(data, (20, 20))
    assert whole.size == (640, 480)
    assert found.pixels.shape == (26, 20, 3)
    assert found.notes == ()
    wanted = np.asarray(Image.fromarray(smooth(640, 480)).resize((20, 26), Image.Resampling.BOX)).astype(int)
    assert np.abs(found.pixels - wanted).mean() < 3


def test_cut_short_is_refused_as_without() -> None:
    data = jpeg(smooth(400, 300))
    for length in range(0, len(data) - 40, len(data) // 40):
        for covering in (None, (10, 10)):
            with pytest.raises(UserError):
                images.read(data[:length], covering=covering)


def test_damaged_metadata_costs_the_orientation_only() -> None:
    data = jpeg(smooth(400, 300), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    _, found = check(data, (10, 10))
    assert found.pixels.shape == (13, 10, 3)
    assert found.size == (400, 300)
