"""Our one-stage detector without anchors: at each place of three maps, how far the sides of a box lie, and how sure each class is.

From the papers: places instead of anchor boxes (Tian et al. 2019, "FCOS"), a path from the top and one from the bottom over the maps
(Lin et al. 2017, "Feature pyramid networks"; Liu et al. 2018, "Path aggregation network"), one head for all maps with batch statistics of
each (Lyu et al. 2022, "RTMDet", section 3.2), and sides as distributions over whole steps (Li et al. 2020, "Generalized focal loss",
section 3.2). Masks are sums of maps, prototypes, weighted for each object (Bolya et al. 2019, "YOLACT", section 3), and of a conic about
its box (`core.geometry.conic`), which is an ellipse at first: prototypes need not learn where an object lies.

B images of H x W, K classes; P places of all maps together, finest map first, row by row; C weights of a mask: CONIC, then one for each
prototype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.card import InputSpec
from saccade.core.geometry import CONIC, FILL, MULTIPLE
from saccade.nn.layers.normalize import Normalize
from saccade.nn.layers.residual import Block, conv, reset

STRIDES = (8, 16, 32)  # pixels between places of a map
STEPS = 16  # distances that a side may have, 0 to 15 strides
ELLIPSE = (2.0, 0.0, 0.0, -2.0, -2.0, 0.0)  # the conic at first: that which touches the sides of the box
PRIOR = 0.01  # probability of a class at first (Lin et al. 2017, "Focal loss", section 4.1)


@dataclass(frozen=True)
class Raw:
    """What training reads. logits `[B, P, K]`; sides: `[B, P, 4, STEPS]`, logits of the distances to left, top, right and bottom;
    points: `[P, 2]` x and y in pixels; strides: `[P]`; weights: `[B, P, C]` and prototypes: `[B, C - CONIC, H / CELL, W / CELL]`, of
    masks, None where none are found; pixels: `[B, K, H / CELL, W / CELL]`, logits of the class of each cell, None where it is not told."""

    logits: Tensor
    sides: Tensor
    points: Tensor
    strides: Tensor
    weights: Tensor | None = None
    prototypes: Tensor | None = None
    pixels: Tensor | None = None

    def boxes(self) -> Tensor:
        """`[B, P, 4]` x1, y1, x2, y2 in pixels of the input, float32, by the mean of each side's distribution."""
        steps = torch.arange(STEPS, dtype=torch.float32, device=self.sides.device)
        distances = (self.sides.float().softmax(3) * steps).sum(3) * self.strides[:, None]
        return torch.cat([self.points - distances[..., :2], self.points + distances[..., 2:]], 2)


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True))


class Backbone(nn.Module):
    """Residual stages at a 4th, 8th, 16th and 32nd of the input."""

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(channels, widths[0] // 2, 3, 2), ConvNorm(widths[0] // 2, widths[0], 3, 2))
        stages, inputs = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.Sequential()
            for place in range(count):
                stage.append(Block(inputs, width, 2 if number and not place else 1))
                inputs = width
            stages.append(stage)
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C, H, W]` -> a map of each stage."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Neck(nn.Module):
    """What the coarse maps know is added to the finer ones, and back."""

    def __init__(self, inputs: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(channels, width, 1) for channels in inputs)
        self.down = nn.ModuleList(ConvNorm(width, width, 3) for _ in inputs[1:])
        self.shrink = nn.ModuleList(ConvNorm(width, width, 3, 2) for _ in inputs[1:])
        self.up = nn.ModuleList(ConvNorm(width, width, 3) for _ in inputs[1:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `inputs` channels -> as many of `width`."""
        found = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for place in range(len(found) - 2, -1, -1):
            coarse = F.interpolate(found[place + 1], scale_factor=2.0, mode="nearest")
            found[place] = self.down[place](found[place] + coarse)
        for place in range(1, len(found)):
            found[place] = self.up[place - 1](found[place] + self.shrink[place - 1](found[place - 1]))
        return found


class Prototypes(nn.Module):
    """Maps at a CELL, of the finest stage and of what the neck knows."""

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.lateral = ConvNorm(inputs, width, 1)
        self.convs = nn.Sequential(ConvNorm(width, width // 2, 3), ConvNorm(width // 2, width // 2, 3))
        self.last = nn.Conv2d(width // 2, count, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """`[B, inputs, h, w]` and `[B, width, h / 2, w / 2]` -> `[B, count, h, w]`."""
        found: Tensor = self.last(self.convs(self.lateral(fine) + F.interpolate(coarse, scale_factor=2.0, mode="bilinear")))
        return found


class Head(nn.Module):
    """Convolutions that all maps share, with statistics of each; classes and sides part before them. weights: C, or 0."""

    def __init__(self, width: int, classes: int, weights: int, depth: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.ModuleList(conv(width, width, 3) for _ in range(depth)) for _ in range(2))
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)) for _ in range(2)) for _ in STRIDES
        )
        self.classes = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4 * STEPS, 1)
        self.weights = nn.Conv2d(width, weights, 1) if weights else None

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits of classes `[B, P, K]` and of sides `[B, P, 4, STEPS]`, weights of masks `[B, P, C]`."""
        logits, sides, weights = [], [], []
        for x, norms in zip(maps, self.norms, strict=True):
            towers = []
            for convs, own in zip(self.convs, norms, strict=True):  # type: ignore[call-overload]
                y = x
                for layer, norm in zip(convs, own, strict=True):
                    y = F.silu(norm(layer(y)), inplace=True)
                towers.append(y)
            logits.append(self.classes(towers[0]).flatten(2))
            sides.append(self.sides(towers[1]).flatten(2))
            if self.weights is not None:
                weights.append(self.weights(towers[1]).flatten(2))
        of_masks = torch.cat(weights, 2).transpose(1, 2) if weights else None
        return torch.cat(logits, 2).transpose(1, 2), torch.cat(sides, 2).transpose(1, 2).unflatten(2, (4, STEPS)), of_masks


class OneStage(nn.Module):
    """uint8 `[B, C, H, W]` -> float32 `[B, P, 4 + K]`: boxes x1, y1, x2, y2 in pixels of the input, then logits of the classes. With
    prototypes -> `[B, P, 4 + K + C]`, weights of masks after them, and the prototypes `[B, C - CONIC, H / CELL, W / CELL]`.

    Args:
        spec: the input.
        classes: K.
        widths, blocks: channels and residual blocks of the stages at a 4th, 8th, 16th and 32nd of the input.
        head: channels of neck and head.
        prototypes: of masks; 0: boxes only.
    """

    def __init__(
        self, spec: InputSpec, classes: int, widths: tuple[int, ...], blocks: tuple[int, ...], head: int, *, prototypes: int = 0
    ) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.backbone = Backbone(spec.channels, widths, blocks)
        self.neck = Neck(widths[1:], head)
        self.head = Head(head, classes, CONIC + prototypes if prototypes else 0)
        self.prototypes = Prototypes(widths[0], head, prototypes) if prototypes else None
        self.pixels: Prototypes | None = None
        if not self.head.classes.weight.is_meta:
            self._start()

    def _start(self) -> None:
        """Fresh weights: of every class the same small probability, of every mask the ellipse in its box."""
        reset(self)
        last = [(self.head.classes, -math.log(1 / PRIOR - 1)), (self.head.sides, 0.0)]
        if self.head.weights is not None and self.prototypes is not None:
            last += [(self.head.weights, 0.0), (self.prototypes.last, 0.0)]
        for layer, bias in last:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]
        if self.head.weights is not None and self.prototypes is not None:
            nn.init.kaiming_normal_(self.prototypes.last.weight)
            self.head.weights.bias.data[:CONIC] = torch.tensor(ELLIPSE)  # type: ignore[union-attr]

    @property
    def finest(self) -> nn.Module:
        """The module that gives the finest map of the neck."""
        return self.neck.down[0]

    def raw(self, images: Tensor) -> Raw:
        """What training reads, of uint8 `[B, C, H, W]`; sides that are no multiples of 32 are padded."""
        height, width = images.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            images = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=FILL)
        stages = self.backbone(self.normalize(images))
        maps = self.neck(stages[1:])
        logits, sides, weights = self.head(maps)
        points, strides = _places(maps)
        prototypes = self.prototypes(stages[0], maps[0]) if self.prototypes is not None else None
        pixels = self.pixels(stages[0], maps[0]) if self.pixels is not None else None
        return Raw(logits, sides, points, strides, weights, prototypes, pixels)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the class says."""
        raw = self.raw(images)
        if raw.weights is None or raw.prototypes is None:
            return torch.cat([raw.boxes(), raw.logits.float()], 2)
        maps = (raw.prototypes, raw.pixels) if raw.pixels is not None else (raw.prototypes,)
        return torch.cat([raw.boxes(), raw.logits.float(), raw.weights.float()], 2), *(one.float() for one in maps)


class WithPixels(OneStage):
    """With prototypes, and the class of each cell by a branch like theirs (Kirillov et al. 2019, "Panoptic feature pyramid networks",
    section 3.1): a third output, logits `[B, K, H / CELL, W / CELL]`."""

    def __init__(
        self, spec: InputSpec, classes: int, widths: tuple[int, ...], blocks: tuple[int, ...], head: int, *, prototypes: int
    ) -> None:
        super().__init__(spec, classes, widths, blocks, head, prototypes=prototypes)
        self.pixels = Prototypes(widths[0], head, classes)
        if not self.head.classes.weight.is_meta:
            reset(self.pixels)
            nn.init.normal_(self.pixels.last.weight, std=0.01)
            nn.init.zeros_(self.pixels.last.bias)  # type: ignore[arg-type]


def _places(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Points `[P, 2]`, the middles of the cells, and strides `[P]`."""
    points, strides = [], []
    for x, stride in zip(maps, STRIDES, strict=True):
        height, width = x.shape[2:]
        down = (torch.arange(height, device=x.device, dtype=torch.float32) + 0.5) * stride
        across = (torch.arange(width, device=x.device, dtype=torch.float32) + 0.5) * stride
        points.append(torch.stack([across.expand(height, width), down[:, None].expand(height, width)], 2).flatten(0, 1))
        strides.append(torch.full_like(points[-1][:, 0], float(stride)))
    return torch.cat(points), torch.cat(strides)
