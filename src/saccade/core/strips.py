"""Images of files by rows, from the top: what is too large to be held is never held whole. The pixels are those of `core.images`.

- PNG is inflated as it goes; its filters, which need the row above, are undone by Pillow, which is given some rows at a time as a PNG.
- Of a TIFF (BigTIFF too) the strips, or a row of tiles, are read at a time; each is decoded by Pillow as a TIFF of its own.
- Others are decoded whole, once, and converted by rows: interlaced PNG and PNG of 16 bit colour, TIFF by planes or turned, JPEG, BMP, ...
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from saccade.core import bands, encoding, images, modes, tiff
from saccade.core.errors import UserError
from saccade.core.pillow import Decoding

Pixels = NDArray[np.uint8]
Parts = Iterator[tuple[Pixels, str]]  # rows, one part after the other, and a note on each

BAND = 1 << 22  # bytes, about, that are decoded at once
PIECE = 1 << 20  # bytes that are read at once
_FLAT = {1: 0, 2: 4, 3: 2, 4: 6}  # bytes of a pixel -> the kind of PNG whose 8 bit samples are as many
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # kind of PNG -> samples of a pixel
_RAW, _DEFLATE = (1,), (8, 32946)  # compressions whose data may be cut at any row


class Unreadable(UserError):
    """A file that turned out to be damaged on the way."""


class Rows:
    """The rows of one image, read as they are asked for, from the top.

    size: (height, width); notes: what a user should know, complete when the last row has been read.
    """

    def __init__(self, parts: Parts, size: tuple[int, int], source: str, notes: tuple[str, ...] = ()) -> None:
        self.size, self.source, self.notes = size, source, notes
        self._parts = parts
        self._first = 0
        self._held: list[Pixels] = []

    def take(self, top: int, bottom: int) -> Pixels:
        """Rows top to bottom, as far as there are any: uint8 `[rows, W, C]`; `top` is never above that of the call before.

        Raises Unreadable where the file is damaged."""
        bottom = min(bottom, self.size[0])
        end = self._first + sum(map(len, self._held))
        while end < bottom:
            part = self._next()
            self._held.append(part)
            end += len(part)
            while len(self._held) > 1 and self._first + len(self._held[0]) <= top:
                self._first += len(self._held.pop(0))
        whole = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held = [whole[top - self._first :]]
        self._first = top
        return self._held[0][: bottom - top]

    def _next(self) -> Pixels:
        try:
            with Decoding(self.source):
                found = next(self._parts, None)
        except UserError as error:
            raise Unreadable(error.message, where=error.where, fix=error.fix) from None
        if found is None:
            raise Unreadable("is damaged or cut short: rows are missing", where=self.source, fix="replace it or leave it out")
        pixels, note = found
        self.notes = (*self.notes, note) if note and note not in self.notes else self.notes
        return pixels


@contextmanager
def opened(source: str | bytes, *, channels: int, max_pixels: int = images.MAX_PIXELS) -> Iterator[Rows]:
    """The rows of a file that stays open in the block, with as many channels: uint8 `[H, W, channels]`. Raises Unreadable for all
    that `images.read` refuses. Other channels than 1 or 3 are decoded whole."""
    where = "bytes" if isinstance(source, bytes) else source
    images.allow(max_pixels)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(io.BytesIO(source) if isinstance(source, bytes) else images.open_file(source))
            whole = channels not in (1, 3) or bands.count(tiff.directory(file)) == channels
            rows = None if whole else _rows(file, where, channels, max_pixels, stack)
            rows = rows or of(images.read(source, channels=channels, max_pixels=max_pixels))
        except UserError as error:
            raise Unreadable(error.message, where=error.where, fix=error.fix) from None
        yield rows


def _rows(file: IO[bytes], where: str, channels: int, max_pixels: int, stack: ExitStack) -> Rows | None:
    """None for what `images.read` reads in a way of its own."""
    with Decoding(where):
        image = stack.enter_context(images.open_image(file, where, local=True))
        images.check_pixels(image.size, where, max_pixels)
        parts = _png(image, file, where) or _tiff(image, file, where) or _whole(image, where)
    if parts is None:
        return None
    more = ["only the first frame or page was read"] if images.has_more(image) else []
    more += [missing] if (missing := modes.left_out(image)) else []
    ready = ((images.with_channels(pixels, channels), note) for pixels, note in parts)
    return Rows(ready, (image.height, image.width), where, tuple(more))


def thinned(source: images.Source, step: int, *, channels: int, max_pixels: int = images.MAX_PIXELS) -> Pixels:
    """Every `step`th pixel of every `step`th row: uint8 `[ceil(H / step), ceil(W / step), 1 or 3]`, as `images.shown`
    gives them, whose errors it raises."""
    if step == 1 or not isinstance(source, str | os.PathLike | bytes) or images.bands_of(source):
        return images.shown(source, channels=channels, max_pixels=max_pixels).pixels[::step, ::step]
    path = source if isinstance(source, bytes) else os.fsdecode(source)
    with opened(path, channels=channels if channels in (1, 3) else 3, max_pixels=max_pixels) as rows:
        return np.concatenate([rows.take(top, top + 1)[:, ::step].copy() for top in range(0, rows.size[0], step)])


def of(picture: images.Picture) -> Rows:
    """The rows of what has been read already."""
    return Rows(iter([(picture.pixels, "")]), picture.size, picture.source, picture.notes)


def _upright(image: Image.Image) -> bool:
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return (images.orientation(image)[0] if tags is None else tags.get(274, 1)) == 1


def _whole(image: Image.Image, where: str) -> Parts | None:
    """Decoded at once; None as `_rows`."""
    if image.format in ("JPEG", "MPO") or image.mode == "F" or not _upright(image):
        return None
    return _cropped(image, where)


def _cropped(image: Image.Image, where: str) -> Parts:
    """The rows of an image that Pillow decodes whole."""
    modes.load(image, where)
    rows = max(1, BAND // (4 * image.width))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        yield modes.plain(band, where, with_alpha=False)


# PNG


def _png(image: Image.Image, file: IO[bytes], where: str) -> Parts | None:
    """None for what is interlaced, turned, or of 16 bit colour."""
    if image.format != "PNG" or encoding.late_metadata(file) or not _upright(image):
        return None
    file.seek(8)
    kept: dict[bytes, bytes] = {}
    while (head := _head(file))[0] != b"IDAT":
        body = b"".join(_body(file, head, where))
        if head[0] in (b"IHDR", b"PLTE", b"tRNS"):
            kept[head[0]] = body
    width, _, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", kept[b"IHDR"])
    bits = depth * _SAMPLES[kind]
    each = max(1, bits // 8)
    if interlaced or each not in _FLAT:
        return None
    return _inflated(_data(file, head, where), kept, image.height, (each, (width * bits + 7) // 8 // each))


def _inflated(data: Iterator[bytes], kept: dict[bytes, bytes], height: int, row: tuple[int, int]) -> Parts:
    """row: bytes of a pixel, and how many such there are in a row."""
    each, across = row
    stride = 1 + each * across
    rows, above = max(1, BAND // stride), bytes(stride - 1)
    for chunk in encoding.inflated(data, [min(rows, height - top) * stride for top in range(0, height, rows)]):
        # The row above comes first, as one that is not filtered.
        flat = _as_png(struct.pack(">IIBBBBB", across, len(chunk) // stride + 1, 8, _FLAT[each], 0, 0, 0), {}, [b"\0", above, chunk])
        values = np.asarray(flat).reshape(-1, stride - 1)[1:]
        above = values[-1].tobytes()
        width, depth, kind = (struct.unpack(">IIBB", kept[b"IHDR"][:10])[place] for place in (0, 2, 3))
        header = struct.pack(">IIBBBBB", width, len(values), depth, kind, 0, 0, 0)
        plain = np.pad(values, ((0, 0), (1, 0)))  # each row with the sign of no filter
        yield modes.plain(_as_png(header, kept, [plain.tobytes()]), "PNG", with_alpha=False)


def _as_png(header: bytes, kept: dict[bytes, bytes], rows: list[bytes]) -> Image.Image:
    """A PNG of filtered rows, decoded."""
    packer = zlib.compressobj(0)
    colours = [(name, kept[name]) for name in (b"PLTE", b"tRNS") if name in kept]
    data = b"".join([*map(packer.compress, rows), packer.flush()])
    file = b"".join(encoding.chunked([(b"IHDR", header), *colours, (b"IDAT", data), (b"IEND", b"")]))
    image = Image.open(io.BytesIO(file), formats=("PNG",))
    image.load()
    return image


def _data(file: IO[bytes], head: tuple[bytes, int], where: str) -> Iterator[bytes]:
    """The bodies of the chunks that hold pixels, from the one whose head has been read."""
    while head[0] == b"IDAT":
        yield from _body(file, head, where)
        head = _head(file)


def _head(file: IO[bytes]) -> tuple[bytes, int]:
    """The next chunk's name, and how long its body is."""
    length, name = struct.unpack(">I4s", file.read(8))
    return name, length


def _body(file: IO[bytes], head: tuple[bytes, int], where: str) -> Iterator[bytes]:
    """A chunk's body in pieces; raises UserError where its sum does not hold."""
    name, length = head
    total = zlib.crc32(name)
    while length and (piece := file.read(min(length, PIECE))):
        total = zlib.crc32(piece, total)
        length -= len(piece)
        yield piece
    if length or file.read(4) != struct.pack(">I", total):
        raise UserError("is damaged or cut short: a chunk is not what its sum says", where=where, fix="replace it or leave it out")


# TIFF


def _tiff(image: Image.Image, file: IO[bytes], where: str) -> Parts | None:
    """None for one by planes, of floats, turned, of tiles of too many pixels, or packed in a way that needs the whole file."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags = image.tag_v2
    tiled = 322 in tags
    offsets, counts = (tags.get(324 if tiled else 273), tags.get(325 if tiled else 279))
    plain = tags.get(284, 1) == 1 and tags.get(259, 1) in tiff.ALONE and _upright(image) and image.mode != "F"
    if not (plain and isinstance(offsets, tuple) and isinstance(counts, tuple) and len(offsets) == len(counts)):
        return None
    shape = (tags[323], tags[322]) if tiled else (min(tags.get(278, image.height), image.height), image.width)
    most = max(images.MAX_PIXELS, image.width * image.height)
    if not all(isinstance(side, int) and side > 0 for side in shape) or shape[0] * shape[1] > most:
        return None
    down, across = -(-image.height // shape[0]), -(-image.width // shape[1])
    if len(offsets) != down * across:
        return None
    if tiled:
        return _tiles(image, file, where, shape)
    return itertools.chain.from_iterable(
        _strip(image, file, where, place, min(shape[0], image.height - number * shape[0]))
        for number, place in enumerate(zip(offsets, counts, strict=True))
    )


def _tiles(image: TiffImagePlugin.TiffImageFile, file: IO[bytes], where: str, shape: tuple[int, int]) -> Parts:
    """A row of tiles at a time."""
    height, width = image.height, image.width
    places = list(zip(image.tag_v2[324], image.tag_v2[325], strict=True))
    across = -(-width // shape[1])
    for number in range(-(-height // shape[0])):
        strip: Pixels | None = None
        said = ""
        for column, place in enumerate(places[number * across : (number + 1) * across]):
            tile, note = modes.plain(tiff.decoded(image.tag_v2, tiff.at(file, place), shape), where, with_alpha=False)
            if strip is None:
                strip = np.empty((shape[0], across * shape[1], tile.shape[2]), np.uint8)
            strip[:, column * shape[1] : (column + 1) * shape[1]] = tile
            said = said or note
        if strip is not None:
            yield strip[: height - number * shape[0], :width], said


def _strip(image: TiffImagePlugin.TiffImageFile, file: IO[bytes], where: str, place: tuple[int, int], rows: int) -> Parts:
    """A strip, in parts where it is large and its data may be cut."""
    tags, width = image.tag_v2, image.width
    packing = tags.get(259, 1)
    each = (width * sum(tags.get(258, (1,))) + 7) // 8
    most = max(1, BAND // each)
    if rows <= most or packing not in (*_RAW, *_DEFLATE) or tags.get(262) == 6 or tags.get(277, 1) != len(tags.get(258, (1,))):
        yield from _cropped(tiff.decoded(image.tag_v2, tiff.at(file, place), (rows, width)), where)
        return
    heights = [min(most, rows - top) for top in range(0, rows, most)]
    if packing in _DEFLATE:
        pieces = encoding.inflated(iter([tiff.at(file, place)]), [count * each for count in heights])
        pieces = (zlib.compress(piece, 0) for piece in pieces)
    else:
        pieces = (tiff.at(file, (place[0] + top * each, count * each)) for top, count in zip(range(0, rows, most), heights, strict=True))
    for count, piece in zip(heights, pieces, strict=False):
        yield modes.plain(tiff.decoded(image.tag_v2, piece, (count, width)), where, with_alpha=False)
