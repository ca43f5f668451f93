"""Pixels -> model input, once: training's cache, evaluation, an export's proof and the server all come through here. No torch.

The geometry is that of `core.geometry`, by "crop", "fit" or "native"; scaling is bilinear, with antialias when it reduces; nothing is
resampled where the scale is 1. By "crop", `prepare(shrink(image, size), spec)` equals `prepare(image, spec)` to the bit for `spec.size ==
size`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.core import alpha, geometry, images
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import covering, margin
from saccade.core.images import Picture


def read(source: images.Source, spec: InputSpec, *, max_pixels: int = images.MAX_PIXELS, local: bool = True) -> Picture:
    """Any one image as the model sees it: `pixels` of the Picture is uint8 `[spec.channels, h, w]`, `size` the original's.

    A large JPEG is decoded at a reduced size (see `covered`). Raises UserError for whatever cannot be read.
    """
    picture = images.read(source, channels=spec.channels, max_pixels=max_pixels, local=local, covering=covered(spec))
    return Picture(prepare(picture.pixels, spec), picture.source, picture.size, picture.notes)


def covered(spec: InputSpec) -> tuple[int, int] | None:
    """(height, width) that pixels must cover where a large JPEG may be decoded at a reduced size (`images.read`); None by "fit": boxes lie
    where the original's shape says, which a reduced one need not have to the pixel."""
    return spec.size if spec.resize == "crop" else None


def prepare(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """uint8 `[H, W, 1 or 3]` -> contiguous uint8 `[spec.channels, h, w]`; may share memory with `pixels`. By "crop" h and w are
    `spec.size`, else those of `geometry.padded(geometry.scaled(...))`.

    3 -> 1 channels is ITU-R 601 luminance (Pillow's "L"), 1 -> 3 makes copies, 4 takes `[H, W, 4]`, premultiplied or of four bands, too and
    is opaque for the others; any other number takes as many. Raises UserError for a spec that is not supported.
    """
    if spec.resize not in WAYS:
        raise UserError(f"images are prepared by resize 'crop', 'fit' or 'native', not by {spec.resize!r}")
    _check(pixels, spec.channels)
    if pixels.shape[2] == 3 and spec.channels == 1:
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
    pixels = WAYS[spec.resize](pixels, spec.size)
    if spec.channels == 4 and pixels.shape[2] != 4:
        pixels = alpha.opaque(pixels)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return planes if len(planes) == spec.channels else np.repeat(planes, spec.channels, axis=0)


def _check(pixels: NDArray[np.uint8], channels: int) -> None:
    fit = {1: (1, 3), 3: (1, 3), 4: (1, 3, 4)}.get(channels, (channels,))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in fit or pixels.size == 0:
        told = f"{', '.join(map(str, fit[:-1]))} or {fit[-1]}" if len(fit) > 1 else channels
        raise UserError(f"pixels must be uint8 [H, W, {told}] and not empty, are {pixels.dtype} {list(pixels.shape)}")


def _crop(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale to cover `size`, keep the middle: uint8 `[h, w, C]`."""
    source = (pixels.shape[0], pixels.shape[1])
    scaled = covering(source, size)
    top, left = margin(scaled[0], size[0]), margin(scaled[1], size[1])
    if scaled[0] > source[0] or scaled[1] > source[1]:
        # Enlarging 1 x 500 to cover 224 x 224 would make 224 x 112,000: only the window that is kept is made. (Reducing never makes
        # more than there was, and is done whole.)
        down, across = source[0] / scaled[0], source[1] / scaled[1]
        box = (left * across, top * down, min((left + size[1]) * across, source[1]), min((top + size[0]) * down, source[0]))
        return resample(pixels, size, box)
    if scaled != source:
        pixels = resample(pixels, scaled)
    return pixels[top : top + size[0], left : left + size[1]]


def _fit(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale to fit into `size`, pad at the right and at the bottom: uint8 `[h, w, C]`."""
    source = (pixels.shape[0], pixels.shape[1])
    scaled = geometry.fitting(source, size)
    if scaled != source:
        pixels = resample(pixels, scaled)
    return _native(pixels, size)


def _native(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pad at the right and at the bottom: uint8 `[h, w, C]`."""
    height, width = pixels.shape[:2]
    tall, wide = geometry.padded((height, width))
    return np.pad(pixels, ((0, tall - height), (0, wide - width), (0, 0)), constant_values=geometry.FILL)


WAYS = {"crop": _crop, "fit": _fit, "native": _native}


def resample(pixels: NDArray[np.uint8], size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
    """uint8 `[H, W, C]`, or the part in `box` (left, top, right, bottom), at `size` (height, width), bilinear, antialiased."""
    pixels = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        planes = [resample(pixels[:, :, at : at + 1], size, box) for at in range(pixels.shape[2])]
        return np.concatenate(planes, axis=2)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        # As "RGBA" Pillow would multiply the colours by alpha once more, and divide them again, round its resampling.
        image = Image.frombuffer("RGBX", (pixels.shape[1], pixels.shape[0]), pixels.tobytes(), "raw", "RGBX", 0, 1)
    else:
        image = Image.fromarray(pixels)
    return np.atleast_3d(np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)))
