"""The room of detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.data.sample import Schema
from saccade.objects.room import Room
from saccade.task import ModelRow
from saccade.tasks.detection import models

if TYPE_CHECKING:
    from torch import nn


class Detection(Room):
    """Objects of any number in boxes."""

    name = "detect"
    own = models.OWN
    theirs = models.THEIRS
    default = "small_detector"

    def models(self) -> Sequence[ModelRow]:
        """Ours, torchvision's and transformers'."""
        return [*super().models(), *models.queries()]

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
        if card.architecture.get("source") == "transformers":
            from saccade.tasks.detection.models import detr

            return detr.rebuild(card, elements)
        return super().build(card, elements)

    def _known(self, name: str) -> None:
        if name in models.detr_rows.ROWS:
            return models.detr_rows.check(name)
        super()._known(name)

    def _colours(self, config: TrainConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Published weights of transformers' detectors have seen values in 0..1 as they are."""
        return ((0.0,) * config.channels, (1.0,) * config.channels) if config.model in models.detr_rows.ROWS else super()._colours(config)

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        if name in models.detr_rows.ROWS:
            return models.architecture(name, classes, channels)
        return super()._architecture(name, classes, channels)
