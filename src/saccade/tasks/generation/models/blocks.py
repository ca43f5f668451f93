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


def padded(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` `[B, C, H, W]` with its edges repeated to `size`, evenly on both sides; as it is where it fits."""
    down, across = size[0] - x.shape[2], size[1] - x.shape[3]
    if not (down or across):
        return x
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate")


def cut(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of `x` `[B, C, H, W]` of `size`: takes off what `padded` adds."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
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


class Upward(nn.Module):
    """From the coarse grid to pixels: `[B, widths[0], h, w]` -> `[B, outputs, h * 2**n, w * 2**n]`, n stages.

    widths: channels of each stage, the coarsest first; blocks: residual blocks of each.
    """

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        layers = blocks * len(widths)
        self.stages = nn.ModuleList(_stage(width, blocks, layers) for width in widths)
        self.changes = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], outputs * PATCH**2, 3, padding=1)
        if not self.last.weight.is_meta:
            nn.init.normal_(self.last.weight, std=0.5 / math.sqrt(9 * widths[-1]))
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.stages[0](x)
        for change, stage in zip(self.changes, list(self.stages)[1:], strict=True):
            # The channels are changed on the coarse side: a quarter of the work, and the same since both steps are linear.
            x = stage(F.interpolate(change(x), scale_factor=2, mode="bilinear", align_corners=False))
        return F.pixel_shuffle(self.last(leaky(x)), PATCH)


class Downward(nn.Module):
    """From pixels to the coarse grid: `[B, inputs, H, W]` -> `[B, widths[-1], H / 2**n, W / 2**n]`, n stages, the finest first."""

    def __init__(self, inputs: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers = blocks * len(widths)
        self.first = nn.Conv2d(inputs * PATCH**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(_stage(width, blocks, layers) for width in widths)
        self.changes = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        if not self.first.weight.is_meta:
            nn.init.normal_(self.first.weight, std=GAIN / math.sqrt(9 * inputs * PATCH**2))
            nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.stages[0](self.first(F.pixel_unshuffle(x, PATCH)))
        for change, stage in zip(self.changes, list(self.stages)[1:], strict=True):
            x = stage(change(F.avg_pool2d(x, 2)))
        return x


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
