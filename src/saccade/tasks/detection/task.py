"""The room of detection: its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.results import Detections
from saccade.data.sample import Schema
from saccade.task import Augment, Budget, Losses, Metric, ModelRow, Phase, refuse_changes
from saccade.tasks.detection import models, recipes
from saccade.tasks.detection.metrics import DetectionMetric

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision and timm state them
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # their averages
CHANGES = ("flip", "color", "hue", "grey", "resize", "mosaic")


class Detection:
    """Objects of any number in boxes."""

    name = "detect"
    resize = "fit"

    def models(self) -> Sequence[ModelRow]:
        """Every detector that can be built by name."""
        return models.rows()

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line."""
        return recipes.choose(schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError, naming the nearest, for a model that is not known, and for what no detector does."""
        row = models.find(config.model)
        refuse_changes(config.augment, CHANGES, "detect")
        if config.channels == 4:
            raise UserError("detectors take 1 or 3 channels, got 4", where="channels", fix="transparent pixels are laid over white")
        if config.pretrained:
            raise UserError(f"{row.name} has no published weights", where="--pretrained", fix="leave it out")
        if config.label_smoothing:
            raise UserError("is for classify: the goals of detect are soft already", where="label_smoothing", fix="leave it out")

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it."""
        from saccade.tasks.detection.models import building

        models.find(config.model)
        spec = InputSpec(config.channels, config.size, self.resize, *((MEAN, STD) if config.channels == 3 else (GREY_MEAN, GREY_STD)))
        architecture = models.own(config.model, classes=len(schema.classes), channels=config.channels)
        card = Card(self.name, schema.classes, architecture, spec)
        return building.rebuild(card), card

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        from saccade.tasks.detection.models import building

        return building.rebuild(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """Random changes to the training images and their boxes."""
        from saccade.tasks.detection.augmentation import DetectionAugment

        return DetectionAugment(config)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase: the whole network on classes, boxes and sides."""
        from saccade.tasks.detection.loss import losses

        network: Any = model

        def loss(batch: Batch, step: int) -> Losses:
            return losses(network.raw(batch.images), batch)

        return [Phase("train", [model], loss)]

    def decode(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Outputs `[B, P, 4 + K]` -> {"boxes", "scores", "labels"} of the best places."""
        from saccade.tasks.detection.decode import decode

        return decode(outputs)

    def metrics(self, card: Card) -> Metric:
        """COCO's figures, and others from the model's threshold on."""
        return DetectionMetric(card.classes, card.metrics.get("threshold"))

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Nothing: a detector that learns badly does not fail for good."""
        return ""

    def features(self, model: nn.Module) -> nn.Module:
        """The finest map of the neck, `[B, F, h, w]`."""
        network: Any = model
        found: nn.Module = network.neck.down[0]
        return found

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs `[B, P, 4 + K]`, class indices `[B]` -> the logit of the surest place for each, `[B]`."""
        logits = outputs[..., 4:].gather(2, targets[:, None, None].expand(-1, outputs.shape[1], 1))[..., 0]
        return logits.amax(1)

    def draw(self, image: NDArray[np.uint8], result: Detections, truth: Any | None = None) -> Image:
        """The image uint8 `[H, W, C]` with the boxes that were found, over those that are there."""
        from saccade.tasks.detection.drawing import boxes

        return boxes(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.detection.example import example

        return example(n, generator)
