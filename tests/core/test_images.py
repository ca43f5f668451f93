from __future__ import annotations

import contextlib
import csv
import io
import os
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from saccade.core import images, strips
from saccade.core.alpha import over_white
from saccade.core.errors import UserError
from saccade.core.images import Header

RGB = np.random.default_rng(0).integers(0, 256, (17, 11, 3), np.uint8)
GREY = RGB[:, :, 0]
LUMINANCE = np.asarray(Image.fromarray(RGB).convert("L"))


def encoded(image: Image.Image | np.ndarray, name: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, name, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned(orientation: int, pixels: np.ndarray = RGB) -> tuple[Image.Image, Image.Exif]:
    """Pixels as a camera would store them that writes `orientation`."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse transposition of each orientation, by Pillow's number
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return (image.transpose(Image.Transpose(back[orientation])) if orientation > 1 else image), exif


def test_hard_inputs(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, wrong = shared_data / "hard-inputs", []
    with (folder / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for row in rows:
            path = folder / "files" / row["category"] / row["file"]
            try:
                picture = images.read(path)
            except UserError as error:
                good = row["pil13_load"] != "ok" and error.where == str(path) and "\n" not in str(error) and error.message
            else:
                width, height = map(int, row["pil_size"].split("x"))
                good = (
                    row["pil13_load"] == "ok" and picture.pixels.shape == (height, width, 3) and images.probe(path).size == (height, width)
                )
                good = good and (int(row["frames"]) > 1) == ("only the first frame or page was read" in picture.notes)
                good = good and images.read(path, channels=1).pixels.shape == (height, width, 1)
                four = images.read(path, channels=4)
                good = good and np.abs(over_white(four.pixels).astype(int) - picture.pixels).max() <= 1
                clear = bool((four.pixels[..., 3] < 255).any())
                good = good and images.probe(path).alpha >= clear >= ("transparent pixels laid over white" in picture.notes)
            if not good:
                wrong.append(row["file"])
    assert wrong == []
    assert len(rows) == 111
    assert [str(warning.message) for warning in caught] == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_photographs_stand_upright(shared_data: Path) -> None:
    folder = shared_data / "hard-inputs" / "files" / "exif-orientation"
    upright = images.read(folder / "hopper_orientation_1.jpg").pixels.astype(int)
    for name in [f"hopper_orientation_{n}.jpg" for n in range(2, 9)] + [f"hopper_orientation_{n}.webp" for n in (3, 6, 8)]:
        assert np.abs(images.read(folder / name).pixels - upright).mean() < 12, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_orientation(orientation: int, name: str, tmp_path: Path) -> None:
    image, exif = turned(orientation)
    path = tmp_path / "image"
    path.write_bytes(encoded(image, name, exif=exif, **({"lossless": True} if name == "WEBP" else {})))
    picture = images.read(path)
    assert images.probe(path) == Header(17, 11, grey=False, alpha=False)
    if name == "JPEG":
        assert picture.pixels.shape == RGB.shape
        return
    np.testing.assert_array_equal(picture.pixels, RGB)
    np.testing.assert_array_equal(images.read(Image.open(path)).pixels, RGB)


@pytest.mark.parametrize("orientation", [0, 6, 9, 300])
def test_orientation_after_the_pixels_of_a_png(orientation: int, tmp_path: Path) -> None:
    image, exif = turned(6)
    exif[0x0112] = orientation
    plain = encoded(image)
    path = tmp_path / "late.png"
    path.write_bytes(plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:])
    pixels = images.read(path).pixels
    np.testing.assert_array_equal(pixels, RGB if orientation == 6 else np.asarray(image))
    assert images.probe(path) == Header(*pixels.shape[:2], grey=False, alpha=False)


def test_damaged_exif_costs_the_orientation_only() -> None:
    picture = images.read(encoded(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    np.testing.assert_array_equal(picture.pixels, RGB)
    bad = png(1, 1, 8, 0, b"\0\7", chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nnot hex\n"))
    picture = images.read(bad)
    assert picture.pixels.tolist() == [[[7, 7, 7]]]
    assert picture.notes == ("damaged EXIF data passed over",)


def modes() -> dict[str, tuple[bytes, np.ndarray]]:
    """Encoded file and the RGB or grey it must become."""
    alpha = np.where(GREY[:, :, None] > 99, 255, 0).astype(np.uint8)
    over = np.where(alpha > 0, RGB, 255).astype(np.uint8)
    over_grey = np.where(alpha[:, :, 0] > 0, GREY, 255).astype(np.uint8)
    palette = Image.fromarray(GREY % 5)
    palette.putpalette(RGB.reshape(-1, 3)[:5].tobytes())
    coloured = RGB.reshape(-1, 3)[GREY % 5]
    wide = (GREY.astype(np.uint16) << 8) | 0x55
    bits = GREY > 99
    rows16 = b"".join(b"\0" + row.astype(">u2").tobytes() for row in (RGB[:2, :2].astype(np.uint16) << 8 | 0x12).reshape(2, 6))
    first = tuple(int(v) << 8 | 0x12 for v in RGB[0, 0])
    trns16 = RGB[:2, :2].copy()
    trns16[0, 0] = 255
    cmyk = Image.fromarray(RGB).convert("CMYK")
    return {
        "RGB": (encoded(RGB), RGB),
        "L": (encoded(GREY), GREY),
        "1": (encoded(Image.fromarray(bits)), np.where(bits, 255, 0).astype(np.uint8)),
        "RGBA": (encoded(np.concatenate([RGB, alpha], 2)), over),
        "LA": (encoded(np.stack([GREY, alpha[:, :, 0]], 2)), over_grey),
        "WEBP RGBA": (encoded(np.concatenate([RGB, alpha], 2), "WEBP", lossless=True, exact=True), over),
        "P": (encoded(palette), coloured),
        "P, index": (encoded(palette, transparency=3), np.where(GREY[:, :, None] % 5 == 3, 255, coloured).astype(np.uint8)),
        "P, alphas": (encoded(palette, transparency=b"\xff\x00"), np.where(GREY[:, :, None] % 5 == 1, 255, coloured).astype(np.uint8)),
        "GIF": (encoded(palette, "GIF"), coloured),
        "L, colour": (encoded(GREY, transparency=int(GREY[3, 3])), np.where(GREY[3, 3] == GREY, 255, GREY).astype(np.uint8)),
        "RGB, colour": (
            encoded(RGB, transparency=tuple(map(int, RGB[3, 3]))),
            np.where((RGB[3, 3] == RGB).all(2, keepdims=True), 255, RGB).astype(np.uint8),
        ),
        "RGB 16 bit, colour": (png(2, 2, 16, 2, rows16, chunk(b"tRNS", struct.pack(">3H", *first))), trns16),
        "I;16": (encoded(wide), GREY),
        "I;16, colour": (
            png(1, 2, 16, 0, b"\0\x12\x34\0\x12\x35", chunk(b"tRNS", b"\x12\x34")),
            np.array([[255], [0x12]], np.uint8),
        ),
        "I;16 big-endian": (encoded(Image.frombytes("I;16B", (11, 17), wide.astype(">u2").tobytes()), "TIFF"), GREY),
        "I": (encoded(wide.astype(np.int32), "TIFF"), GREY),
        "I, outside": (encoded(np.array([[-5, 1 << 20]], np.int32), "TIFF"), np.array([[0, 255]], np.uint8)),
        "F, 0..1": (encoded(GREY.astype(np.float32) / 255, "TIFF"), GREY),
        "F, 0..255": (encoded(GREY.astype(np.float32), "TIFF"), GREY),
        "CMYK": (encoded(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB"))),
        "PPM": (encoded(RGB, "PPM"), RGB),
        "BMP": (encoded(RGB, "BMP"), RGB),
    }


@pytest.mark.parametrize("mode", list(modes()))
def test_modes(mode: str, tmp_path: Path) -> None:
    data, expected = modes()[mode]
    grey = expected.ndim == 2
    pixels = images.read(data).pixels
    np.testing.assert_array_equal(pixels, np.stack([expected] * 3, 2) if grey else expected)
    one = images.read(data, channels=1).pixels
    np.testing.assert_array_equal(one[:, :, 0], expected if grey else np.asarray(Image.fromarray(expected).convert("L")))
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    path = tmp_path / "image"
    path.write_bytes(data)
    assert images.probe(path) == Header(*expected.shape[:2], grey=grey, alpha=mode in see_through())


def see_through() -> dict[str, np.ndarray]:
    """Of the modes with transparency the alpha that they must have, 0 or 255: `[H, W]`."""
    alpha = np.where(GREY > 99, 255, 0)
    return {
        "RGBA": alpha,
        "LA": alpha,
        "WEBP RGBA": alpha,
        "P, index": np.where(GREY % 5 == 3, 0, 255),
        "P, alphas": np.where(GREY % 5 == 1, 0, 255),
        "L, colour": np.where(GREY[3, 3] == GREY, 0, 255),
        "RGB, colour": np.where((RGB[3, 3] == RGB).all(2), 0, 255),
        "RGB 16 bit, colour": np.array([[0, 255], [255, 255]]),
        "I;16, colour": np.array([[0], [255]]),
    }


@pytest.mark.parametrize("mode", list(modes()))
def test_four_channels_of_any_mode(mode: str, tmp_path: Path) -> None:
    data, over = modes()[mode]
    alpha = see_through().get(mode, np.full(over.shape[:2], 255))
    picture = images.read(data, channels=4)
    colours = np.where(alpha[..., None], np.stack([over] * 3, 2) if over.ndim == 2 else over, 0)
    np.testing.assert_array_equal(picture.pixels, np.concatenate([colours, alpha[..., None]], 2))
    assert picture.pixels.dtype == np.uint8 and picture.pixels.flags.writeable and picture.pixels.flags.c_contiguous
    assert "laid over white" not in " ".join(picture.notes)
    np.testing.assert_array_equal(images.read(Image.open(io.BytesIO(data)), channels=4).pixels, picture.pixels)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_four_channels_are_premultiplied_and_stand_upright(name: str, orientation: int, tmp_path: Path) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (17, 11, 1), np.uint8)
    expected = np.concatenate([np.rint(RGB * (alpha / 255)), alpha], 2)
    lying, exif = turned(orientation)
    lying = Image.merge("RGBA", (*lying.split(), *turned(orientation, np.repeat(alpha, 3, 2))[0].split()[:1]))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    data = encoded(lying, name, exif=exif, **options)
    np.testing.assert_array_equal(images.read(data, channels=4).pixels, expected)
    assert images.probe(data) == Header(17, 11, grey=False, alpha=True)


def test_four_channels_of_arrays_tensors_and_pillows_own_modes() -> None:
    rng = np.random.default_rng(2)
    colour, grey = rng.integers(0, 256, (17, 11, 4), np.uint8), rng.integers(0, 256, (17, 11, 2), np.uint8)
    expected = np.concatenate([np.rint(colour[..., :3] * (colour[..., 3:] / 255)), colour[..., 3:]], 2)
    planes = torch.from_numpy(colour.transpose(2, 0, 1).copy())
    for source in (colour, np.asfortranarray(colour), Image.fromarray(colour), planes, planes.double() / 255):
        np.testing.assert_array_equal(images.read(source, channels=4).pixels, expected)
    grey_expected = np.concatenate([*[np.rint(grey[..., :1] * (grey[..., 1:] / 255))] * 3, grey[..., 1:]], 2)
    for source in (grey, Image.fromarray(grey), torch.from_numpy(grey.transpose(2, 0, 1).copy())):
        np.testing.assert_array_equal(images.read(source, channels=4).pixels, grey_expected)
    indexed = Image.fromarray(GREY).convert("P")
    indexed.putpalette(RGB.reshape(-1, 3)[:100].tobytes() * 2)
    with_alpha = indexed.convert("PA")
    with_alpha.putalpha(Image.fromarray(colour[..., 3]))
    assert with_alpha.mode == "PA"
    found = images.read(with_alpha, channels=4).pixels
    np.testing.assert_array_equal(found[..., :3], np.rint(np.asarray(indexed.convert("RGB")) * (colour[..., 3:] / 255)))
    np.testing.assert_array_equal(found[..., 3], colour[..., 3])
    # Premultiplied already: nothing is lost on a way there and back.
    for image in (Image.fromarray(colour).convert("RGBa"), Image.fromarray(grey).convert("La")):
        own = np.frombuffer(image.tobytes(), np.uint8).reshape(17, 11, -1)
        np.testing.assert_array_equal(images.read(image, channels=4).pixels, own if own.shape[2] == 4 else own[..., [0, 0, 0, 1]])


def test_four_channels_of_small_and_unseen_images() -> None:
    assert images.read(encoded(np.array([[[200, 100, 50, 128]]], np.uint8)), channels=4).pixels.tolist() == [[[100, 50, 25, 128]]]
    assert images.read(encoded(np.array([[[9, 9, 9, 0]]], np.uint8)), channels=4).pixels.tolist() == [[[0, 0, 0, 0]]]
    one_bit = png(8, 1, 1, 0, b"\0\xf0", chunk(b"tRNS", b"\0\1"))
    assert images.read(one_bit, channels=4).pixels[0, :, 3].tolist() == [0] * 4 + [255] * 4
    wide = png(1, 1, 16, 4, b"\0\xff\xff\x80\x00")  # grey and alpha of 16 bit
    assert images.read(wide, channels=4).pixels.tolist() == [[[128, 128, 128, 128]]]
    assert images.probe(one_bit).alpha and images.probe(wide).alpha


def test_four_channels_of_a_jpeg_are_opaque() -> None:
    for image, covering in ((RGB, None), (GREY, None), (np.tile(RGB, (20, 20, 1)), (17, 11)), (Image.fromarray(RGB).convert("CMYK"), None)):
        data = encoded(image, "JPEG")
        picture, three = (images.read(data, channels=c, covering=covering) for c in (4, 3))
        np.testing.assert_array_equal(picture.pixels[..., :3], three.pixels)
        assert (picture.pixels[..., 3] == 255).all() and picture.size == three.size and not images.probe(data).alpha


def test_half_transparent_over_white_and_notes() -> None:
    picture = images.read(encoded(np.array([[[0, 0, 0, 128]]], np.uint8)))
    assert picture.pixels.tolist() == [[[127, 127, 127]]]
    assert picture.notes == ("transparent pixels laid over white",)
    assert images.read(encoded(np.full((2, 2, 4), 255, np.uint8))).notes == ()
    assert images.read(modes()["I;16"][0]).notes == ("16 bit values scaled to 8 bit",)


def test_lab() -> None:
    rgb = Image.new("RGB", (3, 2), (200, 30, 60))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    pixels = images.read(encoded(ImageCms.applyTransform(rgb, transform), "TIFF")).pixels
    assert np.abs(pixels.astype(int) - np.asarray(rgb)).max() <= 4


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame(name: str) -> None:
    frames = [Image.new("RGB", (11, 17), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)
    picture = images.read(data)
    assert (picture.pixels == [255, 0, 0]).all()
    assert picture.notes == ("only the first frame or page was read",)
    chosen = Image.open(io.BytesIO(data))
    chosen.seek(1)
    assert (images.read(chosen).pixels == [0, 0, 255]).all()
    assert images.read(chosen).notes == ()


def test_sources_agree(tmp_path: Path) -> None:
    path = tmp_path / "größe 1.png"
    path.write_bytes(encoded(RGB))
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    data = path.read_bytes()
    unit = torch.from_numpy(planes).float() / 255
    sources = [
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        Image.fromarray(RGB),
        Image.open(path),
        RGB,
        torch.from_numpy(planes),
    ]
    sources += [
        unit,
        unit.double(),
        unit.clone().requires_grad_(),
        np.asfortranarray(RGB),
        np.concatenate([RGB, np.full_like(RGB[:, :, :1], 255)], 2),
    ]
    for source in sources:
        np.testing.assert_array_equal(images.read(source).pixels, RGB)
        np.testing.assert_array_equal(images.read(source, channels=1).pixels[:, :, 0], LUMINANCE)
    for source in (GREY, GREY[:, :, None], torch.from_numpy(GREY.copy()), torch.from_numpy(GREY.copy())[None], Image.fromarray(GREY)):
        np.testing.assert_array_equal(images.read(source).pixels, np.stack([GREY] * 3, 2))
        np.testing.assert_array_equal(images.read(source, channels=1).pixels, GREY[:, :, None])
    assert images.read(unit.bfloat16()).pixels.shape == (17, 11, 3)
    assert [images.read(s).source for s in (path, data, RGB, unit, Image.fromarray(RGB))] == [
        str(path),
        "bytes",
        "array",
        "tensor",
        "PIL image",
    ]
    mine = RGB.copy()
    images.read(mine).pixels[:] = 0
    np.testing.assert_array_equal(mine, RGB)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (RGB.astype(np.float32), "must be uint8, this is float32"),
        (RGB.astype(np.int64), "must be uint8, this is int64"),
        (RGB.transpose(2, 0, 1), r"must have shape \[H, W\] or \[H, W, C\] with 1 to 4 channels, has \[3, 17, 11\]"),
        (RGB[None], r"has \[1, 17, 11, 3\]"),
        (RGB[:0], "is 11 wide and 0 high"),
        (torch.zeros(17, 11, 3), r"\[C, H, W\] with 1 to 4 channels, has \[17, 11, 3\]"),
        (torch.zeros(3, 0, 11), "0 high"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8 or float in 0..1, this is int64"),
        (torch.full((3, 4, 4), 200.0), r"must lie in 0..1, these lie in 200..200"),
        (torch.full((3, 4, 4), float("nan")), "must lie in 0..1"),
        (torch.full((3, 4, 4), -0.1), "must lie in 0..1"),
        (17, "must be a path, bytes, a PIL image, a NumPy array or a tensor, this is int"),
        (None, "this is NoneType"),
        ([1, 2], "this is list"),
        (b"", r"is empty \(0 bytes\)"),
        (b"\xff\xd8", "must be an image"),
        (b"GIF89a", "bytes"),
        (Image.new("RGB", (0, 5)), "0 wide and 5 high"),
        (encoded(np.array([[np.nan, 0]], np.float32), "TIFF"), "must lie in 0..1"),
        (encoded(np.array([[-3.0, 900]], np.float32), "TIFF"), "must lie in 0..1"),
        ("http://example.org/a.jpg", "a URL is never opened"),
        ("HTTPS://example.org/a.jpg", "a URL is never opened"),
        ("s3://bucket/a.jpg", "a URL is never opened"),
        ("file:///etc/passwd", "a URL is never opened"),
        ("data:image/png;base64,AAAA", "a URL is never opened"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "cannot be opened: File name too long"),
        ("", "no such file"),
        ("/dev/zero", "is a device"),
    ],
)
def test_what_is_no_image_gets_one_line(source: object, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        images.read(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    good, pipe, empty = tmp_path / "a.png", tmp_path / "pipe.png", tmp_path / "empty.png"
    good.write_bytes(encoded(RGB))
    empty.touch()
    os.mkfifo(pipe)
    cases = {
        tmp_path: "is a folder",
        tmp_path / "no.png": "no such file",
        good / "b.png": "Not a directory",
        pipe: "pipe",
        empty: "0 bytes",
    }
    for path, words in cases.items():
        for function in (images.read, images.probe):
            with pytest.raises(UserError, match=words) as caught:
                function(path)
            assert caught.value.where == str(path)
    good.chmod(0)
    user = os.geteuid()
    tmp_path.chmod(0o755)
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(UserError, match="cannot be opened: Permission denied"):
            images.read(good)
    finally:
        os.seteuid(user)


def test_read_wants_1_to_1024_channels() -> None:
    for channels in (0, -1, 1025):
        with pytest.raises(UserError, match=f"1 to 1024 channels, not {channels}"):
            images.read(RGB, channels=channels)


def huge_headers() -> dict[str, bytes]:
    jpeg = encoded(RGB, "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    gif = encoded(Image.new("P", (1, 1)), "GIF")
    bmp = encoded(RGB, "BMP")
    return {
        "PNG": png(60000, 60000, 8, 2, b""),
        "PNG of 60 M": png(10000, 6000, 8, 0, b""),
        "JPEG": jpeg[:at] + struct.pack(">HH", 60000, 60000) + jpeg[at + 4 :],
        "GIF": gif[:6] + struct.pack("<HH", 60000, 60000) + gif[10:],
        "BMP": bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:],
    }


@pytest.mark.parametrize("name", list(huge_headers()))
def test_pixel_limit_from_the_header(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"pixels.*raise max_pixels \(--max-pixels\)"):
        images.read(huge_headers()[name])
    assert time.perf_counter() - started < 0.5


def test_pixel_limit_is_exact_and_holds_for_every_source(tmp_path: Path) -> None:
    for source in (encoded(RGB), RGB, Image.fromarray(RGB), torch.from_numpy(RGB.transpose(2, 0, 1).copy())):
        images.read(source, max_pixels=17 * 11)
        with pytest.raises(UserError, match=r"at most 186 pixels, but has 187 \(height 17, width 11\)"):
            images.read(source, max_pixels=17 * 11 - 1)


def test_a_limit_beyond_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UserError, match="too many pixels: its header claims 187"):
        images.read(encoded(RGB), max_pixels=100)
    assert Image.MAX_IMAGE_PIXELS == 50
    np.testing.assert_array_equal(images.read(encoded(RGB), max_pixels=187).pixels, RGB)


@pytest.mark.parametrize("name", ["TIFF", "PPM"])
def test_some_formats_are_local_only(name: str) -> None:
    data = encoded(RGB, name)
    images.read(data)
    with pytest.raises(UserError, match=r"must be an image \(JPEG, PNG, WEBP, BMP, GIF\), but"):
        images.read(data, local=False)
    np.testing.assert_array_equal(images.read(encoded(RGB), local=False).pixels, RGB)


@pytest.mark.parametrize("name", ["ICO", "TGA", "PDF", "PCX", "JPEG2000"])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="must be an image"):
        images.read(encoded(RGB, name))


def test_cut_short_at_every_length() -> None:
    for name in ("PNG", "JPEG"):
        data = encoded(RGB, name)
        for length in range(len(data) - (20 if name == "PNG" else 40)):
            with pytest.raises(UserError):
                images.read(data[:length])


SEEDS = [encoded(RGB, name, **({"exif": turned(6)[1]} if name != "GIF" else {})) for name in ("PNG", "JPEG", "WEBP", "TIFF", "GIF")]
SEEDS += [modes()[name][0] for name in ("RGBA", "P, alphas", "I;16", "BMP", "PPM")]


@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), st.sampled_from([3, 4])
)
def test_mutants_decode_or_get_a_user_error(seed: bytes, edits: list[tuple[int, int]], channels: int) -> None:
    data = bytearray(seed)
    for place, value in edits:
        data[place % min(len(data), 400)] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(UserError):
            pixels = images.read(data, channels=channels, max_pixels=10**6).pixels
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
    assert caught == []


def test_threads_and_the_users_own_warnings(shared_data: Path) -> None:
    folder = shared_data / "hard-inputs" / "files"
    noisy = [
        folder / "damaged" / "crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif",
        folder / "animated" / "syntax_num_frames_invalid.png",
    ]
    stop = threading.Event()

    def work(path: Path) -> int:
        count = 0
        while not stop.is_set():
            with contextlib.suppress(UserError):
                images.read(path)
            count += 1
        return count

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(work, path) for path in noisy * 2]
            for n in range(200):
                warnings.warn(f"mine {n}", stacklevel=1)
                time.sleep(0.001)
            stop.set()
        assert all(job.result() > 0 for job in jobs)
    assert [str(w.message) for w in caught] == [f"mine {n}" for n in range(200)]


def test_suffixes_are_of_formats_that_are_read() -> None:
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in images.SUFFIXES} <= set(images.LOCAL)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("order", ["contig", "separate"])
def test_other_channels_are_refused_by_their_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], count: int, depth: type, order: str
) -> None:
    """Or what is passed over of them is said; large files are read by rows in another place, and say the same."""
    pixels, file = np.full((11, 17, count), 7, depth), tmp_path / "a.tif"
    tifffile.imwrite(
        file, pixels if order == "contig" else pixels.transpose(2, 0, 1), photometric="minisblack", planarconfig=order, bigtiff=count == 5
    )
    if (count, depth, order) == (2, np.uint8, "contig"):
        assert images.read(file).notes == ("of 2 channels only the first was read",)
        return
    if count == 3:
        assert (images.read(file).pixels == (7 if depth == np.uint8 else 2)).all(), "three bands are three channels"
    else:
        with pytest.raises(UserError, match=f"holds {count} channels, and a picture is needed.*train one .*--set channels={count}"):
            images.read(file)
        with pytest.raises(UserError, match=f"holds {count} channels"), strips.opened(str(file), channels=3) as rows:
            rows.take(0, 1)
    assert capfd.readouterr().err == ""


def test_channels_beside_colours_are_said_to_be_left_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 6), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    found = images.read(tmp_path / "a.tif")
    assert np.array_equal(found.pixels, pixels[..., :3]) and found.notes == ("of 6 channels only the first 3 were read",)
    with strips.opened(str(tmp_path / "a.tif"), channels=3) as rows:
        assert np.array_equal(rows.take(0, 11), pixels[..., :3]) and rows.notes == found.notes
    tifffile.imwrite(tmp_path / "b.tif", pixels[..., :3], photometric="rgb")
    assert images.read(tmp_path / "b.tif").notes == ()
