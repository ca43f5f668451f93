"""The directory of a TIFF, and its strips and tiles, each decoded by Pillow as a TIFF of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, Any

from PIL import Image, TiffImagePlugin

from saccade.core.pillow import Decoding

WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, ORDER, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 266, 274, 277
ROWS, PLANES, PREDICTOR, EXTRAS, KINDS = 278, 284, 317, 338, 339
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
# What a strip's own TIFF must say as the whole one does: samples, compression, colours, order of bits, CCITT's options, predictor,
# tables, subsampling.
_KEPT = (BITS, COMPRESSION, COLOURS, ORDER, SAMPLES, 292, 293, PREDICTOR, 320, EXTRAS, KINDS, 347, 529, 530, 531, 532)
# Compressions whose strips and tiles stand alone: none, CCITT's, LZW, JPEG, deflate, PackBits, LZMA, Zstandard, WebP.
ALONE = (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001)


def directory(file: IO[bytes]) -> Any | None:
    """The tags of the first page; None for what is no TIFF, or damaged. The file stands where it stood."""
    before = file.tell()
    try:
        file.seek(0)
        start = file.read(8)
        if start[:2] not in (b"II", b"MM"):
            return None
        if start[2:3] == b"+" or start[3:4] == b"+":  # 43: a BigTIFF, whose header is longer
            start += file.read(8)
        with Decoding(""):
            tags: Any = TiffImagePlugin.ImageFileDirectory_v2(start)
            file.seek(tags.next)
            tags.load(file)
            return tags
    except Exception:  # whatever a hostile or damaged header raises: then it is no TIFF that we could name
        return None
    finally:
        file.seek(before)


def at(file: IO[bytes], place: tuple[int, int]) -> bytes:
    """The bytes at (offset, length), as far as there are any."""
    file.seek(place[0])
    return file.read(place[1])


def decoded(tags: Any, data: bytes, size: tuple[int, int], others: Mapping[int, Any] | None = None) -> Image.Image:
    """A strip or tile of (height, width), whose other tags are the file's, but for `others` (None: left out). Pillow, which takes bytes
    of bands for pixels, is not asked whether these are too many: whoever calls knows."""
    given = {tag: tags[tag] for tag in _KEPT if tag in tags} | dict(others or {})
    alone: Any = TiffImagePlugin.ImageFileDirectory_v2(prefix=tags.prefix)
    for tag, value in given.items():
        if value is not None:
            alone.tagtype[tag] = tags.tagtype[tag] if tag in tags else 3
            alone[tag] = value
    for tag, value in ((WIDTH, size[1]), (HEIGHT, size[0]), (STRIPS, 0), (ROWS, size[0]), (STRIP_BYTES, len(data))):
        alone.tagtype[tag] = 4
        alone[tag] = value
    file = io.BytesIO()
    alone.save(file)  # which adds its own length to where the data begin
    file.write(data)
    file.seek(0)
    made = TiffImagePlugin.TiffImageFile(file)
    made.im = Image.new(made.mode, made.size).im  # else it would count them
    made.load()
    return made
