"""A small residual network for training from random weights, on a laptop's processor if need be."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SmallResNet"]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A "same"-padded convolution without bias: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            # Averaging before the 1x1 convolution uses every pixel, where a strided 1x1 would drop three in four.
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, _conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(self.shortcut(x)), inplace=True)


class SmallResNet(nn.Module):
    """A residual network of basic blocks for any image size.

    Stage ``i`` has ``blocks[i]`` blocks of ``width * 2**i`` channels (never more than ``max_width``); every stage but
    the first halves the picture. ``features`` (stem and stages, [B, C, H, W] -> [B, F, h, w]) is the module to hook for
    Grad-CAM; ``features[-1]`` is its last stage.

    Args:
        classes: number of logits, K.
        channels: channels of the input, C (1 grey, 3 colour).
        width: channels of the stem and of the first stage.
        blocks: blocks per stage.
        stem_stride: 1, 2 or 4; a larger one is much faster and sees less detail.
        max_width: upper limit on the channels of a stage.
        dropout: probability of dropping a pooled feature before the last layer.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 32,
        blocks: tuple[int, ...] = (1, 1, 1),
        stem_stride: int = 1,
        max_width: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            _conv(channels, width, {1: 3, 2: 5}.get(stem_stride, 7), stem_stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = [stem]
        inputs = width
        for i, count in enumerate(blocks):
            outputs = min(width * 2**i, max_width)
            stage = nn.Sequential()
            for j in range(count):
                stage.append(_Block(inputs, outputs, 2 if i > 0 and j == 0 else 1))
                inputs = outputs
            stages.append(stage)
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, classes)
        self._reset()

    def _reset(self) -> None:
        """He initialisation; every residual branch starts at zero, so that the network starts as its shortcuts."""
        if self.head.weight.is_meta:  # nothing to set; torch would import its compiler for it, which takes a second
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Block):
                nn.init.zeros_(module.bn2.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W], any H and W from 1 up -> logits [B, K]."""
        y = self.features(x).mean(dim=(2, 3))
        return self.head(self.dropout(y))
