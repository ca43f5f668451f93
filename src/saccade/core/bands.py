"""Images of bands: what satellites, microscopes and scanners see beside or in place of grey and colours, as TIFF holds it.

- A TIFF holds bands where it has more channels than grey or RGB with alpha, or such of which it does not say that they are alpha; one of
  several grey pages may be read as bands too, a page each, where as many are asked for.
- 8 bit values stay as they are. Of 16 bit ones, 0..65535, the root is taken, 0..255, and what follows the point is left out: most sensors
  fill the lower part of their range only, and the steps grow with the value as its noise does (Bernstein et al. 2010, "Noise and bias in
  square-root compression schemes"). Floats must lie in 0..1 or, where the largest exceeds 2, in 0..255.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from saccade.core import encoding, modes, tiff
from saccade.core.errors import UserError
from saccade.core.pillow import Decoding

Pixels = NDArray[np.uint8]
MOST = 1024
_KINDS: dict[tuple[int, int], type[np.generic]] = {
    (1, 8): np.uint8,
    (1, 16): np.uint16,
    (2, 16): np.int16,
    (3, 32): np.float32,
}  # kind and bits of a sample
_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions of bytes, whatever these mean
_RAW, _DEFLATE = 1, (8, 32946)
_PREDICTED = (5, 8, 32946, 34925, 50000)  # those that may hold differences
_SHARED, _APART = 1, 2  # whether the bands stand together at each pixel, or one after the other
_DIFFERENCES = 2  # of a value and the one before it, of the same band
_GREY, _COLOURS = (0, 1), 2
SHOWN = (2.0, 98.0)  # percentiles of a band that are black and white in a picture


def count(tags: Any | None) -> int:
    """How many bands a TIFF with these tags holds; 0 where it is a picture, or no TIFF."""
    if tags is None:
        return 0
    try:
        with Decoding(""):
            samples, colours, extras = int(tags[tiff.SAMPLES]), tags[tiff.COLOURS], tags.get(tiff.EXTRAS, ())
            own = 1 if colours in _GREY else 3 if colours == _COLOURS else 0
            see_through = samples == own + 1 and (extras[:1] in ((1,), (2,)) or (own == 3 and not extras))
    except Exception:  # whatever damaged tags raise; no file of bands goes without these two
        return 0
    return samples if own and own < samples <= MOST and not see_through else 0


def read(file: IO[bytes], tags: Any, where: str, max_pixels: int) -> tuple[Pixels, str]:
    """The bands of a TIFF of which `count` is not 0, as it lies in the file, and a note: uint8 `[H, W, C]`. Raises UserError for kinds of
    values that are not read, and, beside it, anything for a damaged one."""
    layout = _Layout.of(tags, where)
    check((layout.height, layout.width, layout.bands), where, max_pixels)
    (down, across), (high, wide) = layout.grid, layout.piece
    if down * high * across * wide > 4 * max(layout.height * layout.width, min(1 << 20, most(layout.bands, max_pixels))):
        raise UserError("is damaged: it has tiles far larger than the image", where=where, fix="replace it or leave it out")
    found = np.empty((layout.height, layout.width, layout.bands), layout.dtype)
    for rows, columns, channels, data in layout.pieces(file):
        found[rows, columns, channels] = layout.values(data, rows.stop - rows.start)[:, : columns.stop - columns.start]
    return eight_bit(found, where)


def of_pages(image: Image.Image, wanted: int, where: str, max_pixels: int) -> tuple[Pixels, str]:
    """The grey pages of a file as bands, upright: uint8 `[H, W, wanted]`, and a note. Raises UserError where there are others."""
    there = getattr(image, "n_frames", 1)
    pages = there if there > 1 else len(image.getbands())
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or there != wanted:
        raise unequal(pages, wanted, where)
    found: list[NDArray[Any]] = []
    for number in range(wanted):
        image.seek(number)
        check((image.height, image.width, wanted), where, max_pixels)
        page = np.asarray(image)  # which Pillow has turned
        found.append(page.astype(np.uint8) * 255 if page.dtype == np.bool_ else page)
        if found[-1].ndim != 2 or found[-1].shape != found[0].shape or image.mode == "P":
            raise UserError("must have grey pages of one size to be read as bands", where=where, fix="save them as one page of bands")
    return eight_bit(np.stack(found, axis=2), where)


def of_array(array: NDArray[Any], wanted: int, where: str, max_pixels: int) -> tuple[Pixels, str]:
    """uint8 `[H, W]` or `[H, W, C]` -> `[H, W, wanted]`, a copy; raises UserError where it has others."""
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] != wanted:
        raise UserError(f"must have shape [H, W, {wanted}], has {list(array.shape)}", where=where, fix="one image, its bands last")
    check((array.shape[0], array.shape[1], wanted), where, max_pixels)
    return np.array(array, np.uint8, order="C"), ""


def unequal(there: int, wanted: int, where: str) -> UserError:
    """What to say of a file of other channels than asked for."""
    channels = f"{there} channel{'s' * (there != 1)}"
    fix = f"leave it out, or use a model for {channels}" if there else "leave it out"
    return UserError(f"must have {wanted} channels, has {there}", where=where, fix=fix)


def check(shape: tuple[int, int, int], where: str, max_pixels: int) -> None:
    """Raise UserError for (height, width, bands) of nothing, or of more values than `max_pixels` colours have."""
    height, width, bands = shape
    if height < 1 or width < 1:
        raise UserError(f"must have pixels, but is {width} wide and {height} high", where=where)
    limit = most(bands, max_pixels)
    if height * width > limit:
        said = f"of {bands} bands must have at most {limit:,} pixels, but has {height * width:,} (height {height}, width {width})"
        raise UserError(f"an image {said}", where=where, fix="raise max_pixels (--max-pixels) if you trust it")


def most(bands: int, max_pixels: int) -> int:
    """How many pixels an image of bands may have."""
    return max_pixels * 3 // max(bands, 3)


def eight_bit(values: NDArray[Any], where: str) -> tuple[Pixels, str]:
    """Bands of any kind of value as uint8, as said at the top, and a note. Raises UserError for values that cannot be."""
    if values.dtype == np.uint8:
        return values, ""
    if values.dtype.kind == "f":
        return modes.from_floats(values, where)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(f"bands must hold values of 0 to 65535, these lie in {low}..{high}", where=where, fix="rescale them")
    return np.sqrt(values.astype(np.float32)).astype(np.uint8), "16 bit values as their square roots, 8 bit"


def shown(pixels: Pixels) -> tuple[Pixels, str]:
    """Bands as a picture for people, as `picture` says, and that: uint8 `[H, W, 1 or 3]`."""
    first = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    low, high = np.percentile(first.reshape(-1, first.shape[2]), SHOWN, axis=0)
    scaled = np.clip((first - low) * (255 / np.maximum(high - low, 1)), 0, 255).round().astype(np.uint8)
    return scaled, picture(pixels.shape[2])


def picture(bands: int) -> str:
    """What `shown` shows."""
    return f"pictures show the first {'three' if bands > 2 else 'one'} of {bands} bands, scaled from the 2nd to the 98th percentile of each"


def encoded(pixels: Pixels) -> bytes:
    """uint8 `[H, W, C]` as a TIFF of C bands."""
    height, width, bands = pixels.shape
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2()
    short, long = 3, 4
    for tag, kind, value in (
        (tiff.WIDTH, long, width),
        (tiff.HEIGHT, long, height),
        (tiff.BITS, short, (8,) * bands),
        (tiff.COMPRESSION, short, 1),
        (tiff.COLOURS, short, 1),
        (tiff.STRIPS, long, 0),
        (tiff.SAMPLES, short, bands),
        (tiff.ROWS, long, height),
        (tiff.STRIP_BYTES, long, pixels.size),
        (tiff.PLANES, short, _SHARED),
        (tiff.EXTRAS, short, (0,) * (bands - 1)),
    ):
        tags.tagtype[tag] = kind
        tags[tag] = value
    file = io.BytesIO()
    tags.save(file)
    file.write(np.ascontiguousarray(pixels).tobytes())
    return file.getvalue()


@dataclass(frozen=True)
class _Layout:
    """Where the values stand. piece: (height, width) of a strip or tile; places: offset and length of each; apart: each holds one band."""

    tags: Any
    height: int
    width: int
    bands: int
    dtype: type[np.generic]
    piece: tuple[int, int]
    places: tuple[tuple[int, int], ...]
    apart: bool

    @classmethod
    def of(cls, tags: Any, where: str) -> Self:
        """Raises UserError for what is not read, and anything for damaged tags."""
        height, width, bands = int(tags[tiff.HEIGHT]), int(tags[tiff.WIDTH]), int(tags[tiff.SAMPLES])
        bits, kinds = set(tags[tiff.BITS]), set(tags.get(tiff.KINDS, (1,)))
        dtype = _KINDS.get((kinds.pop(), bits.pop())) if len(bits) == len(kinds) == 1 else None
        if dtype is None:
            said = "bands must hold whole numbers of 8 or 16 bit, or floats of 32 bit, all of one kind"
            raise UserError(said, where=where, fix="save it so, e.g. by gdal_translate -ot UInt16")
        apart = tags.get(tiff.PLANES, _SHARED) == _APART
        packing, predictor = tags.get(tiff.COMPRESSION, 1), tags.get(tiff.PREDICTOR, 1)
        if packing not in (tiff.ALONE if apart else _PLAIN) or predictor > _DIFFERENCES:
            raise UserError("bands compressed in this way are not read", where=where, fix="save it without compression, by LZW or deflate")
        tiled = tiff.TILE_WIDTH in tags
        offsets, lengths = (tags[tiff.TILES], tags[tiff.TILE_BYTES]) if tiled else (tags[tiff.STRIPS], tags[tiff.STRIP_BYTES])
        piece = (tags[tiff.TILE_HEIGHT], tags[tiff.TILE_WIDTH]) if tiled else (min(tags.get(tiff.ROWS, height), height), width)
        return cls(tags, height, width, bands, dtype, piece, tuple(zip(offsets, lengths, strict=True)), apart)

    @property
    def grid(self) -> tuple[int, int]:
        """How many pieces stand one below the other, and side by side."""
        down, across = (-(-side // part) for side, part in zip((self.height, self.width), self.piece, strict=True))
        return down, across

    def pieces(self, file: IO[bytes]) -> Iterator[tuple[slice, slice, slice, bytes]]:
        """Rows, columns and bands of each piece, and its data."""
        down, across = self.grid
        planes = self.bands if self.apart else 1
        if len(self.places) != planes * down * across:
            raise ValueError(f"{len(self.places)} strips or tiles where {planes * down * across} are needed")
        for number, place in enumerate(self.places):
            plane, rest = divmod(number, down * across)
            top, left = rest // across * self.piece[0], rest % across * self.piece[1]
            rows, columns = slice(top, min(top + self.piece[0], self.height)), slice(left, min(left + self.piece[1], self.width))
            if self.tags.get(tiff.COMPRESSION, _RAW) == _RAW:  # a length may be untrue, and the file as large
                place = place[0], min(place[1], math.prod(self._piece(rows.stop - rows.start)) * np.dtype(self.dtype).itemsize)
            yield rows, columns, slice(plane, plane + 1) if self.apart else slice(None), tiff.at(file, place)

    def values(self, data: bytes, rows: int) -> NDArray[Any]:
        """The first `rows` of a piece, `[rows, columns, bands of it]`."""
        held, wide, each = self._piece(rows)
        order = np.dtype(self.dtype).newbyteorder("<" if self.tags.prefix == b"II" else ">")
        unpacked = self._unpacked(data, held, wide * each * order.itemsize)
        found = np.frombuffer(unpacked, order, held * wide * each).reshape(held, wide, each)[:rows].astype(self.dtype)
        if self.tags.get(tiff.PREDICTOR, 1) == _DIFFERENCES and self.tags.get(tiff.COMPRESSION, _RAW) in _PREDICTED:
            whole = np.dtype(f"u{order.itemsize}")  # differences are of the bits, those of floats too, as libtiff takes them
            found = np.cumsum(found.view(whole), axis=1, dtype=whole).view(self.dtype)
        return found

    def _piece(self, rows: int) -> tuple[int, int, int]:
        """Rows, columns and bands that the data of a piece hold of which `rows` are of the image: a tile is always whole."""
        return self.piece[0] if tiff.TILE_WIDTH in self.tags else rows, self.piece[1], 1 if self.apart else self.bands

    def _unpacked(self, data: bytes, rows: int, row: int) -> bytes | NDArray[Any]:
        """Data of `rows` of `row` bytes each, perhaps fewer where they are cut short. Pillow sees each byte as a grey pixel."""
        packing = self.tags.get(tiff.COMPRESSION, _RAW)
        if self.tags.get(tiff.ORDER, 1) == 1 and packing == _RAW:
            return data
        if self.tags.get(tiff.ORDER, 1) == 1 and packing in _DEFLATE:
            return next(encoding.inflated([data], [rows * row]), b"")
        others = {tiff.BITS: (8,), tiff.COLOURS: 1, tiff.SAMPLES: 1, tiff.EXTRAS: None, tiff.KINDS: None, tiff.PREDICTOR: None}
        return np.asarray(tiff.decoded(self.tags, data, (rows, row), others))
