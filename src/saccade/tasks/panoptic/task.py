"""The room of panoptic segmentation: its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError, unknown
from saccade.core.panoptic import Panoptic as Answer
from saccade.data.sample import Schema
from saccade.objects import recipes
from saccade.objects.room import GREY_MEAN, GREY_STD, MEAN, STD
from saccade.queries import rows
from saccade.task import Augment, Budget, Metric, ModelRow, Phase, refuse_bands, refuse_changes
from saccade.tasks.panoptic.metrics import PanopticMetric

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch
    from saccade.task import Outputs

DEFAULT = "small_panoptic"
CHANGES = ("flip", "color", "hue", "grey", "resize", "mosaic")


class Panoptic:
    """Every pixel in one segment: a thing, of which there may be many, or all there is of a stuff."""

    name = "panoptic"

    def resize(self, config: TrainConfig) -> str:
        """All of an image."""
        return "fit"

    def models(self) -> Sequence[ModelRow]:
        """Networks whose queries answer with masks: a small one, and those of transformers."""
        return rows.listed(self.name)

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line: that of objects."""
        return recipes.choose("panoptic", DEFAULT, schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError, naming the nearest, for a model that is not known, and for what is not done here."""
        self._known(config.model)
        refuse_changes(config.augment, CHANGES, self.name)
        refuse_bands(config.channels, (1, 3), self.name)
        if config.pretrained:
            rows.check_license(self.name, config.model, config.license)
        if config.label_smoothing:
            raise UserError("is for classify", where="label_smoothing", fix="leave it out")
        if config.objects.coarse:
            raise UserError("is for detect and instances", where="objects.coarse", fix="leave it out")

    def _known(self, name: str) -> None:
        if name not in rows.ROWS[self.name]:
            raise unknown("model", name, rows.ROWS[self.name], where="--model")
        rows.check(name)

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it."""
        self._known(config.model)
        colours = (MEAN, STD) if config.channels == 3 else (GREY_MEAN, GREY_STD)
        spec = InputSpec(config.channels, config.size, self.resize(config), *colours)
        architecture = rows.architecture(config.model, len(schema.classes), config.channels)
        card = Card(self.name, schema.classes, architecture, spec, ids=schema.ids, stuff=schema.stuff)
        network: Any = self.build(card)
        if config.pretrained:
            from saccade.queries.network import start_from_published

            card = replace(card, licenses=start_from_published(network, self.name, config.model))
        return network, card

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        from saccade.tasks.panoptic.models.segments import rebuild

        return rebuild(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """Random changes to the training images and their segments, which are objects with masks there."""
        from saccade.objects.augmentation import ObjectsAugment

        return ObjectsAugment(config)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase, by which the attention of EoMT may change as the run goes on."""
        from saccade.queries.network import paced

        network: Any = model
        return paced([Phase("train", [model], lambda batch, step: network.losses(batch))], model, config)

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> dict[str, Tensor]:
        """Outputs -> {"classes", "masks"} of the queries."""
        from saccade.tasks.panoptic.decode import decode

        return decode(outputs)  # type: ignore[arg-type]

    def metrics(self, card: Card) -> Metric:
        """pq, sq, rq, pq_things, pq_stuff."""
        return PanopticMetric(card)

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Nothing: a network that segments badly does not fail for good."""
        return ""

    def features(self, model: nn.Module) -> nn.Module:
        """What gives the finest map, `[B, F, h, w]`."""
        network: Any = model
        found: nn.Module = network.finest
        return found

    def score(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Class indices `[B]` -> how sure the surest query of each is, `[B]`: the logarithm of how probable its class, by the mean
        probability of its mask where that covers anything."""
        classes, masks = outputs
        found = classes.log_softmax(2).gather(2, targets[:, None, None].expand(-1, classes.shape[1], 1))[..., 0]
        surest, place = found.max(1)
        mask = masks.gather(1, place[:, None, None, None].expand(-1, 1, *masks.shape[2:]))[:, 0]
        region = (mask > 0).float()
        region = region.where(region.sum((1, 2), keepdim=True) > 0, 1.0)
        return surest + ((mask.sigmoid() * region).sum((1, 2)) / region.sum((1, 2))).log()

    def draw(self, image: NDArray[np.uint8], result: Answer, truth: Any | None = None) -> Image:
        """The image uint8 `[H, W, C]` with its segments over it, the edges of the true ones in white."""
        from saccade.tasks.panoptic.drawing import drawn

        return drawn(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.panoptic.example import example

        return example(n, generator)
