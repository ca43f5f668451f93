"""The room of detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.objects.room import Room
from saccade.task import Losses, ModelRow
from saccade.tasks.detection import models

if TYPE_CHECKING:
    from torch import nn

    from saccade.data.loader import Batch


class Detection(Room):
    """Objects of any number in boxes."""

    name = "detect"
    own = models.OWN
    default = "small_detector"

    def models(self) -> Sequence[ModelRow]:
        """Ours and torchvision's; the latter's heads on any network: HEAD/NETWORK."""
        return models.rows()

    def check(self, config: TrainConfig) -> None:
        """As of all rooms of objects; torchvision's published weights cannot be had yet."""
        super().check(config)
        if config.pretrained and config.model not in self.own:
            raise UserError("published weights of torchvision's detectors are not loaded yet", where="--pretrained", fix="leave it out")

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        if card.architecture.get("source") != "torchvision":
            return super().build(card, elements)
        from saccade.tasks.detection.models import library

        return library.rebuild(card, elements)

    def _known(self, name: str) -> None:
        if name not in self.own:
            models.check(name)

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        if name in self.own:
            return super()._architecture(name, classes, channels)
        return {"source": "torchvision", "name": name, "arguments": {"classes": classes, "channels": channels}}

    def _losses(self, network: Any, batch: Batch) -> Losses:
        from saccade.tasks.detection.models.library import Library

        return network.losses(batch) if isinstance(network, Library) else super()._losses(network, batch)
