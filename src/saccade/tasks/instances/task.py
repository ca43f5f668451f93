"""The room of instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.data.sample import Schema
from saccade.objects.room import Room
from saccade.queries import rows
from saccade.task import ModelRow, Phase, counted
from saccade.tasks.instances import models
from saccade.tasks.instances.models import OWN, QUERIES, THEIRS
from saccade.tasks.instances.models.detr_rows import ROWS

if TYPE_CHECKING:
    from torch import nn


class Instances(Room):
    """Objects of any number in boxes, each with its mask."""

    name = "instances"
    own = OWN
    theirs = THEIRS
    detrs = ROWS
    default = "small_instances"
    changes = (*Room.changes, "paste")

    def models(self) -> Sequence[ModelRow]:
        """Ours, torchvision's and transformers'."""
        return counted([*super().models(), *rows.listed(self.name)], models.__name__)

    def check(self, config: TrainConfig) -> None:
        """As the others do, and for published weights that not everybody may use."""
        super().check(config)
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
        if card.architecture.get("name") in QUERIES:
            from saccade.tasks.instances.models.masked import rebuild

            return rebuild(card, elements)
        return super().build(card, elements)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase, by which the attention of EoMT may change as the run goes on."""
        from saccade.queries.network import paced

        return paced(super().phases(model, config), model, config)

    def _known(self, name: str) -> None:
        if name in QUERIES:
            return rows.check(name)
        super()._known(name)

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        """Each object has a query of its own to answer for it, so that nothing is suppressed, and no other box than that of its mask."""
        if name in QUERIES:
            return rows.architecture(name, classes, channels) | {"nms": False, "boxes": "masks"}
        return super()._architecture(name, classes, channels)
