"""The room of segmentation: its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import layers
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import IGNORED
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.segmentation import Segmentation as Answer
from saccade.data.sample import Schema
from saccade.queries import rows as query_rows
from saccade.task import Augment, Budget, Losses, Metric, ModelRow, Phase, refuse_changes
from saccade.tasks.segmentation import models, recipes
from saccade.tasks.segmentation.layers import LayersMetric
from saccade.tasks.segmentation.metrics import SegmentationMetric

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision and timm state them
CHANGES = ("flip", "color", "hue", "grey", "resize", "mosaic", "paste")


def _check_queries(config: TrainConfig) -> None:
    """Raise UserError where what has a loss of its own is asked for another, or for classes that overlap."""
    for one in fields(config.segmentation):
        if one.name != "native" and getattr(config.segmentation, one.name) != one.default:
            problem = f"is nothing that {config.model} knows: it has a loss of its own, and a class for each pixel"
            raise UserError(problem, where=f"segmentation.{one.name}", fix="leave it out, or take another --model")


class Segmentation:
    """A class for each pixel."""

    name = "segment"

    def resize(self, config: TrainConfig) -> str:
        """All of an image, at its own pixels where the configuration says so."""
        return "native" if config.segmentation.native else "fit"

    def models(self) -> Sequence[ModelRow]:
        """Ours, torchvision's and transformers'; decoders on any network: DECODER/NETWORK."""
        return models.rows()

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line."""
        return recipes.choose(schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError, naming the nearest, for a model that is not known, and for what is not done here."""
        models.check(config.model)
        refuse_changes(config.augment, CHANGES, self.name)
        if config.channels not in (1, 3) and config.model not in models.OWN:
            fix = f"--model {next(iter(models.OWN))}, or save the bands that matter as such images"
            raise UserError(f"{config.model} takes grey or RGB images, got {config.channels} channels", where="channels", fix=fix)
        if config.pretrained and config.model in models.segformer_rows.ROWS:
            models.segformer_rows.check_license(config.model, config.license)
        elif config.pretrained and config.model in models.QUERIES:
            query_rows.check_license(self.name, config.model, config.license)
        elif config.pretrained and config.model not in models.TORCHVISION:
            fix = f"leave it out, or take one of {', '.join(models.TORCHVISION)}"
            raise UserError(f"no weights are published for {config.model}", where="--pretrained", fix=fix)
        if config.label_smoothing:
            raise UserError("is for classify", where="label_smoothing", fix="leave it out")
        loss = config.segmentation
        if not (loss.cross_entropy or loss.focal or loss.dice or loss.lovasz or loss.boundary):
            raise UserError("every part of the loss has weight 0", where="segmentation", fix="--set segmentation.cross_entropy=1")
        unfit = [name for name in ("focal", "lovasz", "boundary", "class_weights") if getattr(loss, name)]
        if loss.multi and unfit:
            raise UserError("is for classes that do not overlap", where=f"segmentation.{unfit[0]}", fix="leave it out")
        if config.model in models.QUERIES:
            _check_queries(config)

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it; raises UserError for weights that are not as many as the classes."""
        models.check(config.model)
        classes, weights, multi = schema.classes, config.segmentation.class_weights, config.segmentation.multi
        if multi != schema.multi:
            fix = f"--set segmentation.multi={str(schema.multi).lower()}, as the data have it"
            raise UserError("must say whether classes overlap", where="segmentation.multi", fix=fix)
        if multi:
            layers.check(classes, "classes")
        if len(classes) > IGNORED:
            raise UserError(f"must have at most {IGNORED} classes, was {len(classes)}")
        if weights and len(weights) != len(classes):
            raise UserError(f"must be a number for each of {len(classes)} classes, was {len(weights)}", where="segmentation.class_weights")
        from saccade.nn import fitting

        colours = fitting.spread(MEAN, config.channels, fitting.OPAQUE), fitting.spread(STD, config.channels, fitting.ALPHA_STD)
        spec = InputSpec(config.channels, config.size, self.resize(config), *colours)
        if config.model in models.OWN:
            architecture = models.OWN[config.model].architecture(config.model, classes=len(classes), channels=config.channels)
        elif config.model in models.QUERIES:
            architecture = query_rows.architecture(config.model, len(classes), config.channels)
        else:
            arguments = {"classes": len(classes), "channels": config.channels}
            architecture = {"source": "library", "name": config.model, "arguments": arguments}
        card = Card(self.name, classes, architecture | ({"multi": True} if multi else {}), spec)
        network: Any = self.build(card)
        if config.pretrained and config.model in models.TORCHVISION:
            from saccade.tasks.segmentation.models import library

            card = replace(card, licenses=(library.start_from_published(network, card),))
        if config.pretrained and config.model in models.segformer_rows.ROWS:
            from saccade.tasks.segmentation.models.segformer import start_from_published

            card = replace(card, licenses=(start_from_published(network, config.model),))
        if config.pretrained and config.model in models.QUERIES:
            from saccade.queries.network import start_from_published as fill

            card = replace(card, licenses=fill(network, self.name, config.model))
        return network, card

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        from saccade.tasks.segmentation.models.building import rebuild

        return rebuild(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """Random changes to the training images and their masks."""
        from saccade.tasks.segmentation.augmentation import ClassesAugment

        return ClassesAugment(config)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase: the whole network on the parts of the loss that the configuration weighs; Mask2Former and EoMT on their own."""
        from saccade.nn.coarse import Coarse
        from saccade.queries.network import paced
        from saccade.tasks.segmentation.coarse import halved
        from saccade.tasks.segmentation.loss import losses
        from saccade.tasks.segmentation.models.semantic import Semantic

        if isinstance(model, Semantic):
            return paced([Phase("train", [model], lambda batch, step: model.losses(batch))], model, config)
        coarse = Coarse(config.segmentation.coarse)

        def loss(batch: Batch, step: int) -> Losses:
            seen = halved(batch) if coarse.now else batch
            return losses(model(seen.images), seen, config.segmentation)

        return [Phase("train", [model], loss, pace=coarse.pace if coarse.share else None, steady=coarse.share)]

    def decode(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Logits `[B, K, H, W]` -> {"logits": the same}."""
        from saccade.tasks.segmentation.decode import decode

        return decode(outputs)

    def metrics(self, card: Card) -> Metric:
        """miou, dice, pixel_accuracy, boundary_f1, hausdorff_95."""
        return LayersMetric(card.classes) if layers.layered(card) else SegmentationMetric(card.classes)

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Nothing: a network that segments badly does not fail for good."""
        return ""

    def features(self, model: nn.Module) -> nn.Module:
        """A module of the way up, whose map is `[B, F, h, w]`."""
        network: Any = model
        found: nn.Module = network.seen
        return found

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits `[B, K, H, W]`, class indices `[B]` -> the mean logit of each over its region, the pixels told to be of it, or, where
        there are none, over the image, `[B]` (Vinogradova et al. 2020, "Seg-Grad-CAM", equation 1)."""
        from saccade.nn import regions

        return regions.score(outputs, targets)

    def draw(self, image: NDArray[np.uint8], result: Answer, truth: Any | None = None) -> Image:
        """The image uint8 `[H, W, C]` with the classes of its pixels over it, the edges of the truth in white."""
        from saccade.tasks.segmentation.drawing import drawn

        return drawn(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.segmentation.example import example

        return example(n, generator)
