"""Mask2Former and EoMT as networks that segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.class_masks import IGNORED
from saccade.core.geometry import MULTIPLE
from saccade.queries import criterion
from saccade.queries.criterion import Goals
from saccade.queries.network import Queries
from saccade.task import Losses

if TYPE_CHECKING:
    from saccade.data.loader import Batch

LEAST = 1e-12  # a score below which there is no logarithm of it
AT_ONCE = 16  # queries whose masks are held at each pixel


class Semantic(Queries):
    """uint8 `[B, C, H, W]` -> float32 `[B, K, H, W]`, logarithms of the scores of each class: the sum over queries of how probable it is
    that a query is of it, by how probable that the pixel is in its mask (Cheng et al. 2021, "MaskFormer", section 3.4, "semantic
    inference")."""

    @property
    def seen(self) -> nn.Module:
        """The module whose map `[B, F, h, w]` explanation reads."""
        return self.finest

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        height, width = images.shape[2:]
        told = self.layers(images)[-1]
        shares = told.classes.float().softmax(2)[..., :-1]
        size = -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE
        scores = shares.new_zeros(1)
        for some, masks in zip(shares.split(AT_ONCE, 1), told.masks.float().split(AT_ONCE, 1), strict=True):
            inside = F.interpolate(masks, size=size, mode="bilinear", align_corners=False).sigmoid()
            scores = scores + torch.einsum("bqk,bqhw->bkhw", some, inside)
        return scores[..., :height, :width].clamp_min(LEAST).log()

    def losses(self, batch: Batch) -> Losses:
        """Of a mask for each class that an image has; pixels of IGNORED count in none."""
        classes = batch.targets["classes"]
        return criterion.losses(self.layers(batch.images), [_goals(one) for one in classes])


def _goals(classes: Tensor) -> Goals:
    """Of classes uint8 `[H, W]`."""
    labels = classes.unique()
    labels = labels[labels != IGNORED]
    masks = (classes == labels[:, None, None]).float()
    return Goals(masks, labels.long(), (classes != IGNORED).float())
