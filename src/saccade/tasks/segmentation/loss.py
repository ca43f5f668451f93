"""What a network that segments learns by, as sums over images: each image's terms are means over its own pixels or classes, so that they do
not depend on its neighbours in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.core.class_masks import IGNORED
from saccade.core.config import SegmentationConfig
from saccade.data.loader import Batch
from saccade.task import Losses

FOCUS = 2.0  # of the focal loss, as in the paper
SMOOTH = 1.0  # pixel added to either side of Dice


def losses(logits: Tensor, batch: Batch, config: SegmentationConfig) -> Losses:
    """logits `[B, K, H, W]` against classes uint8 `[B, H, W]`; pixels of IGNORED count in nothing. Its weight is the number of images."""
    if config.multi:
        return of_layers(logits.float(), batch, config)
    classes = batch.targets["classes"].long()
    counted = classes != IGNORED
    goals = classes.where(counted, torch.zeros_like(classes))
    told = logits.float().log_softmax(1)
    entropy = F.nll_loss(told, goals, reduction="none")
    parts = _by_pixel(entropy, goals, counted, config)
    if config.dice or config.lovasz or config.boundary:
        shares = told.exp() * counted[:, None]
        if config.dice:
            parts["dice"] = config.dice * _dice_of_pixels(shares, torch.exp(-entropy), goals, counted).sum()
        if config.lovasz:
            kinds = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
            truth = (goals[:, None] == kinds) & counted[:, None]
            parts["lovasz"] = config.lovasz * torch.stack([lovasz(*one) for one in zip(shares, truth, counted, strict=True)]).sum()
        if config.boundary:
            parts["boundary"] = config.boundary * _boundary(shares, batch.targets["distances"], counted).sum()
    total = torch.stack(list(parts.values())).sum() if parts else logits.sum() * 0.0
    return Losses(total, float(len(batch)), parts)


def of_layers(logits: Tensor, batch: Batch, config: SegmentationConfig) -> Losses:
    """logits `[B, K, H, W]` against sets of classes uint8 `[B, H, W]` (`core.layers`): the mean over pixels and classes of the binary
    cross-entropy, and Dice of the classes that an image has."""
    sets = batch.targets["classes"]
    counted = (sets != IGNORED)[:, None]
    kinds = torch.arange(logits.shape[1], device=logits.device, dtype=torch.uint8)[:, None, None]
    truth = (torch.bitwise_right_shift(sets[:, None], kinds) & 1).bool() & counted
    parts: dict[str, Tensor] = {}
    if config.cross_entropy:
        entropy = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none") * counted
        each = entropy.mean(1).sum((1, 2)) / counted.sum((1, 2, 3)).clamp_min(1)
        parts["cross_entropy"] = config.cross_entropy * each.sum()
    if config.dice:
        parts["dice"] = config.dice * dice(logits.sigmoid() * counted, truth).sum()
    return Losses(torch.stack(list(parts.values())).sum(), float(len(batch)), parts)


def _by_pixel(entropy: Tensor, goals: Tensor, counted: Tensor, config: SegmentationConfig) -> dict[str, Tensor]:
    """Cross-entropy and focal loss from each pixel's own `[B, H, W]`, weighted means over the pixels of each image."""
    weights = counted.float()
    if config.class_weights:
        weights = weights * torch.tensor(config.class_weights, device=goals.device)[goals]
    whole = weights.sum((1, 2)).clamp_min(1e-6)
    parts = {}
    if config.cross_entropy:
        parts["cross_entropy"] = config.cross_entropy * ((entropy * weights).sum((1, 2)) / whole).sum()
    if config.focal:
        focal = (1 - torch.exp(-entropy)) ** FOCUS * entropy
        parts["focal"] = config.focal * ((focal * weights).sum((1, 2)) / whole).sum()
    return parts


def dice(shares: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice with squares below (Milletari et al. 2016, "V-Net", section 3), the mean over the classes that each image has: `[B]`."""
    return _dice((shares * truth).sum((2, 3)), shares.square().sum((2, 3)), truth.sum((2, 3)))


def _dice_of_pixels(shares: Tensor, right: Tensor, goals: Tensor, counted: Tensor) -> Tensor:
    """The same where each pixel has one class, goals `[B, H, W]`, and `right` is its share: what classes have in common are sums by class
    of one map, in place of one map for each."""
    # By rows first: what is added one by one to a large sum in float32 is lost.
    zeros, counts = shares.new_zeros(*goals.shape[:2], shares.shape[1]), counted.to(shares.dtype)
    both, sizes = (zeros.scatter_add(2, goals, one).sum(1) for one in (right * counts, counts))
    return _dice(both, shares.square().sum((2, 3)), sizes)


def _dice(both: Tensor, squares: Tensor, sizes: Tensor) -> Tensor:
    """`[B]` of sums over pixels `[B, K]`: of shares where the class is, of squared shares, of pixels that have the class."""
    there = (sizes > 0).float()
    missed = 1 - (2 * both + SMOOTH) / (squares + sizes + SMOOTH)
    return (missed * there).sum(1) / there.sum(1).clamp_min(1)


def lovasz(shares: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss (Berman et al. 2018, equations 8 and 9, "Lovasz-softmax"), the mean over the classes that
    the image has; shares and truth `[K, H, W]`, counted bool `[H, W]`."""
    shares, truth = shares[:, counted], truth[:, counted].float()
    there = truth.sum(1) > 0
    if not there.any():
        return shares.sum() * 0.0
    truth = truth[there]
    errors, order = (truth - shares[there]).abs().sort(1, descending=True)
    sorted_truth = truth.gather(1, order)
    total = sorted_truth.sum(1, keepdim=True)
    union = total + (1 - sorted_truth).cumsum(1)
    jaccard = 1 - (total - sorted_truth.cumsum(1)) / union
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)
    return (errors * steps).sum(1).mean()


def _boundary(shares: Tensor, distances: Tensor, counted: Tensor) -> Tensor:
    """The mean over pixels of probability times signed distance (Kervadec et al. 2019, equation 5), by the image's diagonal: `[B]`."""
    height, width = counted.shape[1:]
    summed = (shares[:, : distances.shape[1]] * distances.float()).sum((1, 2, 3))
    return summed / (counted.sum((1, 2)).clamp_min(1) * float(height**2 + width**2) ** 0.5)
