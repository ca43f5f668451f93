"""libjpeg-turbo called directly gives the pixels that Pillow gives, whatever the file; where it hesitates, Pillow decides."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from saccade.core import images, jpeg
from saccade.core.errors import UserError


def made(size: tuple[int, int], mode: str, **options: object) -> bytes:
    """A file of `size` (width, height) with strong colours."""
    draws = np.random.default_rng(size[0])
    coarse = draws.integers(0, 256, (max(1, size[1] // 5), max(1, size[0] // 5), 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def plain(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("size", [(17, 11), (1, 1), (8, 8), (64, 33), (250, 187)])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_kind_has_pillows_pixels(size: tuple[int, int], options: dict[str, object], mode: str) -> None:
    data = made(size, mode, **options)
    np.testing.assert_array_equal(images.read(data).pixels, plain(data))
    grey = images.read(data, channels=1).pixels[:, :, 0]
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(grey, np.asarray(image.convert("L")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = made((23, 14), "RGB", exif=exif.tobytes())
    picture = images.read(data)
    np.testing.assert_array_equal(picture.pixels, plain(data))
    assert picture.pixels.flags.c_contiguous and picture.pixels.flags.writeable
    assert picture.size == picture.pixels.shape[:2]


def test_other_colours_are_pillows() -> None:
    data = made((31, 20), "CMYK")
    with Image.open(io.BytesIO(data)) as image:
        assert jpeg.decode(image, io.BytesIO(data)) is None
    np.testing.assert_array_equal(images.read(data).pixels, plain(data))


def test_damage_is_judged_by_pillow() -> None:
    """The same verdict and the same pixels as without the fast way."""
    whole, draws = made((120, 90), "RGB", quality=90), random.Random(1)
    came = {"read": 0, "refused": 0}
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[draws.randrange(150, len(data))] ^= 1 << draws.randrange(8)
        try:
            with Image.open(io.BytesIO(bytes(data))) as image:
                expected: np.ndarray | None = np.asarray(image.convert("RGB"))
        except Exception:
            expected = None
        try:
            found: np.ndarray | None = images.read(bytes(data)).pixels
        except UserError:
            found = None
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_array_equal(found, expected)
        came["refused" if found is None else "read"] += 1
    assert min(came.values()) > 5


def test_the_fast_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data, loads = made((40, 30), "RGB"), []
    monkeypatch.setattr(Image.Image, "load", lambda self: loads.append(self))
    assert images.read(data).pixels.shape == (30, 40, 3) and loads == []
