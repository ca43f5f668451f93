"""The room of panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.panoptic import Panoptic as Answer
from saccade.data.sample import Schema
from saccade.objects.room import Room
from saccade.queries import rows
from saccade.task import Losses, Metric, ModelRow, Phase, counted
from saccade.tasks.panoptic import models
from saccade.tasks.panoptic.metrics import PanopticMetric
from saccade.tasks.panoptic.models import OWN, QUERIES, THEIRS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch


class Panoptic(Room):
    """Every pixel in one segment: a thing, of which there may be many, or all there is of a stuff."""

    name = "panoptic"
    own = OWN
    theirs = THEIRS
    default = "small_panoptic"

    def models(self) -> Sequence[ModelRow]:
        """Ours, and those of transformers whose queries answer with masks."""
        return counted([*super().models(), *rows.listed(self.name)], models.__name__)

    def check(self, config: TrainConfig) -> None:
        """As the others do, and for published weights that not everybody may use."""
        super().check(config)
        if config.objects.nms:
            raise UserError("is for detect and instances: segments lie over none", where="objects.nms", fix="leave it out")
        if config.pretrained and config.model in QUERIES:
            rows.check_license(self.name, config.model, config.license)

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it."""
        network: Any
        network, card = super().create(config, schema)
        if not (config.pretrained and config.model in QUERIES):
            return network, card
        from saccade.queries.network import start_from_published

        return network, replace(card, licenses=start_from_published(network, self.name, config.model))

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        if card.architecture.get("source") == "transformers":
            from saccade.tasks.panoptic.models.segments import rebuild

            return rebuild(card, elements)
        return super().build(card, elements)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase, by which the attention of EoMT may change as the run goes on."""
        from saccade.queries.network import paced

        return paced(super().phases(model, config), model, config)

    def decode(self, outputs: Any, size: tuple[int, int]) -> dict[str, Tensor]:
        """Outputs -> {"classes", "masks"} of the queries, or what those of instances are decoded to and "pixels"."""
        from saccade.tasks.panoptic.decode import decode

        return decode(outputs)

    def metrics(self, card: Card) -> Metric:
        """pq, sq, rq, pq_things, pq_stuff."""
        return PanopticMetric(card)

    def score(self, outputs: Any, targets: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Class indices `[B]` -> of our network the mean logit of each over its region, as in `segment`; of queries how sure the surest one
        of each is: the logarithm of how probable its class, by the mean probability of its mask where that covers anything: `[B]`."""
        from saccade.nn import regions

        if len(outputs) == 3:
            return regions.score(outputs[2], targets)
        classes, masks = outputs
        found = classes.log_softmax(2).gather(2, targets[:, None, None].expand(-1, classes.shape[1], 1))[..., 0]
        surest, place = found.max(1)
        mask = masks.gather(1, place[:, None, None, None].expand(-1, 1, *masks.shape[2:]))[:, 0]
        told: Tensor = surest + regions.mean(mask.sigmoid(), mask > 0).log()
        return told

    def draw(self, image: NDArray[np.uint8], result: Answer, truth: Any | None = None) -> Image:  # type: ignore[override]
        """The image uint8 `[H, W, C]` with its segments over it, the edges of the true ones in white."""
        from saccade.tasks.panoptic.drawing import drawn

        return drawn(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.tasks.panoptic.example import example

        return example(n, generator)

    def _losses(self, network: Any, batch: Batch, config: TrainConfig) -> Losses:
        from saccade.objects.one_stage import OneStage
        from saccade.tasks.panoptic.loss import losses

        if isinstance(network, OneStage):
            return losses(network.raw(batch.images), batch, config.objects.stuff)
        found: Losses = network.losses(batch)
        return found

    def _known(self, name: str) -> None:
        if name in QUERIES:
            return rows.check(name)
        super()._known(name)

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        return rows.architecture(name, classes, channels) if name in QUERIES else super()._architecture(name, classes, channels)
