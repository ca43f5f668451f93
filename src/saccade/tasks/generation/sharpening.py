"""What a judge of patches adds to an autoencoder's loss: likelihoods alone leave reconstructions blurred."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.core.config import GenerationConfig
from saccade.data.loader import Batch
from saccade.task import Losses, Phase
from saccade.tasks.generation.adversarial import forge_loss, judge_loss, zero_centred_penalty
from saccade.tasks.generation.models.base import to_float
from saccade.tasks.generation.models.gan import Patches

TINY = 1e-10


def perceived(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of two maps `[B, C, h, w]` whose channels are scaled to length 1 at each place, its mean over places: `[B]`, 0..4
    (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", equation 1, with weights of 1)."""
    a, b = a.float(), b.float()
    a = a * (a.square().sum(1, keepdim=True) + TINY).rsqrt()
    b = b * (b.square().sum(1, keepdim=True) + TINY).rsqrt()
    return (a - b).square().sum(1).mean((1, 2))


class Sharpening:
    """The judge learns to tell images from their reconstructions; the autoencoder is to be taken for real by it, and to look alike on its
    layers, which learn what tells images apart and need no weights from elsewhere (Larsen et al. 2016, "Autoencoding beyond pixels using
    a learned similarity metric")."""

    def __init__(self, judge: Patches, settings: GenerationConfig) -> None:
        self.judge, self.settings = judge, settings

    def cost(self, images: Tensor, again: Tensor, step: int) -> Tensor:
        """What uint8 images and their reconstructions float `[B, C, H, W]` add to the autoencoder's loss: `[B]`."""
        settings = self.settings
        total = torch.zeros(len(again), device=again.device)
        real, made = self.judge.maps(to_float(images)), self.judge.maps(again)
        if settings.perceptual:
            total = total + settings.perceptual * sum(perceived(a.detach(), b) for a, b in zip(real, made, strict=True)) / len(real)
        if settings.adversarial and step >= settings.adversarial_after:
            of_real, of_made = self.judge.scores(real).detach(), self.judge.scores(made)
            total = total + settings.adversarial * forge_loss(settings.loss, of_real, of_made).mean(1)
        return total

    def phase(self, reconstruct: Callable[[Batch], Tensor]) -> Phase:
        """The judge's own; `reconstruct` is called without gradients."""
        settings = self.settings

        def loss(batch: Batch, step: int) -> Losses:
            with torch.no_grad():
                made = reconstruct(batch).float()
            real, of_made = to_float(batch.images), self.judge(made)
            penalty = torch.zeros(len(real), device=real.device)
            if settings.r1 and step % settings.penalty_every == 0:
                _, slopes = zero_centred_penalty(lambda images: self.judge(images).mean(1), real)
                penalty = settings.r1 / 2 * settings.penalty_every * slopes
            of_real = self.judge(real)
            total = judge_loss(settings.loss, of_real, of_made).mean(1) + penalty
            told = (of_real > of_made).float().mean(1)
            return Losses(total.sum(), float(len(real)), {"told_apart": told.sum(), "penalty": penalty.sum()})

        return Phase("judge", [self.judge], loss)
