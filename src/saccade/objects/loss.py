"""What the one-stage detector learns by, as sums: quality focal loss of the classes and distribution focal loss of the boxes' sides (Li
et al. 2020, "Generalized focal loss", equations 5 and 6), generalized IoU of the boxes (Rezatofighi et al. 2019),
and of masks cross-entropy and Dice (Milletari et al. 2016, "V-Net", section 3) within their boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.core.geometry import CELL, CONIC, SMALLEST, conic
from saccade.data.loader import Batch
from saccade.objects.assignment import Goals, assign, inside
from saccade.objects.one_stage import STEPS, Raw
from saccade.task import Losses

FOCUS = 2.0
BOX, SIDES = 2.0, 0.25  # weights beside the classes', as in the paper
MASKS = 2.0
MOST_MASKS = 256  # of an image that are learned from, evenly chosen among all places that show an object,
CELLS = 2_500_000  # and of their cells
AROUND = float(CELL)  # pixels about a box in which its mask is learned, and drawn
IGNORED = -2  # label of what need not be found
NONE = -1  # and of no object at all


def losses(raw: Raw, batch: Batch) -> Losses:
    """The loss of a batch whose targets are boxes `[B, M, 4]` in pixels of the input and labels int64 `[B, M]`, and, where the
    network finds masks, masks uint8 `[B, M, H / CELL, W / CELL]`, the share of each cell in 255ths.

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
    if raw.prototypes is not None:
        parts["masks"] = MASKS * _masks(raw, goals, found.detach(), batch.targets["masks"])
    total = torch.stack(list(parts.values())).sum()
    return Losses(total, float(goals.quality.sum()) + len(logits), parts)


def _passed_over(points: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Whether a place lies in a crowd, where neither objects nor the background can be told: bool `[B, P]`."""
    passed = torch.zeros(len(boxes), len(points), dtype=torch.bool, device=boxes.device)
    for image in torch.nonzero((labels == IGNORED).any(1))[:, 0].tolist():
        passed[image] = inside(points, boxes[image, labels[image] == IGNORED][None], least=0.0)[0].any(0)
    return passed


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


def _masks(raw: Raw, goals: Goals, found: Tensor, masks: Tensor) -> Tensor:
    """Of the places that show an object, cross-entropy and Dice of its mask, weighted by their goals."""
    if raw.weights is None or raw.prototypes is None or not (goals.quality > 0).any():
        return raw.logits.sum() * 0.0
    height, width = raw.prototypes.shape[2:]
    image, place, share = _chosen(goals.quality > 0, max(1, min(MOST_MASKS, CELLS // (height * width))))
    quality, boxes = goals.quality[image, place] * share, goals.boxes[image, place]
    logits = mask_logits(raw.prototypes.float(), raw.weights[image, place].float(), found[image, place], image)
    wanted = masks[image, goals.objects[image, place]].float() / 255
    rows, columns = (torch.arange(side, device=image.device) * CELL + CELL / 2 for side in logits.shape[1:])
    low, high = boxes[:, :2, None] - AROUND, boxes[:, 2:, None] + AROUND
    across = (columns > low[:, 0]) & (columns < high[:, 0])
    down = (rows > low[:, 1]) & (rows < high[:, 1])
    counts = (down[:, :, None] & across[:, None]).float()
    entropy = (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counts).sum((1, 2)) / counts.sum((1, 2)).clamp_min(1)
    shown, real = logits.sigmoid() * counts, wanted * counts
    dice = 1 - (2 * (shown * real).sum((1, 2)) + 1) / (shown.square().sum((1, 2)) + real.square().sum((1, 2)) + 1)
    summed: Tensor = (quality * (entropy + dice)).sum()
    return summed


def _chosen(positive: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of bool `[B, P]` at most so many places of each image: images `[N]` (ascending), places `[N]`, and how many each stands for
    `[N]`. An image's do not depend on its neighbours."""
    image, place = torch.nonzero(positive, as_tuple=True)
    count = positive.sum(1)
    step = (count + most - 1) // most
    number = torch.arange(len(image), device=image.device) - (count.cumsum(0) - count)[image]
    taken = number % step[image] == 0
    image, place = image[taken], place[taken]
    return image, place, (count / torch.bincount(image, minlength=len(count)).clamp_min(1))[image]


def mask_logits(prototypes: Tensor, weights: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Of N objects, in images `[N]` (ascending), the logits `[N, h, w]` of their masks at the middles of the cells; prototypes
    `[B, C - CONIC, h, w]`, weights `[N, C]`, boxes `[N, 4]` in pixels."""
    flat = prototypes.flatten(2)
    summed = torch.cat([weights[image == number, CONIC:] @ flat[number] for number in range(len(prototypes))])
    summed = summed.unflatten(1, prototypes.shape[2:])
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=SMALLEST)
    rows, columns = (torch.arange(side, device=boxes.device) * CELL + CELL / 2 for side in prototypes.shape[2:])
    across = ((columns - middle[:, :1]) / half[:, :1])[:, None, :]
    down = ((rows - middle[:, 1:]) / half[:, 1:])[:, :, None]
    found: Tensor = summed + conic(weights[:, :CONIC, None, None].unbind(1), across, down)
    return found
