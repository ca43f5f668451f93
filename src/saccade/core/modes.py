"""What the pixels of Pillow's many modes become: grey, RGB, or RGB with premultiplied alpha, by the rules at the top of `core.images`."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from saccade.core import alpha, tiff
from saccade.core.errors import UserError

Pixels = NDArray[np.uint8]
BAND = 1 << 24  # pixels that are copied at once


def plain(image: Image.Image, where: str, *, with_alpha: bool) -> tuple[Pixels, str]:
    """The pixels of a decoded image of any mode, and a note: uint8 `[H, W, 1 or 3]`, laid over white where it is transparent.

    with_alpha: `[H, W, 4]` there instead, premultiplied.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return _array(image), ""
    if image.mode == "F" or image.mode.startswith("I"):
        return _narrow(image, where, with_alpha=with_alpha)
    if image.has_transparency_data:
        return (_premultiplied(image), "") if with_alpha else _over_white(image)
    return _array(image.convert("L" if image.mode == "1" else "RGB")), ""


def from_unit(array: NDArray[Any], where: str) -> Pixels:
    """Floats in 0..1 (give or take what rounds away) as uint8; UserError for others, NaN included."""
    values = np.rint(array * 255.0)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        message = f"float pixels must lie in 0..1, these lie in {low / 255:.4g}..{high / 255:.4g}"
        raise UserError(message, where=where, fix="rescale them, or give 8 bit values as uint8")
    return values.astype(np.uint8)


def from_floats(array: NDArray[Any], where: str) -> tuple[Pixels, str]:
    """Floats in 0..1 or, where the largest exceeds 2, in 0..255, as uint8, and a note; UserError for others: whether the largest is 1.02 of
    1 or of 255 cannot be told."""
    high = float(array.max())
    if np.rint(high * 255) <= 255 or np.isnan(high):
        return from_unit(array, where), "float values of 0..1 scaled to 8 bit (times 255)"
    if high <= 2:
        message = f"floats must lie in 0..1 or 0..255: the largest, {high:.4g}, is neither"
        raise UserError(message, where=where, fix="clip or rescale them")
    return from_unit(array / 255, where), "float values of 0..255 rounded to 8 bit"


def is_grey(image: Image.Image) -> bool:
    """Whether its mode is grey, or it has a palette of nothing but greys; told without its pixels."""
    if image.mode != "P" or image.palette is None:
        return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    step = len(image.palette.rawmode or image.palette.mode)
    raw = bytes(image.palette.palette)
    colours = np.frombuffer(raw[: len(raw) // step * step], np.uint8).reshape(-1, step)[:, :3]
    return bool((colours == colours[:, :1]).all())


def has_alpha(image: Image.Image) -> bool:
    """Whether it has an alpha channel or a transparent colour, used or not; told without its pixels."""
    if image.mode == "P" and image.palette is None:
        return "transparency" in image.info
    return image.has_transparency_data


def left_out(image: Image.Image) -> str:
    """A note on the channels of a TIFF that Pillow passes over; "" where it reads all."""
    samples = image.tag_v2.get(tiff.SAMPLES, 1) if isinstance(image, TiffImagePlugin.TiffImageFile) else 1
    bands = len(image.getbands())
    return f"of {samples} channels only the first {'was' if bands == 1 else f'{bands} were'} read" if samples > bands else ""


def load(image: Image.Image, where: str) -> None:
    """Decode it; raises UserError for a TIFF whose channels Pillow cannot put together, which it says of as if the file were damaged."""
    try:
        image.load()
    except ValueError:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and left_out(image):
            raise _not_read(image.tag_v2[tiff.SAMPLES], where) from None
        raise


def many_channels(file: IO[bytes], where: str) -> UserError | None:
    """What to say of a TIFF of more channels, or in another order, than are read as a picture; None for what is none, or damaged."""
    try:
        samples = int((tiff.directory(file) or {}).get(tiff.SAMPLES, 1))
    except Exception:  # whatever damaged tags raise
        return None
    return _not_read(samples, where) if samples > 1 else None


def _not_read(samples: int, where: str) -> UserError:
    problem = f"holds {samples} channels, and a picture is needed here, grey or RGB: only a model with channels={samples} takes it"
    fix = f"train one on such images (--set channels={samples}), or save the channels that matter"
    return UserError(problem, where=where, fix=fix)


def _array(image: Image.Image) -> Pixels:
    """In bands where it is large: Pillow hands over a copy beside its own pixels."""
    if image.width * image.height <= BAND:
        return np.atleast_3d(np.asarray(image))
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        pixels[top : top + rows] = np.atleast_3d(np.asarray(band))
    return pixels


def _narrow(image: Image.Image, where: str, *, with_alpha: bool) -> tuple[Pixels, str]:
    """16 and 32 bit grey as 8 bit."""
    array = np.asarray(image)
    if image.mode == "F":
        pixels, note = from_floats(array, where)
        return np.atleast_3d(pixels), note
    grey = np.atleast_3d((np.clip(array, 0, 65535) >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        clear = array == transparent
        if with_alpha:
            grey = alpha.opaque(grey)
        grey[clear] = 0 if with_alpha else 255
    return grey, "16 bit values scaled to 8 bit"


def _premultiplied(image: Image.Image) -> Pixels:
    if image.mode == "La":
        return _array(image)[..., [0, 0, 0, 1]]
    if image.mode == "RGBa":
        return _array(image)
    return alpha.premultiplied(np.asarray(_eight_bit_colour(image).convert("RGBA")))


def _over_white(image: Image.Image) -> tuple[Pixels, str]:
    grey = image.mode in ("1", "L", "LA", "La")
    image = _eight_bit_colour(image).convert("LA" if grey else "RGBA")
    mask = image.getchannel("A")
    flat = image.convert("L" if grey else "RGB")
    if mask.getextrema()[0] == 255:
        return _array(flat), ""
    white = Image.new(flat.mode, flat.size, "white")
    white.paste(flat, mask=mask)
    return _array(white), "transparent pixels laid over white"


def _eight_bit_colour(image: Image.Image) -> Image.Image:
    """The transparent colour of a 16 bit PNG as its pixels are, which kept their upper bytes."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image
