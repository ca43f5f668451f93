"""Arrays as the bytes of files: pictures as PNG, numbers as NPY and NPZ, moving pictures as WebP."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Buffer: TypeAlias = bytes | memoryview
_LATE_CHUNKS = frozenset((b"eXIf", b"tEXt", b"zTXt", b"iTXt"))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 `[H, W]` or `[H, W, 1, 3 or 4]` (straight alpha) as a PNG file."""
    data = io.BytesIO()
    _image(pixels).save(data, "PNG")
    return data.getvalue()


def png_of(bands: Iterable[NDArray[np.uint8]], size: tuple[int, int], palette: bytes = b"") -> list[bytes]:
    """An image of (height, width) as the pieces of a PNG file, grey or of the colours of `palette` (r, g, b each of 256), from rows uint8
    `[rows, W]`, from the top, which are never held all at once."""
    head = struct.pack(">IIBBBBB", size[1], size[0], 8, 3 if palette else 0, 0, 0, 0)
    colours = [(b"PLTE", palette)] if palette else []
    return list(chunked(itertools.chain([(b"IHDR", head), *colours], _packed(bands), [(b"IEND", b"")])))


def _packed(bands: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[bytes, bytes]]:
    deflate = zlib.compressobj(6)
    for band in bands:
        if part := deflate.compress(np.pad(band, ((0, 0), (1, 0))).data):  # before each row the sign of no filter
            yield b"IDAT", part
    yield b"IDAT", deflate.flush()


def chunked(chunks: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Names and bodies as the pieces of a PNG file."""
    yield b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        yield from (struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name))))


def inflated(data: Iterable[Buffer], lengths: Iterable[int]) -> Iterator[bytes]:
    """What data that come in pieces inflate to, cut into pieces of these lengths; it ends before its time where the data do."""
    packed, pieces = zlib.decompressobj(), iter(data)
    rest: Buffer = b""
    for length in lengths:
        found: list[bytes] = []
        while length:
            rest = rest or next(pieces, b"")
            if not rest or packed.eof:
                return
            part = packed.decompress(rest, length)
            rest = packed.unconsumed_tail
            found.append(part)
            length -= len(part)
        yield b"".join(found)


def moving(frames: Sequence[NDArray[np.uint8]], milliseconds: int) -> bytes:
    """Frames as a lossless animated WebP that runs for ever; `milliseconds` each."""
    data = io.BytesIO()
    first, *rest = (_image(frame).convert("RGBA" if frame.shape[-1] == 4 else "RGB") for frame in frames)
    first.save(data, "WEBP", save_all=True, append_images=rest, duration=milliseconds, loop=0, lossless=True)
    return data.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """An array of numbers as an NPY file."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays of numbers or text by name as an NPZ file."""
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return data.getvalue()


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels))


def late_metadata(file: IO[bytes]) -> bool:
    """Whether a PNG has text or EXIF after its pixels, told from the chunks' names alone."""
    before, pixels, late = file.tell(), False, False
    file.seek(8)
    while not late and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        pixels = pixels or name == b"IDAT"
        late = pixels and name in _LATE_CHUNKS
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(before)
    return late
