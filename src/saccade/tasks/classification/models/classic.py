"""Small networks of the literature whose trained weights people share, with the names of those: ResNets for CIFAR, and LeNet-5."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.layers.residual import conv

__all__ = ["CifarResNet", "LeNet5"]

WIDTHS = (16, 32, 64)
LENET_SIDE = 32


class _Block(nn.Module):
    """Two 3x3 convolutions on a shortcut without weights: every second pixel, new channels zero (He et al. 2016, arXiv:1512.03385,
    section 4.2, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new:
            before = self.new // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new - before))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """The ResNet of 6 n + 2 layers for CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2), for any size.

    Args: classes: number of logits; channels: of the input; blocks: n, of each of the three stages.
    """

    def __init__(self, classes: int, channels: int = 3, blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = conv(channels, WIDTHS[0], 3)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(_Block(inputs if place == 0 else width, width, stride if place == 0 else 1) for place in range(blocks)))
            for inputs, width, stride in zip((WIDTHS[0], *WIDTHS), WIDTHS, (1, 2, 2), strict=False)
        )
        self.linear = nn.Linear(WIDTHS[-1], classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and not part.weight.is_meta:
                nn.init.kaiming_normal_(part.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> logits [B, K]."""
        y = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(y.mean(dim=(2, 3)))
        return logits


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition") as it is built today: rectifiers and
    largest values of 2x2. Made for 32x32 pixels; larger images give a map that is averaged, smaller ones are enlarged.

    Args: classes: number of logits; channels: of the input.
    """

    def __init__(self, classes: int, channels: int = 1) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Module]] = [("c1", nn.Conv2d(channels, 6, 5)), ("relu1", nn.ReLU()), ("s2", nn.MaxPool2d(2))]
        layers += [("c3", nn.Conv2d(6, 16, 5)), ("relu3", nn.ReLU()), ("s4", nn.MaxPool2d(2)), ("c5", nn.Conv2d(16, 120, 5))]
        self.convnet = nn.Sequential(OrderedDict(layers))
        self.fc = nn.Sequential(OrderedDict([("f6", nn.Linear(120, 84)), ("relu6", nn.ReLU()), ("f7", nn.Linear(84, classes))]))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, K]."""
        height, width = (max(LENET_SIDE, side) for side in x.shape[2:])
        if (height, width) != tuple(x.shape[2:]):
            x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
        maps = torch.relu(self.convnet(x))
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits
