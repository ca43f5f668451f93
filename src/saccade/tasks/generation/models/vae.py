"""The variational autoencoder (Kingma & Welling 2014) with an exact likelihood of 8-bit pixels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saccade.tasks.generation import likelihood
from saccade.tasks.generation.models.base import Likely, to_float
from saccade.tasks.generation.models.blocks import Downward, Start, Upward, cut, embedding, fitted, grid, leaky, padded

COMPONENTS = 4  # logistics mixed for each pixel's distribution
VARIANCES = (-12.0, 8.0)  # between which the logarithm of a latent's variance is kept


class Distribution(nn.Module):
    """The distribution of an image's 8-bit values under a decoder's output."""

    @abstractmethod
    def nats(self, images: Tensor, raw: Tensor) -> Tensor:
        """log p of uint8 `[B, C, H, W]`: `[B]`."""

    @abstractmethod
    def mean(self, raw: Tensor) -> Tensor:
        """The expected image, float -1..1 `[B, C, H, W]`."""


class Pixels(Distribution):
    """A distribution whose shape the decoder gives for each value.

    kind: "logistic" (a mixture for each value), "gaussian" or "bernoulli"; `parameters_of` says how many numbers each value takes.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind, self.channels = kind, channels

    @property
    def outputs(self) -> int:
        """Channels that the decoder must give."""
        return self.channels * {"logistic": 3 * COMPONENTS, "gaussian": 2, "bernoulli": 1}[self.kind]

    def nats(self, images: Tensor, raw: Tensor) -> Tensor:
        """See `Distribution`."""
        if self.kind == "bernoulli":
            return likelihood.bernoulli(images, raw)
        if self.kind == "gaussian":
            means, scales = raw.chunk(2, 1)
            return likelihood.discretized_gaussian(images, means, scales - 2)
        return likelihood.discretized_logistic_mixture(images, *self._mixture(raw))

    def mean(self, raw: Tensor) -> Tensor:
        """See `Distribution`."""
        if self.kind == "bernoulli":
            return raw.float().sigmoid() * 2 - 1
        if self.kind == "gaussian":
            return raw.chunk(2, 1)[0].float().clamp(-1, 1)
        means, _, logits = self._mixture(raw)
        return (means.float().clamp(-1, 1) * logits.float().softmax(1)).sum(1)

    def _mixture(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, log scales and logits `[B, K, C, H, W]`; the components start spread over the range."""
        means, scales, logits = (part.unflatten(1, (COMPONENTS, self.channels)) for part in raw.chunk(3, 1))
        centres = torch.linspace(-1, 1, COMPONENTS, device=raw.device).view(-1, 1, 1, 1)
        return means + centres, scales - 2, logits


class Variational(Likely):
    """What every variational autoencoder does with its encoder, its decoder and its pixels' distribution."""

    pixels: Distribution

    @abstractmethod
    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """float `[B, latent]` -> the parameters of each pixel's distribution."""

    def make(self, latents: Tensor, labels: Tensor | None, truncation: float = 1.0) -> Tensor:
        """See `Maker`: the mean of each pixel's distribution."""
        return self.pixels.mean(self.decode(latents, self.labelled(latents, labels)))

    def run_through(self, latents: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """The parameters of each pixel's distribution; mean and log variance of the latents of an image that is always the same."""
        labels = self.labelled(latents, labels)
        pattern = torch.arange(math.prod(self.shape), device=latents.device).remainder(251).byte()
        return self.decode(latents, labels), *self.encode(pattern.view(1, *self.shape).expand(len(latents), -1, -1, -1), labels)

    def terms(self, images: Tensor, labels: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(log p of the pixels `[B]`, divergence by latent `[B, latent]`, the expected images float `[B, C, H, W]`) at a draw of the
        posterior by `noise`."""
        mean, variance = self.encode(images, labels)
        raw = self.decode(mean + (variance / 2).exp() * noise, labels)
        return self.pixels.nats(images, raw), likelihood.kl_to_standard(mean, variance), self.pixels.mean(raw)

    def bound(self, images: Tensor, labels: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See `Likely`; the reconstruction is that of the posterior's mean."""
        mean, variance = self.encode(images, labels)
        raw = self.decode(mean + (variance / 2).exp() * noise, labels)
        evidence = self.pixels.nats(images, raw) - likelihood.kl_to_standard(mean, variance).sum(1)
        return evidence, self.pixels.mean(self.decode(mean, labels))

    def weighted(self, images: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """The importance-weighted bound `[B]` of S draws of the posterior by `noise` `[S, B, latent]`: the mean of p(x, z) / q(z | x)
        (Burda et al. 2016, eq. 8)."""
        mean, variance = self.encode(images, labels)
        weights = []
        for row in noise:
            latents = mean + (variance / 2).exp() * row
            # The constants of prior and posterior are the same.
            ratio = 0.5 * (row.square() + variance - latents.square()).sum(1)
            weights.append(self.pixels.nats(images, self.decode(latents, labels)) + ratio)
        return likelihood.importance_bound(torch.stack(weights))


class Vae(Variational):
    """Encoder to a diagonal Gaussian over `latent` numbers, decoder to a distribution of each pixel. widths: from coarse to fine."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        classes: int,
        widths: Sequence[int],
        blocks: int,
        likelihood: str,  # the seventh: its name is the card's
    ) -> None:
        super().__init__(shape, latent, classes)
        coarse = grid(self.size, len(widths))
        self.fitted = fitted(self.size, len(widths))
        self.pixels = Pixels(likelihood, shape[0])
        self.downward = Downward(shape[0], widths[::-1], blocks)
        self.posterior = nn.Linear(widths[0] * math.prod(coarse) + (latent if classes else 0), 2 * latent)
        self.table = embedding(classes, latent) if classes else None
        self.start = Start(latent * (2 if classes else 1), widths[0], coarse)
        self.upward = Upward(widths, blocks, self.pixels.outputs)
        if not self.posterior.weight.is_meta:
            nn.init.normal_(self.posterior.weight, std=0.5 / math.sqrt(self.posterior.in_features))
            nn.init.zeros_(self.posterior.bias)

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Likely`."""
        features = leaky(self.downward(padded(to_float(images), self.fitted))).flatten(1)
        mean, variance = self.posterior(self._with_class(features, labels)).float().chunk(2, 1)
        return mean, variance.clamp(*VARIANCES)

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """See `Variational`."""
        return cut(self.upward(self.start(self._with_class(latents, labels))), self.size)

    def _with_class(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return x if self.table is None else torch.cat([x, self.table(labels)], 1)
