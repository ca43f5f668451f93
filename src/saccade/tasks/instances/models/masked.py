"""Mask2Former and EoMT as networks that find objects and their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.geometry import CONIC
from saccade.core.nms import WAYS
from saccade.objects.loss import IGNORED
from saccade.queries import criterion, network
from saccade.queries.criterion import CELL, Goals
from saccade.queries.network import Queries
from saccade.task import Losses

if TYPE_CHECKING:
    from saccade.data.loader import Batch

FULL, HALF = 255.0, 128  # of a cell that is covered, and from which a crowd counts as there


class Masked(Queries):
    """uint8 `[B, C, H, W]` -> float32 `[B, Q, 4 + K + CONIC + Q]` and `[B, Q, h, w]`: boxes x1, y1, x2, y2 in pixels of the input, logits
    of the classes, and weights of masks, of which each query has its own: the logits at the cells of the input.

    How sure an object is, is how probable its class, by the mean probability of its mask's cells (Cheng et al. 2022, section 4.1,
    "post-processing"). Boxes are those about the masks, where these, linear between cells, are above 0.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        told = self.layers(images)[-1]
        masks = told.masks.float()
        inside = masks > 0
        sure = (masks.sigmoid() * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1)
        scores = told.classes.float().softmax(2)[..., :-1] * sure[..., None]
        own = torch.eye(masks.shape[1], device=masks.device).expand(masks.shape[0], -1, -1)
        conic = own.new_zeros(masks.shape[0], own.shape[1], CONIC)
        return torch.cat([_boxes(masks), scores.logit(1e-6), conic, own], 2), masks

    def losses(self, batch: Batch) -> Losses:
        """Of each object's mask; cells of crowds count in none."""
        goals = [_goals(masks, labels) for masks, labels in zip(batch.targets["masks"], batch.targets["labels"], strict=True)]
        return criterion.losses(self.layers(batch.images), goals)


def rebuild(card: Card, elements: int | None = None) -> Queries:
    """The module that a card describes, with fresh weights; raises UserError for one of more than `elements` numbers."""
    name = network.checked(card)
    known = card.architecture.get("nms") in (False, *WAYS) and card.architecture.get("boxes") == "masks"
    if card.input.resize != "fit" or not known:
        raise UserError("a network that finds objects by masks has boxes about them, and images that are fitted whole", where="card")
    return network.rebuild(Masked, card, name, elements)


def _goals(masks: Tensor, labels: Tensor) -> Goals:
    """Of the objects of an image, as `objects.augmentation.gathered` gives them: uint8 `[M, h, w]` and `[M]`."""
    real, crowd = (labels >= 0) & (masks > 0).any(2).any(1), labels == IGNORED
    counted = ~(masks[crowd] >= HALF).any(0)
    return Goals(masks[real].float() / FULL, labels[real], counted.float())


def _boxes(masks: Tensor) -> Tensor:
    """About masks `[B, Q, h, w]`, logits at the middles of cells: `[B, Q, 4]`; without any extent where a mask is empty."""
    edges = []
    for axis in (2, 3):  # over rows, then over columns: the sides that lie across the other
        highest = F.interpolate(masks.amax(axis), scale_factor=float(CELL), mode="linear", align_corners=False)
        places = torch.arange(highest.shape[2], device=masks.device, dtype=torch.float32)
        covered = highest > 0
        low = torch.where(covered, places, float("inf")).amin(2)
        high = torch.where(covered, places + 1, 0.0).amax(2)
        edges += [low.minimum(high), high]
    return torch.stack([edges[0], edges[2], edges[1], edges[3]], 2)
