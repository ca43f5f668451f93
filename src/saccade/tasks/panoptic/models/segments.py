"""Mask2Former and EoMT as networks that tell things and stuff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.queries import criterion, network
from saccade.queries.criterion import Goals
from saccade.queries.network import Queries
from saccade.task import Losses

if TYPE_CHECKING:
    from saccade.data.loader import Batch

FULL, HALF = 255.0, 128  # of a cell that is covered, and from which it counts


class Segments(Queries):
    """uint8 `[B, C, H, W]` -> float32 `[B, Q, K + 1]` and `[B, Q, h, w]`: logits of each query's classes, the last of which is nothing, and
    of its mask, at the cells of the input."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        told = self.layers(images)[-1]
        return told.classes.float(), told.masks.float()

    def losses(self, batch: Batch) -> Losses:
        """Of each segment's mask; cells that are mostly of none, or of a crowd, count in no mask."""
        goals = [_goals(masks, labels) for masks, labels in zip(batch.targets["masks"], batch.targets["labels"], strict=True)]
        return criterion.losses(self.layers(batch.images), goals)


def rebuild(card: Card, elements: int | None = None) -> Queries:
    """The module that a card describes, with fresh weights; raises UserError for one of more than `elements` numbers."""
    name = network.checked(card)
    if card.input.resize != "fit":
        raise UserError("a network that tells things and stuff has images that are fitted whole", where="card")
    return network.rebuild(Segments, card, name, elements)


def _goals(masks: Tensor, labels: Tensor) -> Goals:
    """Of the segments of an image, as `objects.augmentation.gathered` gives them: uint8 `[M, h, w]` and `[M]`, below 0 for crowds."""
    real = (labels >= 0) & (masks > 0).any(2).any(1)
    shown = masks[real].float()
    return Goals(shown / FULL, labels[real], (shown.sum(0) >= HALF).float())
