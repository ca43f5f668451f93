"""What the generators, judges, encoders and decoders of this room are built from: residual stages between a coarse grid and pixels.

No normalisation: residual branches start at zero and their first layers small (Zhang et al. 2019, "Fixup initialization"), as in
Huang et al. 2024, "The GAN is dead; long live the GAN! A modern GAN baseline", section 4, whose roadmap this follows: residual blocks
with a narrower middle, leaky ReLU, bilinear resampling. The finest stage works on patches of 2x2 pixels, folded into channels (Shi et al.
2016, "sub-pixel convolution"): a quarter of the places, for which a processor needs less than half of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
PATCH = 2
GAIN = math.sqrt(2 / (1 + SLOPE**2))


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, SLOPE)


def grid(size: tuple[int, int], stages: int) -> tuple[int, int]:
    """The coarse grid under `stages` stages for an image of `size`: (height, width), rounded up."""
    factor = PATCH * 2 ** (stages - 1)
    return -(-size[0] // factor), -(-size[1] // factor)


def fitted(size: tuple[int, int], stages: int) -> tuple[int, int]:
    """The smallest (height, width) not below `size` that halves without rest."""
    height, width = grid(size, stages)
    factor = PATCH * 2 ** (stages - 1)
    return height * factor, width * factor


def padded(x: Tensor, size: tuple[int, int], scale: int = 1) -> Tensor:
    """`x` `[B, C, H, W]` with its edges repeated to `size`, evenly on both sides, by multiples of `scale`; as it is where it fits."""
    down, across = size[0] - x.shape[2], size[1] - x.shape[3]
    if not (down or across):
        return x
    top, left = (more // scale // 2 * scale for more in (down, across))
    return F.pad(x, (left, across - left, top, down - top), mode="replicate")


def cut(x: Tensor, size: tuple[int, int], scale: int = 1) -> Tensor:
    """The middle of `x` `[B, C, H, W]` of `size`: takes off what `padded` adds."""
    top, left = ((whole - side) // scale // 2 * scale for whole, side in zip(x.shape[2:], size, strict=True))
    return x[:, :, top : top + size[0], left : left + size[1]]


class Residual(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the identity: `[B, C, H, W]` -> the same shape. `layers`: how many such blocks there are."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.widen = nn.Conv2d(hidden, channels, 1, bias=False)
        if self.widen.weight.is_meta:
            return
        for conv in (self.narrow, self.mix):  # Fixup, rule 2: the m - 1 layers before the last by L^(-1/(2m - 2)), m = 3
            nn.init.normal_(conv.weight, std=GAIN / math.sqrt(conv.weight[0].numel()) * max(1, layers) ** -0.25)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.widen.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> the same shape."""
        widened: Tensor = self.widen(leaky(self.mix(leaky(self.narrow(x)))))
        return x + widened


def _stage(channels: int, blocks: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, max(8, channels // 2), layers) for _ in range(blocks)))


def _linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """A 1x1 convolution without bias, that keeps the variance (times gain squared)."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    if not conv.weight.is_meta:
        nn.init.normal_(conv.weight, std=gain / math.sqrt(inputs))
    return conv


def _halved(width: int) -> int:
    """Channels of a stage that was grown behind one of `width`."""
    return max(8, width // 2)


class Finer(nn.Module):
    """A stage that was grown behind a generator's last: maps `[B, inputs, h, w]` -> maps `[B, width, 2h, 2w]`, and what they add to the
    image, `[B, outputs, 4h, 4w]`; nothing as long as the layers of `ZERO` have weights of 0."""

    ZERO = ("last.weight", "last.bias", "stage.0.widen.weight")

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.change = _linear(inputs, width)
        self.stage = _stage(width, 1, 1)
        self.last = nn.Conv2d(width, outputs * PATCH**2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = self.stage(F.interpolate(self.change(x), scale_factor=2, mode="bilinear", align_corners=False))
        return x, F.pixel_shuffle(self.last(leaky(x)), PATCH)


class Closer(nn.Module):
    """A stage that was grown before a judge's first: images `[B, inputs, 4h, 4w]`, and what a finer stage adds to their maps -> what it
    adds to the maps `[B, outputs, h, w]` of these images at half their size; nothing as long as the layers of `ZERO` have weights of 0."""

    ZERO = ("change.weight", "stage.0.widen.weight")

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs * PATCH**2, width, 3, padding=1)
        self.stage = _stage(width, 1, 1)
        self.change = _linear(width, outputs)

    def forward(self, x: Tensor, added: Tensor | None) -> Tensor:
        """See the class."""
        maps = self.first(F.pixel_unshuffle(x, PATCH))
        maps = self.stage(maps if added is None else maps + added)
        adds: Tensor = self.change(F.avg_pool2d(maps, 2))
        return adds


class Upward(nn.Module):
    """From the coarse grid to pixels: `[B, widths[0], h, w]` -> `[B, outputs, h * 2**n, w * 2**n]`, n stages.

    widths: channels of each stage, the coarsest first; blocks: residual blocks of each; finer: stages more, that it has grown.
    """

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        layers = blocks * len(widths)
        self.stages = nn.ModuleList(_stage(width, blocks, layers) for width in widths)
        self.changes = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], outputs * PATCH**2, 3, padding=1)
        self.finer = nn.ModuleList()
        if not self.last.weight.is_meta:
            nn.init.normal_(self.last.weight, std=0.5 / math.sqrt(9 * widths[-1]))
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.stages[0](x)
        for change, stage in zip(self.changes, list(self.stages)[1:], strict=True):
            # The channels are changed on the coarse side: a quarter of the work, and the same since both steps are linear.
            x = stage(F.interpolate(change(x), scale_factor=2, mode="bilinear", align_corners=False))
        image = F.pixel_shuffle(self.last(leaky(x)), PATCH)
        for finer in self.finer:  # what has grown adds to the image as it was (Karras et al. 2020, "StyleGAN2", section 4.1, figure 7b)
            x, added = finer(x)
            image = F.interpolate(image, scale_factor=2) + added
        return image

    def grow(self) -> None:
        """A stage more, at twice the size."""
        before: Any = self.finer[-1].last if self.finer else self.last
        self.finer.append(Finer(before.in_channels, _halved(before.in_channels), self.last.out_channels // PATCH**2))


class Downward(nn.Module):
    """From pixels to the coarse grid: `[B, inputs, H, W]` -> `[B, widths[-1], H / 2**n, W / 2**n]`, n stages, the finest first."""

    def __init__(self, inputs: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers = blocks * len(widths)
        self.first = nn.Conv2d(inputs * PATCH**2, widths[0], 3, padding=1)
        self.finer = nn.ModuleList()
        self.stages = nn.ModuleList(_stage(width, blocks, layers) for width in widths)
        self.changes = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        if not self.first.weight.is_meta:
            nn.init.normal_(self.first.weight, std=GAIN / math.sqrt(9 * inputs * PATCH**2))
            nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        added: Tensor | None = None
        for closer in reversed(self.finer):  # the finest first
            added = closer(x, added)
            x = F.avg_pool2d(x, 2)
        x = self.first(F.pixel_unshuffle(x, PATCH))
        x = self.stages[0](x if added is None else x + added)
        for change, stage in zip(self.changes, list(self.stages)[1:], strict=True):
            x = stage(change(F.avg_pool2d(x, 2)))
        return x

    def grow(self) -> None:
        """A stage more, for images of twice the size."""
        before: Any = self.finer[-1].first if self.finer else self.first
        self.finer.append(Closer(self.first.in_channels // PATCH**2, _halved(before.out_channels), before.out_channels))


class Start(nn.Module):
    """Latents `[N, L]` -> the coarse grid `[N, channels, h, w]`."""

    def __init__(self, latent: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.shape = (channels, *size)
        self.linear = nn.Linear(latent, channels * size[0] * size[1])
        if not self.linear.weight.is_meta:
            nn.init.normal_(self.linear.weight, std=1 / math.sqrt(latent))
            nn.init.zeros_(self.linear.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        grid: Tensor = self.linear(latents).view(-1, *self.shape)
        return grid.contiguous(memory_format=torch.channels_last)


def embedding(classes: int, width: int) -> nn.Embedding:
    """A vector of unit variance for each class."""
    table = nn.Embedding(classes, width)
    if not table.weight.is_meta:
        nn.init.normal_(table.weight)
    return table
