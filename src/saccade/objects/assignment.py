"""Which place learns which object: task-aligned assignment (Feng et al. 2021, "TOOD", section 3.3).

For each object the TOP places inside of its box whose score s for its class and overlap u with its box make s^ALPHA u^BETA largest; a place
wanted by several takes the object that it overlaps most. A place's goal is that measure, scaled so that an object's best place gets its
largest overlap.

B images, M boxes of the fullest image, P places, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

ALPHA, BETA, TOP = 0.5, 6.0, 10
LEAST = 16.0  # pixels of a side within which places count as inside: two places of the finest map across
ROOM = 1 << 24  # pairs of object and place of a batch above which its images are looked at one by one, to hold less at once


@dataclass(frozen=True)
class Goals:
    """quality: `[B, P]`, 0 where a place shows the background; objects: int64 `[B, P]`, which of the M; labels: int64 `[B, P]`; boxes:
    `[B, P, 4]`; all of any value there."""

    quality: Tensor
    objects: Tensor
    labels: Tensor
    boxes: Tensor


@torch.no_grad()
def assign(scores: Tensor, found: Tensor, points: Tensor, boxes: Tensor, labels: Tensor) -> Goals:
    """scores `[B, P, K]` and boxes `found` `[B, P, 4]` as they are now, points `[P, 2]`; boxes `[B, M, 4]` and labels `[B, M]` to be
    learned, below 0 where there is none."""
    if labels.numel() * len(points) <= ROOM:
        return _assigned(scores, found, points, boxes, labels)
    rows = []
    for image, own in enumerate(labels):
        places = torch.arange(1, len(own) + 1, device=own.device)
        count = max(1, int((places * (own >= 0)).max()))  # what stands behind the last object is none
        one = slice(image, image + 1)
        rows.append(_assigned(scores[one], found[one], points, boxes[one, :count], labels[one, :count]))
    return Goals(*(torch.cat([getattr(row, field.name) for row in rows]) for field in fields(Goals)))


def _assigned(scores: Tensor, found: Tensor, points: Tensor, boxes: Tensor, labels: Tensor) -> Goals:
    real = (labels >= 0)[:, :, None]
    near = overlap(boxes[:, :, None], found[:, None])
    own = scores.transpose(1, 2).gather(1, labels.clamp(min=0)[:, :, None].expand(-1, -1, scores.shape[1]))
    allowed = inside(points, boxes) & real
    measure = (own**ALPHA * near**BETA).masked_fill(~allowed, -1.0)
    best = measure.topk(min(TOP, measure.shape[2]), dim=2).indices
    chosen = torch.zeros_like(allowed).scatter_(2, best, True) & allowed
    most, owner = near.masked_fill(~chosen, -1.0).max(1)
    chosen = torch.zeros_like(chosen).scatter_(1, owner[:, None], True) & (most >= 0)[:, None]
    aligned = measure * chosen
    peak, largest = aligned.amax(2, keepdim=True), (near * chosen).amax(2, keepdim=True)
    quality = torch.where(peak > 0, aligned / peak.clamp_min(torch.finfo(peak.dtype).tiny) * largest, 0.0).amax(1)
    return Goals(quality, owner, labels.gather(1, owner).clamp(min=0), boxes.gather(1, owner[:, :, None].expand(-1, -1, 4)))


def inside(points: Tensor, boxes: Tensor, least: float = LEAST) -> Tensor:
    """Whether points `[P, 2]` lie in boxes `[B, M, 4]`, of which thin ones count as `least` wide: bool `[B, M, P]`."""
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=least / 2)
    return ((points - middle[:, :, None]).abs() < half[:, :, None]).all(3)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes `[..., 4]` that are broadcast against each other; 0 for empty ones."""
    common = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0).prod(-1)
    area = (one[..., 2:] - one[..., :2]).clamp(min=0).prod(-1) + (other[..., 2:] - other[..., :2]).clamp(min=0).prod(-1)
    return common / (area - common).clamp_min(1e-9)
