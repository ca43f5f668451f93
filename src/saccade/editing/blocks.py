"""Modules that edits put into networks, and what holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.layers.residual import conv

REDUCTION = 16  # of the channels in between (Hu et al. 2018, section 6.1)


class Residual(nn.Module):
    """`x` plus two 3x3 convolutions of it: `[B, C, H, W]` -> the same. Nothing follows the sum, so that a branch of zeros changes no map,
    of whatever sign."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))


class SqueezeExcite(nn.Module):
    """Each channel of a map times a factor that follows from the means of all (Hu et al. 2018, "Squeeze-and-excitation networks", equations
    2 to 4): `[B, C, H, W]` -> the same. The factors are twice the sigmoid, so that a last layer of zeros changes no map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return x * (2 * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))))


class Passed(nn.Module):
    """What stands where a module was removed: gives the first of its inputs."""

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        """As the class says."""
        return x


class Adapted(nn.Module):
    """A layer, and two thin ones beside it, whose outputs are added (Hu et al. 2021, "LoRA", equation 3, of scale 1)."""

    def __init__(self, base: nn.Module, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.base, self.down, self.up = base, down, up

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, and more."""
        total: Tensor = self.base(x) + self.up(self.down(x))
        return total


class Factored(nn.Sequential):
    """A layer as two thin ones, one after the other."""


class Followed(nn.Sequential):
    """A module of any number of inputs, with blocks behind it."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """What the last block gives."""
        first, *blocks = self
        x: Tensor = first(*inputs, **named)
        for block in blocks:
            x = block(x)
        return x
