"""The room of classification: its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.results import Classification as Answer
from saccade.data.sample import Schema
from saccade.nn.pretrained import MEAN, STD
from saccade.task import Augment, Budget, Losses, Metric, ModelRow, Phase, refuse_changes
from saccade.tasks.classification import models, recipes
from saccade.tasks.classification.metrics import ClassificationMetric

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch
    from saccade.task import Outputs


CHANGES = ("flip", "crop", "shift", "scale", "rotate", "shear", "color", "hue", "grey", "erase", "mixup", "cutmix")


class Classification:
    """One label an image."""

    name = "classify"

    def resize(self, config: TrainConfig) -> str:
        """The middle of an image."""
        return "crop"

    def models(self) -> Sequence[ModelRow]:
        """Every classifier that can be built by name: our own, then timm's."""
        return models.rows()

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line."""
        return recipes.choose(schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError, naming the nearest, for a model that is not known."""
        models.find(config.model)
        refuse_changes(config.augment, CHANGES, "classify")

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it; raises UserError for a name that is not known."""
        from saccade.tasks.classification.models import classifier

        row = models.find(config.model)
        spec = self._input(row.source, config)
        if row.source == "saccade":
            if config.pretrained:
                fix = "take a model of timm, e.g. --model resnet18, or bring weights for it: --weights FILE"
                raise UserError(f"{row.name} has no published weights that are fetched", where="--pretrained", fix=fix)
            architecture = models.own(row.name, classes=len(schema.classes), channels=config.channels)
            card = Card(self.name, schema.classes, architecture, spec)
            return classifier.rebuild(card), card
        if row.source == "transformers":
            return self._of_transformers(config, schema, spec)
        from saccade.nn import backbones, pretrained

        licenses: tuple[dict[str, str], ...] = ()
        file = None
        if config.pretrained:
            told, file = pretrained.weights(config.model), pretrained.fetch(config.model)
            licenses = (told.link(config.model, file),)
        network, architecture = backbones.classifier(
            config.model, classes=len(schema.classes), channels=config.channels, size=config.size, pretrained=file or False
        )
        return classifier.Classifier(network, spec), Card(self.name, schema.classes, architecture, spec, licenses=licenses)

    def _of_transformers(self, config: TrainConfig, schema: Schema, spec: InputSpec) -> tuple[nn.Module, Card]:
        from saccade.nn import fitting
        from saccade.tasks.classification.models import classifier, hf

        architecture = hf.described(config.model, classes=len(schema.classes), channels=config.channels, size=config.size)
        card = Card(self.name, schema.classes, architecture, spec)
        if not config.pretrained:
            return classifier.rebuild(card), card
        network, link, seen = hf.start_from_published(config.model, architecture)
        mean = fitting.spread(seen.mean, config.channels, fitting.OPAQUE)
        spec = replace(spec, mean=mean, std=fitting.spread(seen.std, config.channels, fitting.ALPHA_STD))
        return classifier.Classifier(network, spec), replace(card, input=spec, licenses=(link,))

    def _input(self, source: str, config: TrainConfig) -> InputSpec:
        """What weights that have learned expect, where they come from a library's network; else ImageNet's colours."""
        from saccade.nn import fitting, pretrained

        learned = (config.pretrained or config.weights) and source in ("timm", "torchvision")
        mean, std = pretrained.colours(config.model) if learned else (MEAN, STD)
        mean, std = fitting.spread(mean, config.channels, fitting.OPAQUE), fitting.spread(std, config.channels, fitting.ALPHA_STD)
        return InputSpec(config.channels, config.size, "crop", mean, std)

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        from saccade.tasks.classification.models import classifier

        return classifier.rebuild(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """Random changes to the training images."""
        from saccade.tasks.classification.augmentation import ClassificationAugment

        return ClassificationAugment(config)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase: the whole network on cross-entropy, that of its exits too."""
        from saccade.nn.layers.exits import heard
        from saccade.tasks.classification.loss import cross_entropy, with_exits

        def loss(batch: Batch, step: int) -> Losses:
            logits, exits = heard(model, batch.images)
            last = cross_entropy(logits, batch, config.label_smoothing)
            early = [(exit.weight, cross_entropy(told, batch, config.label_smoothing)) for exit, told in exits]
            return with_exits(last, early) if early else last

        return [Phase("train", [model], loss)]

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> dict[str, Tensor]:
        """Logits `[B, K]` -> {"probabilities": `[B, K]`}; of a network with exits as `decode.decode` says."""
        from saccade.tasks.classification.decode import decode

        return decode(outputs)

    def metrics(self, card: Card) -> Metric:
        """accuracy, top5_accuracy, f1_macro, ece, nll."""
        return ClassificationMetric(card.classes)

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Nothing: a classifier that learns badly does not fail for good."""
        return ""

    def features(self, model: nn.Module) -> nn.Module:
        """The last module whose output `[B, F, h, w]` still has places."""
        from saccade.nn import backbones
        from saccade.tasks.classification.models.small import SmallResNet

        network: Any = model.network
        return network.features[-1] if isinstance(network, SmallResNet) else backbones.feature_layer(network)

    def score(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Logits `[B, K]`, class indices `[B]` -> the logit of each, `[B]`."""
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return logits.gather(1, targets[:, None])[:, 0]

    def draw(self, image: NDArray[np.uint8], result: Answer, truth: int | None = None) -> Image:
        """The image uint8 `[H, W, C]` with a line below that says what it was taken for."""
        from saccade.tasks.classification.drawing import caption

        return caption(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.classification.example import example

        return example(n, generator)
