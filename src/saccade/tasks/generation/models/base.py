"""What every model of this room offers to those who sample from it, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError


class Maker(nn.Module, ABC):
    """A network that makes images from latents.

    shape: (channels, height, width) of its images; latent: numbers that each is made from, drawn from a standard normal
    distribution; classes: 0 where images are not made by class. `frequencies` [classes] are those of the training images: what
    classes are drawn by where none is asked for. Images inside are float, -1..1.
    """

    frequencies: Tensor
    tempered = False  # `make` itself sees to truncation

    def __init__(self, shape: tuple[int, int, int], latent: int, classes: int) -> None:
        super().__init__()
        self.shape, self.latent, self.classes = shape, latent, classes
        self.register_buffer("frequencies", torch.full((classes,), 1 / max(1, classes)))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.shape[1:]

    @abstractmethod
    def make(self, latents: Tensor, labels: Tensor | None, truncation: float = 1.0) -> Tensor:
        """float `[N, latent]`, int64 `[N]` (None without classes) -> images float `[N, C, H, W]` about -1..1.

        `truncation` below 1 gives likelier and less different images; latents of a normal distribution are shrunk by the caller."""

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `make`."""
        return self.make(latents, labels)

    def run_through(self, latents: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """As `make`, and then what all its other networks say of the images: so that each layer runs once. Raises UserError for a family
        of which this cannot be told."""
        raise UserError(f"{type(self).__name__} cannot be edited so far", fix="a GAN or a VAE can")

    def labelled(self, latents: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels, checked; None where images are not made by class."""
        if not self.classes:
            return None
        if labels is None or len(labels) != len(latents):
            raise UserError(f"images are made by class: {len(latents)} labels are needed", where="labels")
        return labels


class Likely(Maker):
    """A maker that can also take images up: it has an encoder and says how likely an image is."""

    @abstractmethod
    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """uint8 `[B, C, H, W]` -> mean and log variance of the latents, float `[B, latent]` each."""

    @abstractmethod
    def bound(self, images: Tensor, labels: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, C, H, W]`, normals `[B, latent]` -> (evidence lower bound in nats `[B]`, reconstruction float `[B, C, H, W]`)."""


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """float -1..1 -> uint8 0..255, rounded and clipped."""
    return ((images.float() + 1) * 127.5).round_().clamp_(0, 255).byte()
