"""Our own network: residual stages down to a 32nd of the input, and back up with what each stage saw (Ronneberger et al. 2015, "U-Net"),
which is added to what comes from below (Chaurasia & Culurciello 2017, "LinkNet"), for a third of the work of looking at both together.
Every map of the way up tells classes, and what they tell is added up (Long et al. 2015, "Fully convolutional networks for semantic
segmentation", section 4.2): coarse maps learn from the first step on.

It works on blocks of 2x2 pixels, which are taken together before the first layer and apart after the last (Shi et al. 2016, "Real-time
single image and video super-resolution using an efficient sub-pixel convolutional neural network"): a quarter of the work, at full
resolution.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.card import InputSpec
from saccade.core.geometry import FILL, MULTIPLE
from saccade.nn.layers.normalize import Normalize
from saccade.nn.layers.residual import Block, conv, reset

FINEST = 2  # pixels of a side of the finest cells
TOGETHER = 8  # maps of one convolution, whose work grows with their square


class Up(nn.Module):
    """A coarse map joined with the finer one of the way down."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.lateral = nn.Sequential(conv(coarse, fine, 1), nn.BatchNorm2d(fine))
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(conv(fine, fine, 3), nn.BatchNorm2d(fine), nn.ReLU(inplace=True))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """`[B, coarse, h, w]` and `[B, fine, 2 h, 2 w]` -> `[B, fine, 2 h, 2 w]`."""
        found: Tensor = self.block(self.act(_twice(self.lateral(coarse)) + fine))
        return found


class Unet(nn.Module):
    """uint8 `[B, C, H, W]` -> logits float32 `[B, K, H, W]`.

    Args:
        spec: the input.
        classes: K.
        widths, blocks: channels and residual blocks of the stages at a half, 4th, 8th, ... of the input.
    """

    def __init__(self, spec: InputSpec, classes: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.stem = nn.Sequential(conv(FINEST**2 * spec.channels, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.Sequential()
            for place in range(count):
                stage.append(Block(inputs, width, 2 if number and not place else 1))
                inputs = width
            self.stages.append(stage)
        self.ups = nn.ModuleList(Up(coarse, fine) for fine, coarse in itertools.pairwise(widths))
        self.tells = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths[1:])
        self.last = nn.Conv2d(widths[0], FINEST**2 * classes, 1)
        if not self.last.weight.is_meta:
            reset(self)
            for part in self.modules():  # a network of few blocks learns faster with its branches than as its shortcuts alone
                if isinstance(part, Block):
                    nn.init.ones_(part.bn2.weight)
            for head in (*self.tells, self.last):
                nn.init.normal_(head.weight, std=0.01)
                nn.init.zeros_(head.bias)

    @property
    def seen(self) -> nn.Module:
        """The module whose map explanation reads: the way up at the middle stage."""
        return self.ups[len(self.ups) // 2]

    def forward(self, images: Tensor) -> Tensor:
        """As the class says; sides that are no multiples of 32 are padded, and cut again."""
        height, width = images.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            images = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=FILL)
        # The coarsest map of a small image is one place, of which a single image has no batch statistics.
        alone = self.training and len(images) == 1 and max(images.shape[2:]) == MULTIPLE
        images = images.repeat(2, 1, 1, 1) if alone else images
        x = self.stem(F.pixel_unshuffle(self.normalize(images), FINEST))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        told: Tensor | None = None
        for up, tell, fine in zip(reversed(self.ups), reversed(self.tells), reversed(maps[:-1]), strict=True):
            told = _twice(tell(x) if told is None else told + tell(x))
            x = up(x, fine)
        told = self.last(x) if told is None else self.last(x) + _twice_apart(told)
        logits = F.pixel_shuffle(told, FINEST)
        return (logits[:1] if alone else logits)[..., :height, :width].float()


def _twice(maps: Tensor) -> Tensor:
    """`[B, F, h, w]` -> `[B, F, 2 h, 2 w]`."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def _twice_apart(maps: Tensor) -> Tensor:
    """`[B, K, h, w]` -> `[B, 4 K, h, w]`, of which `pixel_shuffle` makes the same: each of four pixels is a weighted mean of four cells.
    As convolutions of TOGETHER maps it takes less of the time of a processor, most of all in bf16."""
    maps = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    parts = [F.conv2d(part, _means(part)) for part in maps.split(TOGETHER, 1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _means(maps: Tensor) -> Tensor:
    """The weights of `_twice_apart` for K maps: `[4 K, K, 3, 3]`."""
    kinds = maps.shape[1]
    along = maps.new_tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])  # of the cell before, the own and the next: the first and second pixel
    each = along[:, None, :, None] * along[None, :, None, :]
    own = torch.eye(kinds, dtype=maps.dtype, device=maps.device)
    return (own[:, None, None, :, None, None] * each[None, :, :, None]).reshape(4 * kinds, kinds, 3, 3)
