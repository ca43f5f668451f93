"""Pictures inside the page: small copies made anew from pixels, so that no EXIF data can come along; as data: addresses."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 224  # pixels of a thumbnail's longer side
TINY = 64  # up to this longer side a picture is kept exactly and enlarged with hard pixels
WIDEST, HIGHEST = 1600, 3200  # pixels of a sheet; larger ones are reduced
ROOM = (960, 640)  # CSS pixels, width and height, that a small sheet is enlarged to at most
ENLARGED = 8  # times, at most
STRIP = 4  # from this width by height a sheet is a strip: made narrow it would be nothing to see, so it scrolls
MATRIX_SIDE = 640  # pixels of the compact confusion matrix
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)  # blue and vermilion of Okabe and Ito, apart for colour-blind eyes too


@dataclass(frozen=True)
class Thumb:
    """uri: `data:` address; width, height: in pixels; tiny: enlarge with hard pixel edges."""

    uri: str
    width: int
    height: int
    tiny: bool


@dataclass(frozen=True)
class Sheet:
    """A picture at its own pixels. uri: `data:` address; width, height: in CSS pixels, `scale` (whole) for each of the picture;
    strip: scrolls rather than becoming smaller; clear: has see-through parts."""

    uri: str
    width: int
    height: int
    scale: int
    strip: bool
    clear: bool


def data_uri(kind: str, data: bytes) -> str:
    """`data` of MIME type `kind` as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(pixels: NDArray[np.uint8], side: int = SIDE) -> Thumb:
    """A copy whose longer side is at most `side`: PNG when tiny, else JPEG.

    pixels: uint8 `[H, W, C]` with C 1 or 3, or `[H, W]`. Raises ValueError for anything else.
    """
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or 0 in pixels.shape:
        raise ValueError(f"a picture must be uint8 [H, W, 1 or 3], got {pixels.dtype} {list(pixels.shape)}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longer = max(image.size)
    if longer > side:
        image = image.resize((max(1, image.width * side // longer), max(1, image.height * side // longer)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    if longer <= TINY:
        image.save(stream, "PNG", optimize=True)
        return Thumb(data_uri("image/png", stream.getvalue()), *image.size, tiny=True)
    image.save(stream, "JPEG", quality=82, optimize=True)
    return Thumb(data_uri("image/jpeg", stream.getvalue()), *image.size, tiny=False)


def sheet(pixels: NDArray[np.uint8]) -> Sheet:
    """A picture that keeps every pixel unless it is larger than `WIDEST` or `HIGHEST`, as PNG.

    pixels: uint8 `[H, W, C]` with C 1, 3 or 4 (straight alpha), or `[H, W]`. Raises ValueError for anything else.
    """
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or 0 in pixels.shape:
        raise ValueError(f"a picture must be uint8 [H, W, 1, 3 or 4], got {pixels.dtype} {list(pixels.shape)}")
    clear = pixels.ndim == 3 and pixels.shape[2] == 4 and bool((pixels[:, :, 3] < 255).any())
    if pixels.ndim == 3 and not clear:
        pixels = pixels[:, :, :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = image.size
    if width > WIDEST or height > HIGHEST:
        share = min(WIDEST / width, HIGHEST / height)
        width, height = max(1, int(width * share)), max(1, int(height * share))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    scale = max(1, min(ENLARGED, ROOM[0] // width, ROOM[1] // height))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Sheet(data_uri("image/png", stream.getvalue()), width * scale, height * scale, scale, width >= STRIP * height, clear)


def confusion_picture(matrix: NDArray[Any]) -> Thumb:
    """A confusion matrix `[K, K]` (rows: truth) as a picture with a see-through ground; strength is the share of the row.

    More classes than pixels are summed in blocks.
    """
    from PIL import Image

    counts = np.asarray(matrix, np.float64)
    block = -(-len(counts) // MATRIX_SIDE)
    if block > 1:
        edges = np.arange(0, len(counts), block)
        counts = np.add.reduceat(np.add.reduceat(counts, edges, 0), edges, 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    colours = np.empty((*counts.shape, 4), np.uint8)
    colours[..., :3] = WRONG
    colours[np.arange(len(counts)), np.arange(len(counts)), :3] = RIGHT
    # The square root lifts rare mistakes out of the ground; what occurs at all is seen.
    colours[..., 3] = np.where(counts > 0, 40 + 215 * np.sqrt(share), 0)
    scale = max(1, MATRIX_SIDE // len(counts))
    large = colours.repeat(scale, 0).repeat(scale, 1)
    stream = io.BytesIO()
    Image.fromarray(large).save(stream, "PNG")
    return Thumb(data_uri("image/png", stream.getvalue()), large.shape[1], large.shape[0], tiny=True)
