"""Safe decoding: whatever a user has (path, bytes, PIL image, array, tensor) becomes uint8 grey, RGB or RGBA pixels, or one clear line.

What a file's pixels become:

- the pixel limit is checked on the header, before anything is decoded;
- EXIF orientation is applied (damaged EXIF is passed over, and said so); of an animation the first frame is read (said so);
- palettes, CMYK, YCbCr and LAB are converted to RGB; for one or three channels alpha and transparent colours are laid over white;
- 16 bit grey keeps the upper 8 bits of each value, as Pillow does for 16 bit RGB; 32 bit integers are clipped to 0..65535 first;
- floats must lie in 0..1 or, where the largest exceeds 2, in 0..255; a largest in between is refused;
- one channel is ITU-R 601 luminance (Pillow's "L"), three channels of a grey image are three copies;
- four channels are red, green and blue, premultiplied by alpha, and alpha, which is 255 where an image has no transparency (`core.alpha`);
- any other number of channels is a TIFF's bands as they stand, and so are 3 and 4 of a TIFF that holds as many bands (`core.bands`).
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from saccade.core import alpha, bands, encoding, jpeg, modes, tiff
from saccade.core.errors import UserError
from saccade.core.pillow import TOO_LARGE, Decoding, silence_libtiff

MAX_PIXELS = 50_000_000
PICTURES = (1, 3, 4)  # channels that mean grey, RGB, RGB and alpha
LARGEST = 1 << 40  # where the header alone is read
ANYWHERE = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
LOCAL = (*ANYWHERE, "TIFF", "PPM")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)

_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_METADATA = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
_TURN: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # EXIF orientation -> what sets the pixels upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


class TensorLike(Protocol):
    """What of a torch tensor is needed here; torch itself is never imported."""

    def detach(self) -> Any: ...
    def cpu(self) -> Any: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | TensorLike


@dataclass(frozen=True, slots=True)
class Picture:
    """pixels: uint8 `[H, W, C]`, contiguous and writable; source: its path or kind; notes: what a user should know.

    size: (height, width) of the original, after EXIF orientation; larger than the pixels' where a JPEG was decoded at a reduced size.
    """

    pixels: NDArray[np.uint8]
    source: str
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def read(
    source: Source, *, channels: int = 3, max_pixels: int = MAX_PIXELS, local: bool = True, covering: tuple[int, int] | None = None
) -> Picture:
    """Decode one image to uint8 `[H, W, channels]`.

    source: a path, an encoded file's bytes, a PIL image (the frame it stands at), an array uint8 `[H, W]` or `[H, W, C]`, or a tensor
    `[H, W]` or `[C, H, W]`, uint8 or float in 0..1; alpha of arrays and tensors is straight, as in files. `local` also admits TIFF and
    PPM, which a server does not.
    channels: 1, grey, or 3, RGB, both over white where the image is transparent; 4, RGB premultiplied by alpha, and alpha; others, up to
    1024: that many bands of a TIFF, or of an array or tensor.
    covering: (height, width) that is all the caller needs. A JPEG of more than twice that is decoded at 1/2, 1/4 or 1/8 of its size,
    which spares most of the time, and comes scaled so that it just covers it (see `core.geometry`).
    Raises UserError, and nothing else, for whatever is wrong with the source. Safe to call from several threads.
    """
    if not 1 <= channels <= bands.MOST:
        raise UserError(f"images are read with 1 to {bands.MOST} channels, not {channels}")
    if isinstance(source, (str, os.PathLike)):
        with open_file(source) as file:
            return _read_file(file, os.fsdecode(source), channels, max_pixels, local, covering)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise UserError("must be an image file, but is empty (0 bytes)", where="bytes")
        return _read_file(io.BytesIO(source), "bytes", channels, max_pixels, local, covering)
    if isinstance(source, Image.Image):
        where = os.fsdecode(getattr(source, "filename", "") or "PIL image")
        if channels not in PICTURES:
            raise bands.unequal(len(source.getbands()), channels, where)
        with Decoding(where):
            pixels, notes = _decode(source, where, channels, max_pixels)
        return Picture(pixels, where, _size(pixels), notes)
    return _read_array(source, channels, max_pixels)


def shown(source: Source, *, channels: int = 3, max_pixels: int = MAX_PIXELS, covering: tuple[int, int] | None = None) -> Picture:
    """As `read` for people to look at: uint8 `[H, W, 3]`, or `[H, W, 1]` for one channel; of bands as `bands.shown` says.
    channels: those of the model that is asked, of which pictures have no more than 3."""
    there = bands_of(source)
    if not there:
        channels = channels if channels in (1, 3) else 3
        return read(source, channels=channels, max_pixels=max_pixels, covering=covering)
    picture = read(source, channels=there, max_pixels=max_pixels)
    pixels, note = bands.shown(picture.pixels)
    return replace(picture, pixels=with_channels(pixels, 3), notes=(*picture.notes, note))


def bands_of(source: Source) -> int:
    """How many bands a file holds that is no picture, or an array or tensor of more than 4 channels; 0 for all else, and what is
    damaged."""
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if not isinstance(source, str | os.PathLike | bytes):
        shape = getattr(source, "shape", ())
        channels = int(shape[2 if isinstance(source, np.ndarray) else 0]) if len(shape) == 3 else 0
        return channels if channels > 4 else 0
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
            return bands.count(tiff.directory(file))
    except UserError:
        return 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header tells: height and width after EXIF orientation, whether it is grey, whether it has alpha, how many bands it
    holds, 0 where it is a picture.

    Grey means the file's mode: an RGB file of equal channels is not grey, a palette of nothing but greys is. Alpha means that there is an
    alpha channel or a transparent colour; only the pixels tell whether any of them is transparent.
    """

    height: int
    width: int
    grey: bool
    alpha: bool
    bands: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def probe(source: str | os.PathLike[str] | bytes) -> Header:
    """From the header alone; raises UserError as `read` does."""
    if found := _probe_bands(source):
        return found
    with opened(source) as (image, file):
        grey, see_through = modes.is_grey(image), modes.has_alpha(image)
        width, height = image.size
        if width != height and image.format == "PNG" and not _METADATA.intersection(image.info) and encoding.late_metadata(file):
            check_pixels(image.size, str(source)[:500], MAX_PIXELS)
            image.load()  # rare: what says the orientation stands after the pixels
        if image.format != "TIFF" and orientation(image)[0] >= 5:
            width, height = height, width
        return Header(height, width, grey, see_through)


def _probe_bands(source: str | os.PathLike[str] | bytes) -> Header | None:
    """Of a TIFF that holds bands; None for all else."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
        tags = tiff.directory(file)
    there = bands.count(tags)
    if tags is None or not there:
        return None
    with Decoding("bytes" if isinstance(source, bytes) else os.fsdecode(source)):
        sides = int(tags[tiff.HEIGHT]), int(tags[tiff.WIDTH])
        height, width = sides[::-1] if tags.get(tiff.ORIENTATION, 1) in (5, 6, 7, 8) else sides
        return Header(height, width, False, False, there)


# Opening


@contextmanager
def opened(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """A file or its bytes as Pillow sees them, not decoded, and the open file; UserError for what goes wrong in the block."""
    allow(max_pixels)
    where = "bytes" if isinstance(source, bytes) else os.fsdecode(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else open_file(source)
    with file, Decoding(where), open_image(file, where, local=True) as image:
        yield image, file


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """A regular file that holds something; raises UserError for all else."""
    if isinstance(path, str) and _ADDRESS.match(path):
        raise UserError("must be a file: a URL is never opened", where=path[:200], fix="download it first")
    where = os.fsdecode(path)
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise UserError("must be an image file, but is a folder", where=where)
        if not stat.S_ISREG(info.st_mode):
            raise UserError("must be an image file, but is a device, pipe or socket", where=where)
        if info.st_size == 0:
            raise UserError("must be an image file, but is empty (0 bytes)", where=where)
        return open(path, "rb")
    except FileNotFoundError:
        raise UserError("no such file", where=where[:500]) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"cannot be opened: {reason}", where=where[:500]) from None


def allow(max_pixels: int) -> None:
    """A `max_pixels` beyond Pillow's own limit (179 million) raises that one for the process: Pillow offers no other way."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels // 2 + 1


def open_image(file: IO[bytes], where: str, *, local: bool) -> Image.Image:
    """As Pillow sees it, not decoded; raises UserError for what is no image."""
    try:
        return Image.open(file, formats=_formats(local))
    except UnidentifiedImageError:
        if local and (many := modes.many_channels(file, where)) is not None:
            raise many from None
        names = ", ".join(LOCAL if local else ANYWHERE)
        message = f"must be an image ({names}), but is something else or its header is damaged"
        raise UserError(message, where=where, fix="open it in an image viewer and save it as PNG, or leave it out") from None


@lru_cache(maxsize=2)
def _formats(local: bool) -> tuple[str, ...]:
    """The formats to admit that this Pillow can read. Naming one whose plug-in is not imported would make Pillow import all of them."""
    from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401

    Image.preinit()
    if local:
        silence_libtiff()
    return tuple(name for name in (LOCAL if local else ANYWHERE) if name in Image.OPEN)


def check_pixels(size: tuple[int, int], where: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise UserError for a (width, height) of nothing or of too much."""
    width, height = size
    if width < 1 or height < 1:
        raise UserError(f"must have pixels, but is {width} wide and {height} high", where=where)
    if width * height > max_pixels:
        message = f"must have at most {max_pixels:,} pixels, but has {width * height:,} (height {height}, width {width})"
        raise UserError(message, where=where, fix=TOO_LARGE)


def _read_file(  # six arguments: what `read` was asked, and the open file
    file: IO[bytes], where: str, channels: int, max_pixels: int, local: bool, covering: tuple[int, int] | None
) -> Picture:
    allow(max_pixels)
    tags = tiff.directory(file) if local else None
    if channels not in PICTURES or channels == bands.count(tags):
        return _read_bands(file, where, tags, channels, max_pixels, local)
    with Decoding(where), open_image(file, where, local=local) as image:
        check_pixels(image.size, where, max_pixels)
        width, height = image.size
        turn = orientation(image) if image.format in ("JPEG", "MPO") else None
        ready = image
        if covering is not None and turn is not None:
            ready = jpeg.reduced(image, file, covering[::-1] if turn[0] >= 5 else covering)
        whole = jpeg.decode(image, file) if turn is not None and ready is image else None
        if whole is None or turn is None:
            pixels, notes = _decode(ready, where, channels, max_pixels, turn)
        else:
            pixels, notes = with_channels(_turned(whole, turn[0]), channels), (turn[1],) if turn[1] else ()
        if has_more(image):
            notes = (*notes, "only the first frame or page was read")
        size = (height, width) if turn is None or turn[0] < 5 else (width, height)
        size = _size(pixels) if ready is image else size
    return Picture(pixels, where, size, notes)


def _read_bands(file: IO[bytes], where: str, tags: Any, channels: int, max_pixels: int, local: bool) -> Picture:
    """Those of a TIFF with these tags, or of its pages; raises UserError where they are not as many as the channels asked for."""
    there = bands.count(tags)
    if there not in (0, channels):
        raise bands.unequal(there, channels, where)
    if tags is None:
        with Decoding(where), open_image(file, where, local=local) as image:
            raise bands.unequal(len(image.getbands()), channels, where)
    with Decoding(where):
        if there:
            pixels, note = bands.read(file, tags, where, max_pixels)
            pixels = _turned(pixels, tags.get(tiff.ORIENTATION, 1))
        else:
            with open_image(file, where, local=True) as image:
                pixels, note = bands.of_pages(image, channels, where, max_pixels)
        pixels = np.ascontiguousarray(pixels)
    return Picture(pixels, where, _size(pixels), (note,) if note else ())


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def _decode(
    image: Image.Image, where: str, channels: int, max_pixels: int, turn: tuple[int, str] | None = None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The pixels, and notes; `turn`: the orientation and its note, where they are known already."""
    check_pixels(image.size, where, max_pixels)
    modes.load(image, where)
    upright, damaged = turn or orientation(image)
    notes = [damaged] if damaged else []
    pixels, note = modes.plain(image, where, with_alpha=channels == 4)
    notes += [said for said in (note, modes.left_out(image)) if said]
    return with_channels(_turned(pixels, upright), channels), tuple(notes)


def _turned(pixels: NDArray[np.uint8], upright: int) -> NDArray[np.uint8]:
    return _TURN[upright](pixels) if upright in _TURN else pixels


def with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8 `[H, W, 1 or 3]`, or `[H, W, 4]` for four -> `[H, W, channels]`, contiguous and writable."""
    if pixels.shape[2] == channels:
        return pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
    if channels == 1:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None].copy()
    return np.repeat(pixels, 3, axis=2) if channels == 3 else alpha.opaque(pixels)


def has_more(image: Image.Image) -> bool:
    """Whether a file holds further frames or pages. For a GIF Pillow steps forward and back: ask when the pixels are safe."""
    if image.format == "MPO":  # the further pictures of a camera's JPEG are previews or depth maps
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame is good, what follows is damaged
        return True


def orientation(image: Image.Image) -> tuple[int, str]:
    """The EXIF orientation, 1..8, and a note where it cannot be told. Pillow itself turns TIFF files when it loads them."""
    if not _METADATA.intersection(image.info):
        return 1, ""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a hostile EXIF block raises nearly anything, and costs us no more than the orientation
        return 1, "damaged EXIF data passed over"
    return (value if isinstance(value, int) and value in _TURN else 1), ""


# Arrays and tensors


def _read_array(source: Any, channels: int, max_pixels: int) -> Picture:
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        where, array = "tensor", _from_tensor(source)
    elif isinstance(source, np.ndarray):
        where, array = "array", source
        if array.dtype != np.uint8:
            fix = "scale to 0..255 and use .astype(numpy.uint8)"
            raise UserError(f"an array of pixels must be uint8, this is {array.dtype}", where=where, fix=fix)
    else:
        kinds = "a path, bytes, a PIL image, a NumPy array or a tensor"
        raise UserError(f"an image must be {kinds}, this is {type(source).__name__}")
    if channels not in PICTURES:
        pixels, _ = bands.of_array(array, channels, where, max_pixels)
        return Picture(pixels, where, _size(pixels))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        layout = "[H, W] or [C, H, W]" if where == "tensor" else "[H, W] or [H, W, C]"
        shape = list(array.shape if where == "array" or array.ndim != 3 else (array.shape[2], *array.shape[:2]))
        fix = "give one image at a time, channels in that place"
        raise UserError(f"must have shape {layout} with 1 to 4 channels, has {shape}", where=where, fix=fix)
    check_pixels((array.shape[1], array.shape[0]), where, max_pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    with Decoding(where):
        pixels, notes = _decode(Image.fromarray(np.ascontiguousarray(array)), where, channels, max_pixels)
    return Picture(pixels, where, _size(pixels), notes)


def _from_tensor(tensor: Any) -> NDArray[np.uint8]:
    """A tensor `[C, H, W]` as an array `[H, W, C]`; other shapes are passed on for the caller to refuse."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        values = tensor.float().numpy()
        array = modes.from_unit(values, "tensor") if values.size else values.astype(np.uint8)
    else:
        array = tensor.numpy()
    if array.dtype != np.uint8:
        raise UserError(f"a tensor of pixels must be uint8 or float in 0..1, this is {array.dtype}", where="tensor")
    return array.transpose(1, 2, 0) if array.ndim == 3 else array
