"""One training step of each family, as phases of the common loop. All losses are sums over the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from saccade.core.config import GenerationConfig, TrainConfig
from saccade.data.loader import Batch
from saccade.task import Losses, Phase
from saccade.tasks.generation import likelihood, policy
from saccade.tasks.generation.adversarial import forge_loss, interpolated_penalty, judge_loss, zero_centred_penalty
from saccade.tasks.generation.models.base import Maker, to_float
from saccade.tasks.generation.models.gan import Gan
from saccade.tasks.generation.models.vae import Variational
from saccade.tasks.generation.models.vqvae import COMMITMENT, Quantised
from saccade.tasks.generation.sharpening import Sharpening


def phases(model: Maker, config: TrainConfig) -> Sequence[Phase]:
    """The phases of a model's family."""
    if isinstance(model, Gan):
        return _Adversaries(model, config.generation).phases()
    if isinstance(model, Quantised):
        return _quantised(model, config.generation)
    if isinstance(model, Variational):
        return _variational(model, config.generation)
    raise TypeError(f"{type(model).__name__} has no phases")


class _Adversaries:
    """The judge learns to tell real images from made ones, then the generator to be taken for real.

    The penalties of real and made images are r1/2 |grad|^2 and r2/2 |grad|^2 (Huang et al. 2024, equation 4), at each
    `penalty_every`-th step and as many times as strong (lazy regularisation, Karras et al. 2020, "StyleGAN2", section 3.1).
    """

    def __init__(self, model: Gan, settings: GenerationConfig) -> None:
        self.model, self.settings = model, settings
        self.changed = settings.adaptive or settings.augment > 0
        self.separate = any(isinstance(part, nn.BatchNorm2d) for part in model.judge.modules())

    def phases(self) -> list[Phase]:
        settle = self._settle if self.settings.adaptive else None
        return [
            Phase("judge", [self.model.judge], self.judge, after_step=settle),
            Phase("generator", [self.model.generator], self.forge),
        ]

    def judge(self, batch: Batch, step: int) -> Losses:
        """Noise row 0; draws 0 and 1 change real and made images."""
        settings, labels = self.settings, self._labels(batch)
        with torch.no_grad():
            made = self._seen(self.model.generator(batch.targets["noise"][:, 0], labels), batch, 1)
        real = self._seen(to_float(batch.images), batch, 0)

        due = step % settings.penalty_every == 0
        slopes = due and (settings.r1 > 0 or settings.r2 > 0)
        of_real, of_made, penalty = self._scores(real, made, labels, slopes=slopes)
        penalty = penalty * settings.penalty_every
        if due and settings.gradient_penalty:
            # torch's generator is seeded by the images' position before each pass.
            share = torch.rand(len(real), device=real.device)
            penalty = penalty + settings.gradient_penalty * settings.penalty_every * interpolated_penalty(
                partial(self._judge, labels=labels), real, made, share
            )
        if settings.adaptive:
            self.model.adaptive.note(of_real - of_made if settings.loss == "relativistic" else of_real)
        total = judge_loss(settings.loss, of_real.float(), of_made.float()).sum() + penalty.sum()
        parts = {"real": of_real.sum(), "made": of_made.sum(), "told_apart": (of_real > of_made).float().sum()}
        return Losses(total, float(len(real)), parts | {"penalty": penalty.sum()})

    def forge(self, batch: Batch, step: int) -> Losses:
        """Noise row 1; draws 2 change the made images, draws 0 the real ones that they are compared to."""
        labels = self._labels(batch)
        made = self._seen(self.model.generator(batch.targets["noise"][:, 1], labels), batch, 2)
        of_made = self.model.judge(made, labels).float()
        of_real = torch.zeros_like(of_made)
        if self.settings.loss == "relativistic":
            with torch.no_grad():
                of_real = self.model.judge(self._seen(to_float(batch.images), batch, 0), labels).float()
        return Losses(forge_loss(self.settings.loss, of_real, of_made).sum(), float(len(made)))

    def _scores(self, real: Tensor, made: Tensor, labels: Tensor | None, *, slopes: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of real and of made images and their penalty, `[B]` each; in passes of their own where a judge's batch statistics would
        mix them, in one otherwise."""
        parts = [(torch.cat([real, made]), None if labels is None else labels.repeat(2))]
        if self.separate:
            parts = [(real, labels), (made, labels)]
        scores, squares = [], []
        for images, of in parts:
            score, square = zero_centred_penalty(partial(self._judge, labels=of), images) if slopes else (self._judge(images, of), None)
            scores.append(score)
            squares.append(torch.zeros_like(score) if square is None else square)
        of_real, of_made = torch.cat(scores).chunk(2)
        slope_real, slope_made = torch.cat(squares).chunk(2)
        return of_real, of_made, (self.settings.r1 * slope_real + self.settings.r2 * slope_made) / 2

    def _judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        scores: Tensor = self.model.judge(images, labels)
        return scores

    def _seen(self, images: Tensor, batch: Batch, row: int) -> Tensor:
        if not self.changed:
            return images
        return policy.augment(images, batch.targets["draws"][:, row], self.model.adaptive.probability)

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.targets["label"] if self.model.classes else None

    def _settle(self, step: int) -> None:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.model.adaptive.signs)
        self.model.adaptive.settle()


def _variational(model: Variational, settings: GenerationConfig) -> list[Phase]:
    """The negative evidence lower bound; beta (Higgins et al. 2017) rises at first (Bowman et al. 2016)."""
    warm_up, sharpening = settings.kl_warmup, _sharpening(model, settings)

    def terms(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return model.terms(batch.images, batch.targets["label"] if model.classes else None, batch.targets["noise"][:, 0])

    def loss(batch: Batch, step: int) -> Losses:
        nats, divergence, again = terms(batch)
        beta = settings.beta * (min(1.0, (step + 1) / warm_up) if warm_up else 1.0)
        cost = likelihood.free_bits(divergence, settings.free_bits) if settings.free_bits else divergence.sum(1)
        size = float(batch.images[0].numel())
        bits = likelihood.bits_per_dim(nats - divergence.sum(1), int(size))
        parts = {"bits_per_dim": bits.sum(), "divergence": divergence.sum()}
        # Divided by the numbers of an image, so that a rate suits images of any size.
        return _joined((beta * cost - nats) / size, parts, sharpening, (batch, again, step))

    if sharpening is None:
        return [Phase("train", [model], loss)]
    learning = [part for name, part in model.named_children() if name != "judge"]
    return [Phase("autoencoder", learning, loss), sharpening.phase(lambda batch: terms(batch)[2])]


def _quantised(model: Quantised, settings: GenerationConfig) -> list[Phase]:
    sharpening = _sharpening(model, settings)

    def autoencoder(batch: Batch, step: int) -> Losses:
        nats, commitment, again, codes = model.terms(batch.images)
        size = float(batch.images[0].numel())
        used = torch.bincount(codes.flatten(), minlength=len(model.codebook.weight)).gt(0).float().mean()
        parts = {"bits_per_dim_of_pixels": likelihood.bits_per_dim(nats, int(size)).sum(), "codes_used": used * len(nats)}
        return _joined((COMMITMENT * commitment - nats) / size, parts, sharpening, (batch, again, step))

    def prior(batch: Batch, step: int) -> Losses:
        with torch.no_grad():
            codes = model.codes(batch.images)
        nats = model.prior_nats(codes, batch.targets["label"] if model.classes else None)
        return Losses(-nats.sum() / codes[0].numel(), float(len(nats)))

    phases = [Phase("autoencoder", model.autoencoder(), autoencoder), Phase("prior", [model.prior], prior)]
    if sharpening is not None:
        phases.append(sharpening.phase(lambda batch: model.pixels.mean(model.decode(model.codebook(model.codes(batch.images))))))
    return phases


def _sharpening(model: Maker, settings: GenerationConfig) -> Sharpening | None:
    """None where nothing but the likelihood counts."""
    judge = getattr(model, "judge", None)
    return Sharpening(judge, settings) if judge is not None and (settings.perceptual or settings.adversarial) else None


def _joined(cost: Tensor, parts: dict[str, Tensor], sharpening: Sharpening | None, seen: tuple[Batch, Tensor, int]) -> Losses:
    """The loss of an autoencoder from its cost by image, with what the judge adds."""
    batch, again, step = seen
    if sharpening is not None:
        added = sharpening.cost(batch.images, again, step)
        cost, parts = cost + added, parts | {"sharpening": added.sum()}
    return Losses(cost.sum(), float(len(cost)), parts)
