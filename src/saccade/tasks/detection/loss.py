"""What the one-stage detector learns by, as sums: quality focal loss of the classes and distribution focal loss of the boxes' sides (Li
et al. 2020, "Generalized focal loss", equations 5 and 6), generalized IoU of the boxes (Rezatofighi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.data.loader import Batch
from saccade.task import Losses
from saccade.tasks.detection.assignment import assign, inside
from saccade.tasks.detection.models.one_stage import STEPS, Raw

FOCUS = 2.0
BOX, SIDES = 2.0, 0.25  # weights beside the classes', as in the paper
IGNORED = -2  # label of what need not be found
NONE = -1  # and of no object at all


def losses(raw: Raw, batch: Batch) -> Losses:
    """The loss of a batch whose targets are boxes `[B, M, 4]` in pixels of the input and labels int64 `[B, M]`.

    Its weight is the sum of the goals, and an image for each image, so that those without objects count.
    """
    boxes, labels = batch.targets["boxes"], batch.targets["labels"]
    logits, found = raw.logits.float(), raw.boxes()
    goals = assign(logits.detach().sigmoid(), found.detach(), raw.points, boxes, labels)
    wanted = torch.zeros_like(logits).scatter_(2, goals.labels[..., None], goals.quality[..., None])
    counts = ~_passed_over(raw.points, boxes, labels) | (goals.quality > 0)
    classes = (_quality_focal(logits, wanted).sum(2) * counts).sum()
    positive = goals.quality > 0
    quality = goals.quality[positive]
    place = (quality * (1 - generalized_overlap(found[positive], goals.boxes[positive]))).sum()
    points, strides = raw.points.expand(len(logits), -1, -1)[positive], raw.strides.expand(len(logits), -1)[positive]
    sides = (quality * _distribution(raw.sides[positive].float(), goals.boxes[positive], points, strides)).sum()
    parts = {"classes": classes, "boxes": BOX * place, "sides": SIDES * sides}
    total = classes + BOX * place + SIDES * sides
    return Losses(total, float(goals.quality.sum()) + len(logits), parts)


def _passed_over(points: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Whether a place lies in a crowd, where neither objects nor the background can be told: bool `[B, P]`."""
    return (inside(points, boxes, least=0.0) & (labels == IGNORED)[:, :, None]).any(1)


def _quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Equation 5: cross-entropy with goals in 0..1, less where they are met."""
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * (logits.sigmoid() - wanted).abs() ** FOCUS


def _distribution(sides: Tensor, boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Equation 6, the mean of four sides: `[N, 4, STEPS]` logits against boxes `[N, 4]` seen from points `[N, 2]` -> `[N]`."""
    distance = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], 1) / strides[:, None]
    distance = distance.clamp(0, STEPS - 1 - 1e-3)
    low = distance.floor()
    share = distance - low
    spread = F.log_softmax(sides, 2)
    lower, upper = (spread.gather(2, place.long()[..., None])[..., 0] for place in (low, low + 1))
    return -(lower * (1 - share) + upper * share).mean(1)


def generalized_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Generalized intersection over union of boxes `[N, 4]`, pair by pair: -1 to 1."""
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    common = (low[:, 2:] - high[:, :2]).clamp(min=0).prod(1)
    union = (one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - common
    hull = (high[:, 2:] - low[:, :2]).prod(1).clamp_min(1e-9)
    return common / union.clamp_min(1e-9) - (hull - union) / hull
