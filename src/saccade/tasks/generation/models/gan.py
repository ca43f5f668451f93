"""Generative adversarial networks: a generator that makes images and a judge that tells them from real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.errors import UserError
from saccade.tasks.generation.models.base import Maker
from saccade.tasks.generation.models.blocks import (
    SLOPE,
    Closer,
    Downward,
    Finer,
    Start,
    Upward,
    cut,
    embedding,
    fitted,
    grid,
    leaky,
    padded,
)
from saccade.tasks.generation.policy import Adaptive


class Gan(Maker):
    """Two networks. generator: latents and labels -> images; judge: images and labels -> how real they look, `[B]`; adaptive: how
    strongly what the judge sees is changed at random."""

    def __init__(self, shape: tuple[int, int, int], latent: int, classes: int, generator: nn.Module, judge: nn.Module) -> None:
        super().__init__(shape, latent, classes)
        self.generator, self.judge, self.adaptive = generator, judge, Adaptive()

    def make(self, latents: Tensor, labels: Tensor | None, truncation: float = 1.0) -> Tensor:
        """See `Maker`."""
        images: Tensor = self.generator(latents, self.labelled(latents, labels))
        return images

    def run_through(self, latents: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images, and how real they look to the judge."""
        images = self.make(latents, labels)
        return images, self.judge(images, self.labelled(latents, labels))

    def grow(self) -> Mapping[str, Sequence[str]]:
        """Make images of twice the size, of the same pixels until the new stages have learned, which the judge sees by a new stage too
        (Karras et al. 2018, "Progressive growing of GANs"). Returns the names of the new stages, each with those of its tensors that must
        be 0 for that. Raises UserError for other networks than the residual ones."""
        generator, judge = self.generator, self.judge
        if not (isinstance(generator, Generator) and isinstance(judge, Judge)):
            raise UserError("only the networks of r3gan grow so far")
        generator.upward.grow()
        judge.downward.grow()
        self.shape = (self.shape[0], 2 * self.shape[1], 2 * self.shape[2])
        generator.size = self.size
        judge.size = (2 * judge.size[0], 2 * judge.size[1])
        new = len(judge.downward.finer) - 1
        return {f"generator.upward.finer.{new}": Finer.ZERO, f"judge.downward.finer.{new}": Closer.ZERO}


class Generator(nn.Module):
    """The residual generator: latents `[N, L]`, labels `[N]` or None -> images float `[N, C, H, W]` (not squashed)."""

    def __init__(self, shape: tuple[int, int, int], latent: int, classes: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.size = shape[1:]
        self.classes = embedding(classes, latent) if classes else None
        self.start = Start(latent * (2 if classes else 1), widths[0], grid(self.size, len(widths)))
        self.upward = Upward(widths, blocks, shape[0])

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """See the class."""
        if self.classes is not None:
            latents = torch.cat([latents, self.classes(labels)], 1)
        return cut(self.upward(self.start(latents)), self.size, 2 ** len(self.upward.finer))


class Judge(nn.Module):
    """The residual judge: images float `[B, C, H, W]`, labels `[B]` or None -> `[B]`.

    By class it is the projection of its features on a vector of each class (Miyato & Koyama 2018, "cGANs with projection discriminator").
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.size = fitted(shape[1:], len(widths))
        height, width = grid(shape[1:], len(widths))
        self.downward = Downward(shape[0], widths, blocks)
        # A filter over the whole grid for each channel, then a mixture of them: where things are counts.
        self.gather = nn.Conv2d(widths[-1], widths[-1], (height, width), groups=widths[-1], bias=False)
        self.features = nn.Linear(widths[-1], widths[-1])
        self.score = nn.Linear(widths[-1], 1)
        self.classes = embedding(classes, widths[-1]) if classes else None
        if not self.gather.weight.is_meta:
            nn.init.normal_(self.gather.weight, std=1 / math.sqrt(height * width))

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """See the class."""
        images = padded(images, self.size, 2 ** len(self.downward.finer))
        features = leaky(self.features(self.gather(leaky(self.downward(images))).flatten(1)))
        score: Tensor = self.score(features)[:, 0]
        if self.classes is not None:
            score = score + (features * self.classes(labels)).sum(1) / math.sqrt(features.shape[1])
        return score


def residual(shape: tuple[int, int, int], latent: int, classes: int, widths: Sequence[int], blocks: int) -> Gan:
    """The modern baseline; widths from the coarsest stage to the finest."""
    generator = Generator(shape, latent, classes, widths, blocks)
    return Gan(shape, latent, classes, generator, Judge(shape, classes, widths[::-1], blocks))


class PlainGenerator(nn.Module):
    """The generator of DCGAN (Radford et al. 2016, section 3): transposed convolutions, batch normalisation, ReLU, tanh."""

    def __init__(self, shape: tuple[int, int, int], latent: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.size = shape[1:]
        self.classes = embedding(classes, latent) if classes else None
        self.shape = (widths[0], *grid(self.size, len(widths)))
        self.start = nn.Linear(latent * (2 if classes else 1), math.prod(self.shape), bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for inputs, outputs in zip(widths, [*widths[1:], shape[0]], strict=True):
            last = outputs == shape[0] and len(layers) == 2 + 3 * (len(widths) - 1)
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=last))
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.apply(_as_published)

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """See the class."""
        if self.classes is not None:
            latents = torch.cat([latents, self.classes(labels)], 1)
        return cut(self.layers(self.start(latents).view(-1, *self.shape)), self.size)


class PlainJudge(nn.Module):
    """The discriminator of DCGAN: strided convolutions, batch normalisation but for the first, leaky ReLU."""

    def __init__(self, shape: tuple[int, int, int], classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.size = fitted(shape[1:], len(widths))
        layers: list[nn.Module] = []
        for place, (inputs, outputs) in enumerate(zip([shape[0], *widths], widths, strict=False)):
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not place))
            layers += [nn.BatchNorm2d(outputs)] if place else []
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(widths[-1] * math.prod(grid(shape[1:], len(widths))), 1)
        self.classes = embedding(classes, widths[-1]) if classes else None
        self.apply(_as_published)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """See `Judge`."""
        features = self.layers(padded(images, self.size))
        score: Tensor = self.score(features.flatten(1))[:, 0]
        if self.classes is not None:
            score = score + (F.adaptive_avg_pool2d(features, 1).flatten(1) * self.classes(labels)).sum(1)
        return score


def plain(shape: tuple[int, int, int], latent: int, classes: int, widths: Sequence[int], blocks: int) -> Gan:
    """DCGAN; widths from the coarsest stage to the finest, one layer a stage whatever `blocks` says."""
    generator = PlainGenerator(shape, latent, classes, widths)
    return Gan(shape, latent, classes, generator, PlainJudge(shape, classes, widths[::-1]))


class Patches(nn.Module):
    """A judge of patches (Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 3.2.2): images
    float `[B, C, H, W]` -> a score for each place `[B, h * w]`. Without normalisation: images are judged apart."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.size = fitted(shape[1:], len(widths))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise([shape[0], *widths]))
        self.score = nn.Conv2d(widths[-1], 1, 1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What each layer sees, `[B, widths[i], H / 2**(i + 1), W / 2**(i + 1)]`."""
        x, found = padded(images, self.size), []
        for layer in self.layers:
            x = leaky(layer(x))
            found.append(x)
        return found

    def scores(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps -> `[B, h * w]`."""
        found: Tensor = self.score(maps[-1]).flatten(1)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.scores(self.maps(images))


def _as_published(module: nn.Module) -> None:
    """Weights from a normal distribution of 0.02 (Radford et al. 2016, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d) and not module.weight.is_meta:
        nn.init.normal_(module.weight, 1.0, 0.02)
