"""Images by rows: the pixels and the notes of `images.read`, for every format, mode and layout; damage told; bounded memory."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from saccade.core import encoding, images, strips
from saccade.core.class_masks import Packed

HEIGHT, WIDTH = 17, 11


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of these small images at a time."""
    monkeypatch.setattr(strips, "BAND", 200)
    monkeypatch.setattr(strips, "PIECE", 64)


def smooth(*shape: int) -> np.ndarray:
    """Pixels whose rows and columns resemble each other, so that every filter of PNG occurs."""
    return np.cumsum(np.random.default_rng(0).integers(0, 20, shape), 0).astype(np.uint8)


def by_rows(data: bytes, channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """As tiles ask for them: five rows, of which two overlap."""
    with strips.opened(data, channels=channels) as rows:
        whole = np.zeros((*rows.size, channels), np.uint8)
        for top in range(0, rows.size[0], 3):
            part = rows.take(top, top + 5)
            whole[top : top + 5] = part
    return whole, rows.notes


def check(data: bytes) -> None:
    for channels in (1, 3):
        pixels, notes = by_rows(data, channels)
        expected = images.read(data, channels=channels)
        np.testing.assert_array_equal(pixels, expected.pixels)
        assert sorted(notes) == sorted(expected.notes)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(), (2,), (3,), (4,)], ids=["L", "LA", "RGB", "RGBA"])
def test_modes(shape: tuple[int, ...]) -> None:
    image = Image.fromarray(smooth(HEIGHT, WIDTH, *shape))
    for options in ({}, {"optimize": True}):
        check(saved(image, "PNG", **options))
    for packing in (None, "tiff_lzw", "tiff_deflate", "packbits", "lzma"):
        check(saved(image, "TIFF", compression=packing))
    if shape != (2,):
        check(saved(image, "BMP"))
        check(saved(image, "WEBP", lossless=True))


def test_palettes_bits_and_transparent_colours() -> None:
    grey = Image.fromarray(smooth(HEIGHT, WIDTH))
    palette = Image.fromarray(smooth(HEIGHT, WIDTH, 3)).convert("P", palette=Image.Palette.ADAPTIVE, colors=7)
    check(saved(palette, "PNG", bits=4))
    check(saved(palette, "PNG", transparency=2))
    check(saved(palette, "GIF"))
    check(saved(palette, "TIFF"))
    check(saved(grey.convert("1"), "PNG"))
    for packing in ("group3", "group4", "tiff_ccitt"):
        check(saved(grey.convert("1"), "TIFF", compression=packing))
    check(saved(grey, "PNG", transparency=int(np.asarray(grey)[3, 3])))
    deep = np.random.default_rng(0).integers(0, 1 << 16, (HEIGHT, WIDTH), dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        check(saved(Image.fromarray(deep), form))
    check(saved(Image.fromarray(deep.astype(np.float32) / 65536), "TIFF"))
    check(saved(Image.fromarray(deep.astype(np.int32) * 2), "TIFF"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_turned(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    check(saved(Image.fromarray(smooth(HEIGHT, WIDTH, 3)), form, exif=exif))


def test_several_frames() -> None:
    frame = Image.fromarray(smooth(HEIGHT, WIDTH))
    for form in ("PNG", "TIFF", "GIF"):
        check(saved(frame, form, save_all=True, append_images=[Image.fromarray(255 - smooth(HEIGHT, WIDTH))]))


def test_jpegs_within_a_tiff() -> None:
    image = Image.fromarray(smooth(40, 50, 3))
    for mode in ("RGB", "L", "CMYK"):
        check(saved(image.convert(mode), "TIFF", compression="jpeg"))


LAYOUTS = list(itertools.product((None, (16, 32)), (None, 1, 4, HEIGHT), ((None, False), ("zlib", False), ("zlib", True)), "<>"))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_layouts_of_tiff(big: bool, samples: int, kind: type[Any]) -> None:
    """Tiles and strips, packed or not, either order of bytes, by pixels and by planes, written by another library."""
    shape = (HEIGHT, WIDTH) if samples == 1 else (HEIGHT, WIDTH, samples)
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind)
    for (tile, rows, (packing, predictor), order), planes in itertools.product(LAYOUTS, (False, True)):
        if (tile and rows) or (planes and samples == 1) or (big and order == ">"):  # which Pillow does not open
            continue
        options: dict[str, Any] = {"photometric": "minisblack" if samples == 1 else "rgb"}
        options |= {"extrasamples": ["unassalpha"]} if samples == 4 else {}
        options |= {"planarconfig": "separate" if planes else "contig"} if samples > 1 else {}
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            values.transpose(2, 0, 1) if planes else values,
            tile=tile,
            rowsperstrip=rows,
            compression=packing,
            predictor=predictor,
            bigtiff=big,
            byteorder=order,
            **options,
        )
        check(file.getvalue())


def test_rows_that_are_passed_over() -> None:
    pixels = smooth(HEIGHT, WIDTH, 3)
    with strips.opened(encoding.png(pixels), channels=3) as rows:
        np.testing.assert_array_equal(rows.take(9, 12), pixels[9:12])
        np.testing.assert_array_equal(rows.take(16, 40), pixels[16:])
        np.testing.assert_array_equal(rows.take(16, 17), pixels[16:])


def flip(data: bytes) -> bytes:
    place = data.index(b"IDAT") + 40
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage", [flip, lambda data: data[:-200], lambda data: data[: data.index(b"IDAT") + 20]], ids=["bit", "end", "early"]
)
def test_damage_is_told(damage: Callable[[bytes], bytes]) -> None:
    data = damage(saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)), "PNG"))
    with strips.opened(data, channels=3) as rows, pytest.raises(strips.Unreadable, match=r"damaged|cut short"):
        rows.take(0, HEIGHT)


def test_tiles_far_larger_than_the_image_are_measured_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, smooth(20, 20, 3), photometric="rgb", tile=(64, 64))
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(strips, "_tiles", None)
    check(file.getvalue())


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_tiff_cut_short(tile: tuple[int, int] | None) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, smooth(64, 64, 3), photometric="rgb", tile=tile, rowsperstrip=None if tile else 8)
    with strips.opened(file.getvalue()[:-5000], channels=3) as rows, pytest.raises(strips.Unreadable, match="damaged or cut short"):
        rows.take(0, 64)


def test_what_is_refused(tmp_path: Path) -> None:
    data = encoding.png(smooth(HEIGHT, WIDTH))
    for source, reason in ((data[:10], "header is damaged"), (str(tmp_path / "x.png"), "no such file"), (b"text", "must be an image")):
        with pytest.raises(strips.Unreadable, match=reason), strips.opened(source, channels=3):
            pass
    with pytest.raises(strips.Unreadable, match="at most 100 pixels"), strips.opened(data, channels=3, max_pixels=100):
        pass


def test_masks_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.core.class_masks.BAND", 30)
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    packed = Packed.joined((values[top : top + 4] for top in range(0, HEIGHT, 4)), values.shape)
    np.testing.assert_array_equal(packed.values, values)
    np.testing.assert_array_equal(np.concatenate(list(packed.bands())), values)
    for step in (1, 2, 3, 5, 40):
        np.testing.assert_array_equal(packed.every(step), values[::step, ::step])
    picture = Image.open(io.BytesIO(b"".join(encoding.png_of(packed.bands(), packed.size))))
    np.testing.assert_array_equal(np.asarray(picture), values)
    with pytest.raises(ValueError, match="must have 17 rows, got 3"):
        Packed.joined([values[:3]], values.shape)


PROGRAM = """
import re, sys
from pathlib import Path
from saccade.core import strips
with strips.opened(sys.argv[1], channels=3, max_pixels=100_000_000) as rows:
    total = sum(int(rows.take(top, top + 100).sum()) for top in range(0, rows.size[0], 100))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024, total)
"""


@pytest.mark.processes
@pytest.mark.parametrize("form", ["png", "tif", "big.tif"])
def test_memory(tmp_path: Path, form: str) -> None:
    """48 million pixels of three bytes, of which a process of 60 MB holds few."""
    path, side = tmp_path / f"large.{form}", (8000, 6000)
    pixels = np.zeros((*side, 3), np.uint8)
    pixels[100:4000, 200:5000] = 7
    if form == "png":
        Image.fromarray(pixels).save(path, compress_level=1)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256) if form != "tif" else None, bigtiff=form != "tif")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    peak, total = map(int, done.stdout.split())
    assert total == 7 * 3 * 3900 * 4800
    assert peak < 120_000_000 + (32 << 20), peak


def test_thinned(tmp_path: Path) -> None:
    pixels = smooth(HEIGHT, WIDTH, 3)
    for step in (1, 2, 3, 30):
        for source in (encoding.png(pixels), pixels):
            for channels in (3, 4, 7):  # of a model of others people are shown colours
                np.testing.assert_array_equal(strips.thinned(source, step, channels=channels), pixels[::step, ::step])


def test_four_channels_are_those_of_the_image_read_whole() -> None:
    pixels = smooth(HEIGHT, WIDTH, 4)
    with strips.opened(encoding.png(pixels), channels=4) as rows:
        np.testing.assert_array_equal(rows.take(0, HEIGHT), images.read(encoding.png(pixels), channels=4).pixels)


def test_any_damage_ends_in_pixels_or_one_line() -> None:
    pixels, draws = smooth(40, 30, 3), np.random.default_rng(1)
    files = [encoding.png(pixels), encoding.png(pixels[..., 0])]
    for options in ({"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 7}, {"rowsperstrip": 40, "compression": "zlib"}):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, photometric="rgb", **options)  # type: ignore[arg-type]
        files.append(file.getvalue())
    ends = {True: 0, False: 0}
    for number in range(300):
        data = bytearray(files[number % len(files)])
        for place in draws.integers(0, min(len(data), 400 if number % 3 else len(data)), draws.integers(1, 4)):
            data[place] = draws.integers(0, 256)
        try:
            with strips.opened(bytes(data), channels=3, max_pixels=10**6) as rows:
                whole = rows.take(0, rows.size[0])
                assert whole.shape == (*rows.size, 3)
            ends[True] += 1
        except strips.Unreadable:
            ends[False] += 1
    assert min(ends.values()) > 20
