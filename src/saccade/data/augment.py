"""Random changes to images: numbers drawn first from keyed generators, then applied as a pure function.

An image's own numbers are one vector of uniforms (`Draws`), so they depend on its position in the stream alone. Small
images are changed a whole batch at once by one warp and one colour matrix each; large ones are cropped one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from saccade.core import geometry, keys
from saccade.core.config import AugmentConfig

Array = NDArray[Any]
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma

_NAMES = (
    "flip", "area", "ratio", "top", "left", "shift_y", "shift_x", "zoom", "rotate", "shear",
    "brightness", "contrast", "saturation", "hue", "grey", "erase", "erase_area", "erase_ratio", "erase_top", "erase_left",
)  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) by image: `draws["flip"]` is float64 `[B]`."""

    values: Array

    @classmethod
    def at(cls, seed: int, positions: Array) -> Draws:
        """The numbers of the images at these positions of the stream."""
        numbers = keys.Keyed(seed, "augment")
        rows = [numbers.at(int(p)).random(len(_NAMES)) for p in positions]
        return cls(np.array(rows).reshape(len(positions), len(_NAMES)))

    @classmethod
    def of(cls, generator: np.random.Generator) -> Draws:
        """The numbers of one image, from the generator of its position."""
        return cls(generator.random((1, len(_NAMES))))

    def __getitem__(self, name: str) -> Array:
        return self.values[:, _NAMES.index(name)]

    def spread(self, name: str, strength: float) -> Array:
        """The number scaled to -strength..strength."""
        return (self[name] * 2 - 1) * strength


def crop_box(draws: Draws, shape: tuple[int, int], size: tuple[int, int], smallest: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop of the first image, `shape` (height, width), that is resized to `size`.

    Its share of the area lies in smallest..1, its aspect ratio within 3/4..4/3 of that of `size`, so that nothing is squashed more
    than that; where such a box does not fit it is made smaller. With smallest = 1: the largest box of the aspect of `size`, in the middle.
    """
    height, width = shape
    random = smallest < 1
    stretch = float(np.exp(draws.spread("ratio", np.log(4 / 3))[0])) if random else 1.0
    ratio = size[1] / size[0] * stretch
    area = height * width * float(smallest + (1 - smallest) * draws["area"][0])
    wide, tall = (area * ratio) ** 0.5, (area / ratio) ** 0.5
    fit = min(1.0, width / wide, height / tall)
    tall, wide = max(1, min(height, round(tall * fit))), max(1, min(width, round(wide * fit)))
    top = int((draws["top"][0] if random else 0.5) * (height - tall + 1))
    left = int((draws["left"][0] if random else 0.5) * (width - wide + 1))
    return top, left, tall, wide


def shrink(image: Array, size: tuple[int, int]) -> Array:
    """uint8 `[H, W, C]` reduced, antialiased, so that it still just covers `size` (height, width); as it is where that enlarges.

    Within a level or two of Pillow's resizing, at a quarter of its time.
    """
    height, width = image.shape[:2]
    if height <= size[0] or width <= size[1]:
        return image
    return resized(image, geometry.covering((height, width), size))


def reduced(image: Array, room: tuple[int, int]) -> Array:
    """uint8 `[H, W, C]` made to fit into `room` (height, width), antialiased, where it is larger."""
    source = (image.shape[0], image.shape[1])
    scaled = geometry.fitting(source, room)
    return resized(image, scaled) if scaled[0] < source[0] or scaled[1] < source[1] else image


def resized(image: Array, size: tuple[int, int]) -> Array:
    """uint8 `[H, W, C]` at `size` (height, width), antialiased."""
    return _resized(torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1), size)


def _resized(planes: Tensor, size: tuple[int, int], *, flip: bool = False) -> Array:
    from torchvision.transforms.v2 import functional as tvf

    pixels = tvf.resize(planes, list(size), antialias=True)
    if flip:
        pixels = tvf.horizontal_flip(pixels)
    result: Array = pixels.permute(1, 2, 0).contiguous().numpy()
    return result


def crop_and_resize(image: Array, box: tuple[int, int, int, int], size: tuple[int, int], *, flip: bool) -> Array:
    """uint8 `[H, W, C]` -> the box of it, antialiased to `size` and mirrored where asked: uint8 `[h, w, C]`."""
    top, left, height, width = box
    box_pixels = image[top : top + height, left : left + width].copy()  # whole in memory it is resized twice as fast
    return _resized(torch.from_numpy(box_pixels).permute(2, 0, 1), size, flip=flip)


def warp(images: Tensor, draws: Draws, config: AugmentConfig) -> Tensor:
    """Flip, shift, zoom, rotate, shear and crop each image by one bilinear sampling: float32 `[B, C, H, W]` -> the same.

    Outside an image of colours or bands it is mirrored; outside a grey one, which often shows a character, or one with alpha, which often
    is cut out, the border's pixel goes on.
    """
    flips = draws["flip"] < config.flip
    if not (config.zooms or config.shift):
        return torch.where(torch.from_numpy(flips)[:, None, None, None], images.flip(3), images)
    theta = torch.from_numpy(_matrices(draws, config, flips, images.shape[2:])).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    outside = "border" if images.shape[1] in (1, 4) else "reflection"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _matrices(draws: Draws, config: AugmentConfig, flips: Array, size: Sequence[int]) -> Array:
    """Output to input coordinates (both -1..1, x first) by image: float64 `[B, 2, 3]`."""
    height, width = size
    angle = np.deg2rad(draws.spread("rotate", config.rotate))
    slant = np.tan(np.deg2rad(draws.spread("shear", config.shear)))
    zoom = 1 + draws.spread("zoom", config.scale)
    side = np.sqrt(config.crop + (1 - config.crop) * draws["area"])
    stretch = np.exp(draws.spread("ratio", np.log(4 / 3) / 2)) if config.crop < 1 else np.ones_like(side)
    wide, tall = np.minimum(side * stretch, 1), np.minimum(side / stretch, 1)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    matrices = np.empty((len(angle), 2, 3))
    matrices[:, 0, 0] = np.where(flips, -1, 1) * wide * cos
    matrices[:, 0, 1] = wide * (slant * cos - sin) * (height / width)
    matrices[:, 1, 0] = np.where(flips, -1, 1) * tall * sin * (width / height)
    matrices[:, 1, 1] = tall * (slant * sin + cos)
    matrices[:, 0, 2] = (1 - wide) * (2 * draws["left"] - 1) + 2 * draws.spread("shift_x", config.shift)
    matrices[:, 1, 2] = (1 - tall) * (2 * draws["top"] - 1) + 2 * draws.spread("shift_y", config.shift)
    return matrices


def recolor(images: Tensor, draws: Draws, config: AugmentConfig) -> Tensor:
    """Brightness, contrast, saturation, hue and grey as one matrix and offset by image: float32 0..255 `[B, C, H, W]`.

    Hue turns the chroma plane of YIQ; for grey images (C = 1) and bands only brightness and contrast apply. Premultiplied colours (C = 4)
    change as they would on their own: their mean is that of what is seen, alpha stays, and none is above it.
    """
    if not (config.color or config.hue or config.grey):
        return images
    if images.shape[1] == 4:
        alpha = images[:, 3:]
        seen = alpha / alpha.mean((1, 2, 3), keepdim=True).clamp_min(1e-6)  # where the mean of the colours counts, and how much
        colours = _recolored(images[:, :3], seen, draws, config)
        return torch.cat([colours.clamp_min(0).minimum(alpha), alpha], 1)
    return _recolored(images, 1.0, draws, config)


def _recolored(images: Tensor, seen: Tensor | float, draws: Draws, config: AugmentConfig) -> Tensor:
    """Contrast about the mean of what is seen, as one product and the same for all pixels on top."""
    gain, contrast = (torch.from_numpy(1 + draws.spread(name, config.color)).float()[:, None, None] for name in ("brightness", "contrast"))
    flat = images.flatten(2)
    if images.shape[1] == 3:
        mixing = torch.from_numpy(_color_matrices(draws, config)).float()
        mean = torch.bmm(mixing, flat.mean(2, keepdim=True)).mean(1, keepdim=True)
        changed = torch.bmm(mixing * (contrast * gain), flat)
    else:
        mean = flat.mean((1, 2), keepdim=True)
        changed = flat * (contrast * gain)
    return changed.view_as(images).add_((mean * gain * (1 - contrast))[..., None] * seen)


_TO_YIQ = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


def _color_matrices(draws: Draws, config: AugmentConfig) -> Array:
    """Saturation, hue and grey: float64 `[B, 3, 3]` on RGB."""
    chroma = 1 + draws.spread("saturation", config.color)
    chroma = np.where(draws["grey"] < config.grey, 0, chroma)
    turn = 2 * np.pi * draws.spread("hue", config.hue)
    rotation = np.zeros((len(chroma), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = chroma * np.cos(turn)
    rotation[:, 1, 2], rotation[:, 2, 1] = -chroma * np.sin(turn), chroma * np.sin(turn)
    matrices: Array = np.linalg.inv(_TO_YIQ) @ rotation @ _TO_YIQ
    return matrices


def erase(images: Tensor, draws: Draws, config: AugmentConfig) -> Tensor:
    """Fill a rectangle of 2 to 25 % of some images with the image's mean (Zhong et al. 2020); in place."""
    height, width = images.shape[2:]
    for i in np.flatnonzero(draws["erase"] < config.erase).tolist():
        side = (0.02 + 0.23 * draws["erase_area"][i]) ** 0.5
        stretch = np.exp((draws["erase_ratio"][i] * 2 - 1) * np.log(3) / 2)
        tall, wide = max(1, min(height, round(height * side / stretch))), max(1, min(width, round(width * side * stretch)))
        top, left = int(draws["erase_top"][i] * (height - tall + 1)), int(draws["erase_left"][i] * (width - wide + 1))
        images[i, :, top : top + tall, left : left + wide] = images[i].mean((1, 2), keepdim=True)
    return images


@dataclass(frozen=True)
class Mixing:
    """Which row each image was mixed with (int64 `[B]`, itself where it was not) and what share of it stayed (float32 `[B]`)."""

    partner: Tensor
    share: Tensor


def mix_pairs(images: Tensor, positions: Array, config: AugmentConfig, seed: int) -> tuple[Tensor, Mixing]:
    """Mixup or cutmix of the neighbours 2k, 2k+1 of the stream (float32 `[B, C, H, W]`), keyed by 2k.

    Mixup draws its share from Beta(0.8, 0.8) (Zhang et al. 2018), cutmix from Beta(1, 1) (Yun et al. 2019).
    """
    partner, share = torch.arange(len(positions)), torch.ones(len(positions))
    if not (config.mixup or config.cutmix):
        return images, Mixing(partner, share)
    row = {int(p): i for i, p in enumerate(positions)}
    mixed, numbers = images.clone(), keys.Keyed(seed, "mix")
    for position, i in row.items():
        j = row.get(position + 1)
        if position % 2 or j is None:
            continue
        generator = numbers.at(position)
        choice = generator.random()
        if choice >= config.mixup + config.cutmix:
            continue
        if choice < config.mixup:
            kept = float(generator.beta(0.8, 0.8))
            mixed[i], mixed[j] = images[i] * kept + images[j] * (1 - kept), images[j] * kept + images[i] * (1 - kept)
        else:
            kept = _swap_box(images, mixed, (i, j), generator)
        partner[i], partner[j] = j, i
        share[i] = share[j] = kept
    return mixed, Mixing(partner, share)


def _swap_box(images: Tensor, mixed: Tensor, pair: tuple[int, int], generator: np.random.Generator) -> float:
    height, width = images.shape[2:]
    side = (1 - generator.beta(1, 1)) ** 0.5
    middle_y, middle_x = generator.random() * height, generator.random() * width
    top, bottom = max(0, round(middle_y - side * height / 2)), min(height, round(middle_y + side * height / 2))
    left, right = max(0, round(middle_x - side * width / 2)), min(width, round(middle_x + side * width / 2))
    i, j = pair
    mixed[i, :, top:bottom, left:right] = images[j, :, top:bottom, left:right]
    mixed[j, :, top:bottom, left:right] = images[i, :, top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (height * width)
