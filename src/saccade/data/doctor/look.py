"""One look at each image of a set: what its header says, whether it can be read, and what its pixels are known by again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.core import images, modes
from saccade.core.errors import UserError
from saccade.core.pillow import TOO_LARGE
from saccade.core.progress import Progress
from saccade.data.annotations import Annotations, Item
from saccade.data.doctor.flat import Floats, Size, of_item
from saccade.data.findings import Finding

SIDE = 32  # pixels of the picture that is hashed
BATCH = 512  # images under way at a time
CELLS = 8  # of a side of the coarse colours
MOST_BANDS = 32
_ORIENTATION = 0x0112
_KINDS = {"1": "grey", "L": "grey", "RGB": "colour", "P": "palette", "CMYK": "CMYK", "I": "16 bit", "F": "32 bit"}
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}


@dataclass(frozen=True, slots=True)
class Pixels:
    """What the pixels of an image are known by. digest: of the pixels as decoded, a JPEG at a reduced size; likeness: 64 bit;
    cells: uint8 `[CELLS, CELLS, 3]`, coarse colours, of bands `[CELLS, CELLS, C]`, C at most MOST_BANDS, which have no likeness (0);
    blank: whether it has but one colour."""

    digest: bytes
    likeness: int
    cells: NDArray[np.uint8]
    blank: bool


@dataclass(frozen=True, slots=True)
class Look:
    """findings: what is wrong with the file itself; size: (height, width), None where it cannot be read; lying: the same as a program
    sees it that passes over EXIF; kind: grey, colour, palette, ...; pixels: None where they cannot be read; bands: how many, 0 of a
    picture."""

    findings: tuple[Finding, ...]
    size: Size | None = None
    lying: Size | None = None
    kind: str = ""
    turned: bool = False
    pixels: Pixels | None = None
    bands: int = 0


def at_all(annotations: Annotations, progress: Progress, workers: int) -> Iterator[Look]:
    """A look at each image, in order."""
    items = annotations.items
    progress.start("looking at every image", len(items), "images")
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), BATCH):
            for look in pool.map(lambda item: at_one(item, annotations), items[start : start + BATCH]):
                progress.advance()
                yield look
    progress.finish()


def at_one(item: Item, annotations: Annotations) -> Look:
    """Header and pixels of one image, which is decoded no larger than need be."""
    try:
        source = annotations.tree.image(item.path)
        kind, lying, turned, wrong = _header(item, source)
        there = images.bands_of(source)
        if there:
            picture = images.read(source, channels=there)
            return Look((wrong,) if wrong else (), picture.size, lying, kind, turned, _bands_known_by(picture.pixels), there)
        picture = images.shown(source, covering=(SIDE, SIDE))
        pixels = known_by(picture.pixels, picture.size)
        if pixels.blank and picture.pixels.shape[:2] != picture.size:  # perhaps only as small as this
            pixels = known_by(images.shown(source).pixels, picture.size)
    except UserError as error:
        code = "too-large-image" if error.fix == TOO_LARGE else "unreadable-image"
        return Look((of_item(code, item, error.message),))
    return Look((wrong,) if wrong else (), picture.size, lying, kind, turned, pixels)


def _header(item: Item, source: str | os.PathLike[str] | bytes) -> tuple[str, Size, bool, Finding | None]:
    """Kind of pixels, (height, width) before EXIF, whether EXIF turns it, and a finding where the name says another format."""
    suffix = os.path.splitext(item.path)[1].lower()
    if suffix in _FORMATS["TIFF"] and (header := images.probe(source)).bands:
        return f"{header.bands} channels", header.size, False, None
    with images.opened(source) as (image, _):
        mode, form, (width, height) = image.mode, image.format or "", image.size
        see_through = modes.has_alpha(image)
        turned = form != "TIFF" and _orientation(image) > 1
    kind = "alpha" if see_through else _KINDS.get(mode.partition(";")[0], mode)
    fits = suffix in _FORMATS.get(form, (suffix,))
    wrong = None if fits else of_item("wrong-suffix", item, f"is called {suffix}, but its content is {form}")
    return kind, (height, width), turned, wrong


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF turns nothing: reading passes it over too
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def known_by(pixels: NDArray[np.uint8], size: Size) -> Pixels:
    """uint8 `[H, W, 3]` and the size of the original -> what it is known by.

    likeness: the signs of the 64 lowest frequencies of the picture as 32x32 grey (a discrete cosine transform), its brightness left out.
    """
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    colours = np.asarray(small).astype(np.float64)
    waves = _waves() @ (colours @ (0.299, 0.587, 0.114)) @ _waves().T
    bits = waves[:9, :9].reshape(-1)[_lowest()] > 0
    step = SIDE // CELLS
    cells = colours.reshape(CELLS, step, CELLS, step, 3).mean((1, 3))
    digest = blake2b(repr(size).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    likeness = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return Pixels(digest.digest(), likeness, np.rint(cells).astype(np.uint8), _of_one_colour(pixels))


def _bands_known_by(pixels: NDArray[np.uint8]) -> Pixels:
    """uint8 `[H, W, C]` -> what bands are known by. Of more than MOST_BANDS neighbours are averaged, which are alike."""
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(pixels.shape[2])]
    coarse = [np.asarray(plane.resize((CELLS, CELLS), Image.Resampling.BOX)) for plane in planes]
    parts = np.array_split(np.stack(coarse, axis=2), min(len(coarse), MOST_BANDS), axis=2)
    cells = np.rint(np.stack([part.mean(2) for part in parts], axis=2)).astype(np.uint8)
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return Pixels(digest.digest(), 0, cells, _of_one_colour(pixels))


def _of_one_colour(pixels: NDArray[np.uint8]) -> bool:
    return bool((pixels == pixels[0, 0]).all())


@lru_cache(maxsize=1)
def _waves() -> Floats:
    from scipy.fft import dct

    found: Floats = dct(np.eye(SIDE), axis=0, norm="ortho")[:9]
    return found


@lru_cache(maxsize=1)
def _lowest() -> NDArray[np.int64]:
    """Where in 9x9 coefficients the 64 lowest frequencies stand, the mean left out."""
    rows, columns = np.mgrid[:9, :9]
    return np.argsort((rows**2 + columns**2).reshape(-1), kind="stable")[1:65]
