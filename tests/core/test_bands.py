"""Bands of TIFF files against tifffile, of every kind of value and layout; what they become, and what is said of files that hold others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core import bands, images, tiff
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.prepare import prepare, resample

SHAPE = (17, 11)
LAYOUTS: list[dict[str, object]] = [
    {},
    {"rowsperstrip": 3},
    {"tile": (16, 16)},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"compression": "zlib", "predictor": 2, "rowsperstrip": 5},
    {"compression": "zlib", "byteorder": ">"},
    {"compression": "zlib", "tile": (16, 16), "byteorder": ">", "predictor": 2},
]


def drawn(count: int, kind: str, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    generator = np.random.default_rng(count)
    if kind == "float32":
        return generator.random((*shape, count)).astype(kind)
    return generator.integers(0, 256 if kind == "uint8" else 30000, (*shape, count)).astype(kind)


def write(place: Path | io.BytesIO, values: np.ndarray, order: str = "contig", **options: object) -> None:
    stored = values if order == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(place, stored, photometric="minisblack", planarconfig=order, **options)  # type: ignore[arg-type]


def patched(file: bytes, tags: dict[int, int]) -> bytes:
    """A little-endian TIFF with other values of some tags."""
    found = bytearray(file)
    start = int.from_bytes(found[4:8], "little")
    for number in range(int.from_bytes(found[start : start + 2], "little")):
        entry = start + 2 + 12 * number
        if (tag := int.from_bytes(found[entry : entry + 2], "little")) in tags:
            found[entry + 8 : entry + 12] = tags[tag].to_bytes(4, "little")
    return bytes(found)


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("order", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_every_layout_is_read(tmp_path: Path, kind: str, order: str, options: dict[str, object]) -> None:
    if kind == "float32":
        options = {name: value for name, value in options.items() if name != "predictor"}
    for count in (2, 3, 4, 5, 13):
        values = drawn(count, kind)
        write(tmp_path / "a.tif", values, order, **options)
        found = images.read(tmp_path / "a.tif", channels=count)
        wanted = {"uint8": values, "float32": np.rint(values * 255)}.get(kind, np.floor(np.sqrt(values.astype(np.float64))))
        assert np.array_equal(found.pixels, wanted) and found.pixels.dtype == np.uint8
        assert found.pixels.flags.writeable and found.pixels.flags.c_contiguous and found.size == SHAPE
        assert images.probe(tmp_path / "a.tif") == images.Header(*SHAPE, False, False, count)


def packed(values: np.ndarray, packing: str) -> bytes:
    """A TIFF of one strip that Pillow has packed, the bands of a row as so many grey pixels: tifffile alone cannot."""
    file = io.BytesIO()
    Image.fromarray(values.reshape(len(values), -1)).save(file, "TIFF", compression=packing)
    with Image.open(file) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        offset, length, kind = tags[273][0], tags[279][0], tags[259]
    plain = bands.encoded(values)
    return patched(plain[: len(plain) - values.size] + file.getvalue()[offset : offset + length], {259: kind, 279: length})


PACKINGS = ("tiff_lzw", "packbits", "lzma", "zstd")


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_pillow_unpacks_is_read(packing: str) -> None:
    values = drawn(3, "uint8")
    assert np.array_equal(images.read(packed(values, packing), channels=3).pixels, values)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_differences_of_floats_are_of_their_bits(byteorder: str) -> None:
    """tifffile reads such, as GDAL writes them, but writes none itself: whole numbers of 32 bit that are called floats."""
    values, file = drawn(2, "float32"), io.BytesIO()
    write(file, values.view(np.int32), compression="zlib", predictor=2, byteorder=byteorder)
    data = bytearray(file.getvalue())
    kinds = np.array([339, 3], byteorder + "u2").tobytes() + np.array([2], byteorder + "u4").tobytes()  # two shorts
    place = data.index(kinds) + 8
    data[place : place + 4] = np.array([3, 3], byteorder + "u2").tobytes()
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), values)
    assert np.array_equal(images.read(bytes(data), channels=2).pixels, np.rint(values * 255))


def test_differences_are_passed_over_where_the_compression_has_none() -> None:
    """As libtiff does."""
    values, file = drawn(5, "uint8"), io.BytesIO()
    write(file, values, compression="zlib", predictor=2)
    packed = b"".join(b"\x0a" + row.tobytes() for row in values.reshape(-1, 11))  # PackBits: 11 bytes as they are, and so on
    before = file.getvalue()
    assert np.array_equal(images.read(before, channels=5).pixels, values)
    data = patched(before, {259: 32773, 273: len(before), 279: len(packed)}) + packed
    assert np.array_equal(images.read(data, channels=5).pixels, values)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 5, 7]), st.integers(0, 99))
def test_what_is_encoded_is_read_again(height: int, width: int, count: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, count)).astype(np.uint8)
    data = bands.encoded(pixels)
    assert np.array_equal(images.read(data, channels=count).pixels, pixels)
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), pixels)


def test_an_orientation_turns_bands(tmp_path: Path) -> None:
    values = drawn(5, "uint8")
    write(tmp_path / "a.tif", values, extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(images.read(tmp_path / "a.tif", channels=5).pixels, np.rot90(values, 3))
    assert images.probe(tmp_path / "a.tif").size == SHAPE[::-1]
    write(tmp_path / "a.tif", values, extratags=[(274, 3, 1, 9, True)])  # there is no such one
    assert np.array_equal(images.read(tmp_path / "a.tif", channels=5).pixels, values)
    assert images.probe(tmp_path / "a.tif").size == SHAPE


def test_pages_are_bands_where_as_many_are_asked_for(tmp_path: Path) -> None:
    values = drawn(5, "uint16")
    tifffile.imwrite(tmp_path / "a.tif", values.transpose(2, 0, 1), photometric="minisblack")
    found = images.read(tmp_path / "a.tif", channels=5)
    assert np.array_equal(found.pixels, np.floor(np.sqrt(values)))
    with pytest.raises(UserError, match="must have 6 channels, has 5"):
        images.read(tmp_path / "a.tif", channels=6)


@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_pages_are_turned_once(tmp_path: Path, orientation: int) -> None:
    values = drawn(2, "uint8")
    pages = [Image.fromarray(values[..., band]) for band in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={274: orientation})
    upright = {3: values[::-1, ::-1], 6: np.rot90(values, 3)}.get(orientation, values)
    found = images.read(tmp_path / "a.tif", channels=2)
    assert np.array_equal(found.pixels, upright) and found.pixels.flags.c_contiguous


def test_pages_of_single_bits_are_black_and_white(tmp_path: Path) -> None:
    values = drawn(2, "uint8") > 99
    pages = [Image.fromarray(values[..., band]) for band in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = images.read(tmp_path / "a.tif", channels=2)
    assert np.array_equal(found.pixels, values * np.uint8(255)) and found.notes == ()


def test_a_page_that_claims_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    small, large = Image.new("L", (11, 17)), Image.new("L", (300, 200))
    small.save(tmp_path / "a.tif", save_all=True, append_images=[large])
    with pytest.raises(UserError, match=r"of 2 bands must have at most 1,000 pixels, but has 60,000"):
        images.read(tmp_path / "a.tif", channels=2, max_pixels=1000)


def test_colours_and_near_infrared_are_four_bands_and_alpha_is_none(tmp_path: Path) -> None:
    values = drawn(4, "uint8")
    for extra, count in (("unspecified", 4), ("unassalpha", 0), ("assocalpha", 0)):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[extra])
        assert images.probe(tmp_path / "a.tif").bands == count
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(images.read(tmp_path / "a.tif", channels=4).pixels, values)
    assert np.array_equal(images.read(tmp_path / "a.tif").pixels, values[..., :3])
    write(tmp_path / "b.tif", drawn(2, "uint8"), extrasamples=["unassalpha"])
    assert images.probe(tmp_path / "b.tif").bands == 0


@pytest.mark.parametrize(
    ("make", "channels", "words"),
    [
        (lambda place: write(place, drawn(5, "uint8")), 8, "must have 8 channels, has 5 (leave it out, or use a model for 5 channels)"),
        (lambda place: Image.new("RGB", (11, 17)).save(place, "PNG"), 5, "must have 5 channels, has 3"),
        (lambda place: Image.new("L", (11, 17)).save(place, "TIFF"), 2, "must have 2 channels, has 1 (leave it out"),
        (lambda place: write(place, drawn(5, "uint8").astype(np.float64)), 5, "whole numbers of 8 or 16 bit, or floats of 32 bit"),
        (lambda place: write(place, drawn(5, "int16") - 20000), 5, "must hold values of 0 to 65535, these lie in -"),
        (lambda place: write(place, drawn(5, "float32") * np.nan), 5, "float pixels must lie in 0..1"),
        (lambda place: place.write_bytes(patched(bands.encoded(drawn(5, "uint8")), {259: 7})), 5, "compressed in this way are not read"),
    ],
)
def test_others_are_refused_in_one_line(tmp_path: Path, make: object, channels: int, words: str) -> None:
    file = tmp_path / "a.tif"
    make(file)  # type: ignore[operator]
    with pytest.raises(UserError) as caught:
        images.read(file, channels=channels)
    assert words in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("largest", "divisor"), [(0.5, 1), (1.001, 1), (1.02, 0), (2.0, 0), (2.5, 255), (255.0, 255)])
@pytest.mark.parametrize("count", [1, 5])
def test_floats_between_two_scales_are_refused(count: int, largest: float, divisor: int) -> None:
    values, file = drawn(count, "float32") * np.float32(0.5), io.BytesIO()
    values[3, 4] = largest
    tifffile.imwrite(file, values.squeeze(), photometric="minisblack", planarconfig="contig" if count > 1 else None)
    if not divisor:
        words = rf"floats must lie in 0..1 or 0..255: the largest, {largest:.4g}, is neither \(clip or rescale them\)"
        with pytest.raises(UserError, match=words):
            images.read(file.getvalue(), channels=count)
        return
    found = images.read(file.getvalue(), channels=count)
    assert np.array_equal(found.pixels, np.rint(values * (255 / divisor)))
    assert f"float values of 0..{divisor} " in found.notes[0]


def test_damaged_files_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Cut short at any place, and with any byte changed: pixels or one line, never another exception."""
    good = io.BytesIO()
    write(good, drawn(5, "uint16"), compression="zlib", rowsperstrip=4)
    data, read = good.getvalue(), 0
    generator = np.random.default_rng(0)
    said: list[str] = []
    hurt = [data[:end] for end in range(1, len(data), 37)]
    for _ in range(120):
        wrong = bytearray(data)
        wrong[int(generator.integers(len(data) if read % 2 else 400))] = int(generator.integers(256))
        hurt.append(bytes(wrong))
    for one in hurt:
        try:
            images.read(one, channels=5)
            images.probe(one)
            read += 1
        except UserError as error:
            said.append(str(error))
    assert 0 < read < len(hurt) and not any("\n" in line for line in said)
    assert capfd.readouterr().err == ""


def test_a_header_that_claims_too_much_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", drawn(5, "uint8"))
    with pytest.raises(UserError, match=r"of 5 bands must have at most 120 pixels, but has 187"):
        images.read(tmp_path / "a.tif", channels=5, max_pixels=200)


def test_tiles_far_larger_than_the_image_are_refused() -> None:
    file = io.BytesIO()
    write(file, np.zeros((2000, 8000, 2), np.uint8), tile=(2000, 8000), compression="zlib")
    with pytest.raises(UserError, match="it has tiles far larger than the image") as caught:
        images.read(patched(file.getvalue(), {256: 1, 257: 1}), channels=2)
    assert "\n" not in str(caught.value)
    small = io.BytesIO()
    write(small, drawn(2, "uint8", (1, 1)), tile=(512, 512))
    assert np.array_equal(images.read(small.getvalue(), channels=2).pixels, drawn(2, "uint8", (1, 1)))


def test_of_data_no_more_are_read_than_a_piece_has(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(5, "uint8")
    plain, at = bands.encoded(values), tiff.at
    asked: list[int] = []

    def counted(file: IO[bytes], place: tuple[int, int]) -> bytes:
        asked.append(place[1])
        return at(file, place)

    monkeypatch.setattr(tiff, "at", counted)
    assert np.array_equal(images.read(patched(plain, {279: 1 << 30}), channels=5).pixels, values)
    assert asked == [values.size]
    with pytest.raises(UserError, match="damaged or cut short"):
        images.read(patched(plain, {279: values.size - 1}), channels=5)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_bytes_of_a_strip_are_no_pixels(monkeypatch: pytest.MonkeyPatch, compression: str | None) -> None:
    """Pillow counts 17 x 11 x 13 x 2 of them, and refuses more pixels than twice its limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    values, file = drawn(13, "uint16"), io.BytesIO()
    write(file, values, compression=compression)
    assert np.array_equal(images.read(file.getvalue(), channels=13, max_pixels=1000).pixels, np.floor(np.sqrt(values)))


@pytest.mark.parametrize("packing", PACKINGS)
def test_nor_are_they_where_pillow_unpacks_them(monkeypatch: pytest.MonkeyPatch, packing: str) -> None:
    values = drawn(26, "uint8")
    data = packed(values, packing)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert np.array_equal(images.read(data, channels=26, max_pixels=2000).pixels, values)
    with pytest.raises(UserError, match=r"of 26 bands must have at most 115 pixels"):
        images.read(data, channels=26, max_pixels=1000)


def test_arrays_and_tensors_of_bands() -> None:
    import torch

    pixels = drawn(6, "uint8")
    for one in (pixels, torch.from_numpy(pixels).permute(2, 0, 1)):
        assert np.array_equal(images.read(one, channels=6).pixels, pixels)
        assert images.bands_of(one) == 6 and images.shown(one).pixels.shape == (*SHAPE, 3)
    data = bands.encoded(pixels)
    for kind in (bytes, bytearray, memoryview):
        assert images.bands_of(kind(data)) == 6 and images.shown(kind(data)).pixels.shape == (*SHAPE, 3)
    for plain in (pixels[..., :3], torch.zeros(3, 9, 9), torch.zeros(9, 9), Image.new("L", (9, 9)), b"", 7):
        assert images.bands_of(plain) == 0  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"must have shape \[H, W, 5\], has \[17, 11, 6\]"):
        images.read(pixels, channels=5)
    with pytest.raises(UserError, match="must have 5 channels, has 3"):
        images.read(Image.new("RGB", (4, 4)), channels=5)
    with pytest.raises(UserError, match="1 to 1024 channels, not 1025"):
        images.read(pixels, channels=1025)


def test_a_server_reads_none(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", drawn(5, "uint8"))
    with pytest.raises(UserError, match=r"must be an image \(JPEG, PNG, WEBP, BMP, GIF\)"):
        images.read((tmp_path / "a.tif").read_bytes(), channels=5, local=False)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_people_see_the_first_bands_scaled(tmp_path: Path, count: int) -> None:
    values = np.broadcast_to(np.linspace(20, 60, 17 * 11).reshape(*SHAPE, 1), (*SHAPE, count)).astype(np.uint8)
    write(tmp_path / "a.tif", values)
    found = images.shown(tmp_path / "a.tif", channels=count)
    assert found.pixels.shape == (*SHAPE, 3) and found.pixels.min() == 0 and found.pixels.max() == 255
    assert f"the first {'three' if count > 2 else 'one'} of {count} bands" in found.notes[0]
    plain = drawn(3, "uint8")
    assert np.array_equal(images.shown(plain, channels=4).pixels, plain) and images.shown(plain).notes == ()


@pytest.mark.parametrize("resize", ["crop", "fit", "native"])
@pytest.mark.parametrize("count", [2, 5])
def test_bands_are_prepared_each_by_itself(count: int, resize: str) -> None:
    pixels = drawn(count, "uint8", (37, 23))
    ready = prepare(pixels, InputSpec(count, (17, 11), resize))
    for band in range(count):
        assert np.array_equal(ready[band : band + 1], prepare(pixels[..., band : band + 1], InputSpec(1, (17, 11), resize)))
    assert resample(pixels, (5, 7)).shape == (5, 7, count)
    with pytest.raises(UserError, match=rf"must be uint8 \[H, W, {count}\] and not empty, are uint8 \[37, 23, 3\]"):
        prepare(drawn(3, "uint8", (37, 23)), InputSpec(count, (17, 11), resize))
