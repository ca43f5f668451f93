"""What our own network of things and stuff learns by: things as objects with masks, and beside them the class of each pixel (Kirillov et
al. 2019, "Panoptic feature pyramid networks", section 3.2, "joint training")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.data.loader import Batch
from saccade.objects import loss
from saccade.objects.one_stage import Raw
from saccade.task import Losses

PIXELS = 5.0  # weight of the classes of pixels, for each segment of their image: about what an object's places weigh
FULL, HALF = 255.0, 0.5  # of a cell that is covered, and from which it counts


def losses(raw: Raw, batch: Batch, stuff: Sequence[int]) -> Losses:
    """The loss of a batch as `objects.augmentation.gathered` gives it, with masks, whose labels in `stuff` are no things: that of objects,
    and as "pixels" cross-entropy. A sum over images."""
    if raw.pixels is None:
        raise ValueError("a network that tells no pixels cannot learn what is stuff")
    labels = batch.targets["labels"]
    things = labels.masked_fill(torch.isin(labels, torch.tensor(list(stuff), dtype=labels.dtype, device=labels.device)), loss.NONE)
    found = loss.losses(raw, replace(batch, targets={**batch.targets, "labels": things}))
    pixels = PIXELS * _pixels(raw.pixels.float(), batch.targets["masks"], labels)
    return Losses(found.total + pixels, found.weight, {**found.parts, "pixels": pixels})


def _pixels(logits: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """Of logits `[B, K, h, w]`, masks uint8 `[B, M, h, w]` and labels `[B, M]`: the mean over an image's cells of the cross-entropy with
    the shares that classes have in each, as often as it has segments, once at least, summed up. Cells that are mostly void, or of a crowd,
    do not count."""
    shares = torch.stack([_shares(*one, logits.shape[1]) for one in zip(masks, labels, strict=True)])
    covered = shares.sum(1)
    counted = (covered >= HALF).float()
    entropy = -(shares * logits.log_softmax(1)).sum(1) / covered.clamp_min(HALF)
    means = (entropy * counted).sum((1, 2)) / counted.sum((1, 2)).clamp_min(1)
    summed: Tensor = (means * (labels >= 0).sum(1).clamp_min(1)).sum()
    return summed


def _shares(masks: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Of each cell of an image, by class: masks uint8 `[M, h, w]` and labels `[M]` -> `[K, h, w]`. One image after the other, of those
    segments alone that count, as a thousand of each image of a batch at once would take gigabytes."""
    real = labels >= 0
    return torch.einsum("mk,mhw->khw", F.one_hot(labels[real], classes).float(), masks[real].float()) / FULL
