"""The residual block that is put where a network has none of its own to copy, and what holds it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.layers.residual import conv


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


class Followed(nn.Sequential):
    """A module of any number of inputs, with blocks behind it."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the last block gives."""
        first, *blocks = self
        x: Tensor = first(*inputs)
        for block in blocks:
            x = block(x)
        return x
