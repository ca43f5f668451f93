"""The room of generation: its doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.task import Augment, Budget, Metric, ModelRow, Phase, Taken, refuse_bands, refuse_changes
from saccade.tasks.generation import latents as numbers
from saccade.tasks.generation import metrics as figures
from saccade.tasks.generation import models, recipes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.data.loader import Batch

Array = NDArray[Any]
SMALLEST = 8  # pixels of the shorter side
PART = 128  # images made at once


class Generation:
    """Images that look like those of a folder (`saccade.task.Making`)."""

    name = "generate"

    def resize(self, config: TrainConfig) -> str:
        """The middle of an image."""
        return "crop"

    def models(self) -> Sequence[ModelRow]:
        """Every model that can be built by name."""
        return models.rows()

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line."""
        return recipes.choose(schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError for a model that is not known, images too small for one, and settings that belong to another family."""
        family, settings = models.find(config.model), config.generation
        refuse_changes(config.augment, ("flip",), "generate")
        refuse_bands(config.channels, (1, 3, 4), "generate")
        if config.label_smoothing:
            raise UserError("is for classify", where="label_smoothing", fix="leave it out")
        models.refuse_settings(config.model, settings)
        if min(config.size) < SMALLEST:
            raise UserError(f"made images must be {SMALLEST} pixels or more a side, got {config.size[0]}x{config.size[1]}", where="--size")
        if config.pretrained:
            raise UserError(f"{config.model} has no published weights", where="--pretrained", fix="leave it out")
        if config.shard and family != "gan":
            raise UserError(f"the weights of {config.model} are not spread over processes so far", where="--shard", fix="leave it out")
        if family == "gan" and settings.gradient_penalty and settings.loss != "wasserstein":
            raise UserError("gradient_penalty belongs to loss wasserstein", where="generation.gradient_penalty", fix="use r1 and r2")
        if config.model in models.DIFFUSERS:
            models.find_diffusers(config.model)

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new model by its name, and the card that rebuilds it; raises UserError where there are no classes to make images by,."""
        import torch

        conditional = config.generation.conditional
        if conditional and len(schema.classes) < 2:
            raise UserError(
                "images have no classes to be made by", where="generation.conditional", fix="--set generation.conditional=false"
            )
        classes = len(schema.classes) if conditional else 0
        card = Card(self.name, schema.classes, models.architecture(config, classes), InputSpec(config.channels, config.size, "crop"))
        maker = models.build(card)
        if classes:
            counts = torch.tensor(schema.counts["train"], dtype=torch.float32)
            maker.frequencies.copy_(counts / counts.sum())
        if models.find(config.model) == "gan":
            maker.adaptive.probability.fill_(config.generation.augment)  # type: ignore[union-attr, operator]
        return maker, card

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        return models.build(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """The images as they are, mirrored where that is asked for, with the random numbers of their step."""
        from saccade.tasks.generation.augmentation import GenerationAugment

        family = models.find(config.model)
        policy = family == "gan" and (config.generation.adaptive or config.generation.augment > 0)
        return GenerationAugment(config, models.latent(config), 2 if family == "gan" else 1, policy=policy)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """A GAN has two, a VAE one, a VQ-VAE two: see `updates`."""
        from saccade.tasks.generation.updates import phases

        return phases(model, config)  # type: ignore[arg-type]

    def metrics(self, card: Card) -> Metric:
        """fid, kid, precision, recall, density and coverage on the features that the card names; bits per dimension, psnr, ssim."""
        family = models.find(str(card.architecture.get("name")))
        return figures.GenerationMetric(str(card.architecture.get("features", "")), likely=family != "gan")

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Collapse, divergence, a judge that is sure of everything."""
        return figures.fault(metrics, best)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.generation.example import example

        return example(n, generator)

    def latent(self, model: nn.Module) -> int:
        """Numbers that an image is made from."""
        return int(model.latent)  # type: ignore[arg-type]

    def frequencies(self, model: nn.Module) -> Array:
        """See `Making`."""
        values: Array = model.frequencies.double().cpu().numpy()  # type: ignore[operator]
        return values

    def sample(self, model: nn.Module, latents: Array, labels: Array | None, truncation: float = 1.0) -> Array:
        """See `Making`. A VQ-VAE's truncation is the temperature of its prior, others' the largest normal number."""
        from saccade.tasks.generation.models.base import to_bytes

        if truncation < 1 and not model.tempered:
            latents = numbers.truncate(latents, truncation * 2)
        made = []
        with _evaluating(model) as put:
            for start in range(0, len(latents), PART):
                part = slice(start, start + PART)
                of = None if labels is None else put(labels[part])
                images = model.make(put(latents[part]), of, truncation)  # type: ignore[operator]
                made.append(to_bytes(images).permute(0, 2, 3, 1).cpu().numpy())
        empty: Array = np.zeros((0, *model.size, model.shape[0]), np.uint8)  # type: ignore[misc, index]
        return np.concatenate(made) if made else empty

    def encodes(self, model: nn.Module) -> bool:
        """Whether the model has an encoder."""
        from saccade.tasks.generation.models.base import Likely

        return isinstance(model, Likely)

    def take(self, model: nn.Module, images: Array, labels: Array | None, noise: Array) -> Taken:
        """See `Making`; the importance-weighted bound needs two draws or more of a VAE's posterior."""
        from saccade.tasks.generation.models.base import to_bytes
        from saccade.tasks.generation.models.vae import Vae

        with _evaluating(model) as put:
            pixels, of = put(images), None if labels is None else put(labels)
            nats, reconstructions = model.bound(pixels, of, put(noise[0]))  # type: ignore[operator]
            weighted = None
            if isinstance(model, Vae) and len(noise) > 1:
                weighted = model.weighted(pixels, of, put(noise)).cpu().numpy()
            return Taken(nats.cpu().numpy(), weighted, to_bytes(reconstructions).permute(0, 2, 3, 1).cpu().numpy())

    def encode(self, model: nn.Module, images: Array, labels: Array | None) -> tuple[Array, Array]:
        """See `Making`."""
        with _evaluating(model) as put:
            mean, variance = model.encode(put(images), None if labels is None else put(labels))  # type: ignore[operator]
            return mean.cpu().numpy(), (variance / 2).exp().cpu().numpy()

    def judge(self, model: nn.Module, images: Array, labels: Array | None) -> Array | None:
        """See `Making`."""
        from saccade.tasks.generation.models.base import to_float
        from saccade.tasks.generation.models.gan import Gan

        if not isinstance(model, Gan):
            return None
        found = []
        with _evaluating(model) as put:
            for start in range(0, len(images), PART):
                of = None if labels is None else put(labels[start : start + PART])
                found.append(model.judge(to_float(put(images[start : start + PART])), of).float().cpu().numpy())
        return np.concatenate(found)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[Callable[[Array], Tensor]]:
    """The model in evaluation mode and without gradients; gives what brings arrays to its device."""
    import torch

    from saccade.nn.features import evaluating

    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        yield lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)
