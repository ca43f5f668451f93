"""A small residual network for training from random weights, on a laptop's processor if need be."""

from __future__ import annotations

from torch import Tensor, nn

from saccade.nn.layers.residual import Block, conv, reset

__all__ = ["SmallResNet"]


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
            conv(channels, width, {1: 3, 2: 5}.get(stem_stride, 7), stem_stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = [stem]
        inputs = width
        for i, count in enumerate(blocks):
            outputs = min(width * 2**i, max_width)
            stage = nn.Sequential()
            for j in range(count):
                stage.append(Block(inputs, outputs, 2 if i > 0 and j == 0 else 1))
                inputs = outputs
            stages.append(stage)
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, classes)
        self._reset()

    def _reset(self) -> None:
        """Residual branches start at zero, the head near it."""
        if self.head.weight.is_meta:  # nothing to set; torch would import its compiler for it, which takes a second
            return
        reset(self)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W], any H and W from 1 up -> logits [B, K]."""
        y = self.features(x).mean(dim=(2, 3))
        return self.head(self.dropout(y))
