"""What networks whose queries answer with masks learn by: each true mask is one query's, as all of them together fit best, and the other
queries tell that there is nothing (Cheng et al. 2022, "Masked-attention mask transformer for universal image segmentation", sections 3.3
and 4.1; the matching is that of Carion et al. 2020, "DETR", equation 1).

Masks are compared at points alone: for the matching at ones drawn over the image, for the loss mostly at those where the told mask is
unsure (Kirillov et al. 2020, "PointRend", section 3.1). torch's generator draws them. Points that do not count are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.task import Losses

OF_CLASS, OF_PIXELS, OF_OVERLAP = 2.0, 5.0, 5.0  # weights of the parts, of the cost of a pair too
NOTHING = 0.1  # what a query that tells nothing counts in the classes' part
POINTS = 112 * 112  # of a mask, but no more than its image has pixels
DRAWN, UNSURE = 3, 0.75  # as many times the points are drawn to choose the unsure ones from; the share of these
CELL = 4  # pixels of a side of a place of a told mask


class Answers(NamedTuple):
    """Of queries, at one layer: logits of the classes, the last of which is nothing, `[B, Q, K + 1]`, and of the masks `[B, Q, h, w]`."""

    classes: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Goals:
    """What is to be learned of an image: masks `[N, H, W]` float32, the share of each place that is covered; labels int64 `[N]`; counted
    float32 `[H, W]`, 0 where a place counts in no mask."""

    masks: Tensor
    labels: Tensor
    counted: Tensor


def losses(layers: Sequence[Answers], goals: Sequence[Goals]) -> Losses:
    """Of the answers after several layers, which all learn the same. The loss is a sum over masks; what the classes of an image's queries
    lose, their weighted mean, counts as often as it has masks, once at least, so that for images of equally many this is the authors'
    loss, and one that does not depend on how a batch is cut otherwise too."""
    with torch.autocast(layers[0].masks.device.type, enabled=False):  # costs of pairs lie too near each other for 16 bit
        found = [_of_image(one.classes[k].float(), one.masks[k].float(), goal) for one in layers for k, goal in enumerate(goals)]
    parts = {name: torch.stack([one[name] for one in found]).sum() for name in ("classes", "pixels", "overlap")}
    return Losses(torch.stack(list(parts.values())).sum(), float(sum(max(1, len(goal.labels)) for goal in goals)), parts)


def _of_image(classes: Tensor, masks: Tensor, goal: Goals) -> dict[str, Tensor]:
    """Logits `[Q, K + 1]` and `[Q, h, w]` of one image."""
    count = min(POINTS, CELL**2 * masks.shape[1] * masks.shape[2])
    queries, objects = matched(classes, masks, goal, count)
    nothing = classes.shape[1] - 1
    wanted = torch.full((len(classes),), nothing, device=classes.device)
    wanted[queries] = goal.labels[objects]
    weights = torch.ones(nothing + 1, device=classes.device)
    weights[nothing] = NOTHING
    told = OF_CLASS * F.cross_entropy(classes, wanted, weight=weights) * max(1, len(goal.labels))
    if not len(queries):
        return {"classes": told, "pixels": masks.sum() * 0.0, "overlap": masks.sum() * 0.0}
    chosen = masks[queries]
    points = _unsure(chosen.detach(), count)
    logits = _at(chosen, points)
    truth = _at(goal.masks[objects], points)
    counted = _counted(goal, points)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    pixels = (entropy * counted).sum(1) / counted.sum(1).clamp_min(1)
    shares, truth = logits.sigmoid() * counted, truth * counted
    overlap = 1 - (2 * (shares * truth).sum(1) + 1) / (shares.sum(1) + truth.sum(1) + 1)
    return {"classes": told, "pixels": OF_PIXELS * pixels.sum(), "overlap": OF_OVERLAP * overlap.sum()}


@torch.no_grad()
def matched(classes: Tensor, masks: Tensor, goal: Goals, count: int) -> tuple[Tensor, Tensor]:
    """Which queries are whose: two rows of as many indices, of queries and of true masks, of which each stands once. Costs that are no
    numbers are as high as can be, so that what made them shows in the loss."""
    from scipy.optimize import linear_sum_assignment

    points = torch.rand(1, count, 2, device=masks.device)
    logits = _at(masks, points.expand(len(masks), -1, -1))
    truth = _at(goal.masks, points.expand(len(goal.masks), -1, -1))
    counted = _counted(goal, points)
    whole = counted.sum().clamp_min(1)
    pixels = ((F.softplus(logits) * counted).sum(1, keepdim=True) - (logits * counted) @ truth.T) / whole
    shares, truth = logits.sigmoid() * counted, truth * counted
    overlap = 1 - (2 * shares @ truth.T + 1) / (shares.sum(1)[:, None] + truth.sum(1)[None] + 1)
    cost = OF_PIXELS * pixels + OF_OVERLAP * overlap - OF_CLASS * classes.softmax(1)[:, goal.labels]
    most = float(np.finfo(np.float32).max)
    found = linear_sum_assignment(cost.nan_to_num(most, most, most).cpu().numpy())
    queries, objects = (torch.from_numpy(places).to(masks.device) for places in found)
    return queries, objects


@torch.no_grad()
def _unsure(masks: Tensor, count: int) -> Tensor:
    """Points `[N, count, 2]` of masks `[N, h, w]`: of DRAWN times as many the ones nearest to where the logit is 0, and others anywhere."""
    drawn = torch.rand(len(masks), DRAWN * count, 2, device=masks.device)
    few = int(UNSURE * count)
    nearest = _at(masks, drawn).abs().neg().topk(few, dim=1).indices
    kept = drawn.gather(1, nearest[:, :, None].expand(-1, -1, 2))
    return torch.cat([kept, torch.rand(len(masks), count - few, 2, device=masks.device)], 1)


def _at(maps: Tensor, points: Tensor) -> Tensor:
    """Maps `[N, h, w]` at points `[N, P, 2]` (x, y from 0 to 1 of the whole map), linearly between their places: `[N, P]`."""
    if not len(maps):
        return maps.new_zeros(0, points.shape[1])
    return F.grid_sample(maps[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


def _counted(goal: Goals, points: Tensor) -> Tensor:
    """1 where points `[N, P, 2]` lie at places that count, else 0: `[N, P]`."""
    maps = goal.counted.expand(len(points), 1, -1, -1)
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, mode="nearest", padding_mode="border", align_corners=False)[:, 0, :, 0]
