"""The autoencoders of diffusers under this room's bounds: AutoencoderKL (Rombach et al. 2022, "High-resolution image synthesis with latent
diffusion models") and VQModel (Esser et al. 2021, "Taming transformers for high-resolution image synthesis").

`network` is diffusers' own model: `network.save_pretrained(folder)` writes what its pipelines read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.tasks.generation import likelihood
from saccade.tasks.generation.models import find_diffusers
from saccade.tasks.generation.models.base import to_float
from saccade.tasks.generation.models.blocks import cut, fitted, grid, padded
from saccade.tasks.generation.models.gan import Patches
from saccade.tasks.generation.models.vae import VARIANCES, Distribution, Variational
from saccade.tasks.generation.models.vqvae import Codebook, Quantised

GROUPS = 32  # of group normalisation, at most


class OneWidth(Distribution):
    """A normal distribution about the decoder's image, of one learned width for all pixels (Rybkin et al. 2021, "Simple and effective VAE
    training with calibrated decoders")."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-2.0))

    def nats(self, images: Tensor, raw: Tensor) -> Tensor:
        """See `Distribution`."""
        return likelihood.discretized_gaussian(images, raw, self.log_scale)

    def mean(self, raw: Tensor) -> Tensor:
        """See `Distribution`."""
        return raw.float().clamp(-1, 1)


class AutoencoderKl(Variational):
    """widths: from coarse to fine, each stage half as fine as the next; channels: latent numbers of each cell of the coarse grid.

    judge: the judge of patches that it learns from, used only in training."""

    def __init__(self, shape: tuple[int, int, int], classes: int, widths: Sequence[int], blocks: int, channels: int) -> None:
        if classes:
            raise ValueError("an autoencoder_kl makes no images by class")
        self.coarse = (channels, *_grid(shape, widths))
        super().__init__(shape, math.prod(self.coarse), classes)
        self.fitted = fitted(self.size, len(widths) - 1)
        self.pixels = OneWidth()
        self.network = _borrowed("AutoencoderKL")(**_settings(shape[0], widths, blocks), latent_channels=channels)
        self.judge = Patches(shape, widths[::-1])

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Likely`."""
        posterior = self.network.encode(padded(to_float(images), self.fitted)).latent_dist
        return posterior.mean.float().flatten(1), posterior.logvar.float().flatten(1).clamp(*VARIANCES)

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """See `Variational`."""
        return cut(self.network.decode(latents.view(-1, *self.coarse)).sample, self.size)


class VqModel(Quantised):
    """As `AutoencoderKl`, of `codes` vectors of `channels` numbers. The vectors follow by moving averages, as those of `VqVae`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: Sequence[int],
        blocks: int,
        channels: int,
        codes: int,  # the seventh
    ) -> None:
        super().__init__(shape, classes, _grid(shape, widths), codes)
        self.fitted = fitted(self.size, len(widths) - 1)
        self.pixels = OneWidth()
        settings = _settings(shape[0], widths, blocks)
        self.network = _borrowed("VQModel")(**settings, latent_channels=channels, vq_embed_dim=channels, num_vq_embeddings=codes)
        self.network.quantize.embedding = Codebook(codes, channels)
        self.judge = Patches(shape, widths[::-1])

    @property
    def codebook(self) -> Codebook:
        """See `Quantised`."""
        return self.network.quantize.embedding

    def autoencoder(self) -> Sequence[nn.Module]:
        """See `Quantised`."""
        return [self.network, self.pixels]

    def outputs(self, images: Tensor) -> Tensor:
        """See `Quantised`."""
        return self.network.encode(padded(to_float(images), self.fitted)).latents.float().permute(0, 2, 3, 1)

    def decode(self, vectors: Tensor) -> Tensor:
        """See `Quantised`."""
        return cut(self.network.decode(vectors.permute(0, 3, 1, 2), force_not_quantize=True).sample, self.size)


def _grid(shape: tuple[int, int, int], widths: Sequence[int]) -> tuple[int, int]:
    """(height, width) of the latents: halved between stages."""
    if len(widths) < 2:
        raise ValueError("an autoencoder needs two stages or more")
    return grid(shape[1:], len(widths) - 1)


def _settings(channels: int, widths: Sequence[int], blocks: int) -> dict[str, Any]:
    """What the constructors of both take; their widths go from fine to coarse."""
    stages = len(widths)
    return {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * stages,
        "up_block_types": ("UpDecoderBlock2D",) * stages,
        "block_out_channels": tuple(widths[::-1]),
        "layers_per_block": blocks,
        "norm_num_groups": math.gcd(GROUPS, *widths),
        "scaling_factor": 1.0,  # of latents for those who learn on them: these are about standard normal already
    }


def _borrowed(name: str) -> Any:
    find_diffusers(name)
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vq_model import VQModel

    return {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}[name]
