"""The room of detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
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
        """Ours, torchvision's, whose heads stand on any network (HEAD/NETWORK), and transformers'."""
        return models.rows()

    def check(self, config: TrainConfig) -> None:
        """As of all rooms of objects; torchvision's published weights cannot be had yet."""
        super().check(config)
        if config.pretrained and config.model not in (*self.own, *models.detr_rows.ROWS):
            raise UserError("published weights of torchvision's detectors are not loaded yet", where="--pretrained", fix="leave it out")

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it."""
        network: Any
        network, card = super().create(config, schema)
        if not (config.pretrained and config.model in models.detr_rows.ROWS):
            return network, card
        from saccade.tasks.detection.models import detr

        return network, replace(card, licenses=(detr.start_from_published(network, config.model),))

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        if card.architecture.get("source") == "torchvision":
            from saccade.tasks.detection.models import library

            return library.rebuild(card, elements)
        if card.architecture.get("source") == "transformers":
            from saccade.tasks.detection.models import detr

            return detr.rebuild(card, elements)
        return super().build(card, elements)

    def _known(self, name: str) -> None:
        if name not in self.own:
            models.check(name)

    def _colours(self, config: TrainConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Published weights of transformers' detectors have seen values in 0..1 as they are."""
        return ((0.0,) * config.channels, (1.0,) * config.channels) if config.model in models.detr_rows.ROWS else super()._colours(config)

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        if name in self.own:
            return super()._architecture(name, classes, channels)
        return models.architecture(name, classes, channels)

    def _losses(self, network: Any, batch: Batch) -> Losses:
        from saccade.objects.one_stage import OneStage

        return super()._losses(network, batch) if isinstance(network, OneStage) else network.losses(batch)  # libraries have their own
