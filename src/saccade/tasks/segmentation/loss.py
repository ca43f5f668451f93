"""What a network that segments learns by, as sums over images: each image's terms are means over its own pixels or classes, so that they do
not depend on its neighbours in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
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
    entropy, both, squares = _Told.apply(logits.float(), goals, counted)
    parts = _by_pixel(entropy, goals, counted, config)
    if config.dice:
        parts["dice"] = config.dice * _dice(both, squares, _by_class(counted.float(), goals, both.shape[1])).sum()
    if config.lovasz or config.boundary:
        shares = logits.float().softmax(1) * counted[:, None]
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


class _Told(torch.autograd.Function):
    """logits float `[B, K, H, W]`, goals int64 and counted bool `[B, H, W]` -> cross-entropy of each pixel `[B, H, W]`; sums over the
    pixels that count of the shares of their own class, by class, and of squared shares, `[B, K]` each. With their gradients, in half of
    the time that these take when each is found by itself."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, goals: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        told = logits.contiguous().log_softmax(1)
        entropy = -told.gather(1, goals[:, None])[:, 0]
        shares, weights = told.exp_(), counted.to(told.dtype)
        right = torch.exp(-entropy) * weights
        ctx.save_for_backward(shares, right, goals, weights)
        squares = shares.square().mul_(weights[:, None]).sum((2, 3))
        return entropy, _by_class(right, goals, logits.shape[1]), squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, entropy: Tensor, both: Tensor, squares: Tensor) -> tuple[Tensor, None, None]:
        """By shares s: 2 `squares` s, and `both` at the own class; by logits: s times that less its mean by shares. By logits of
        entropy: s less 1 at the own class."""
        shares, right, goals, weights = ctx.saved_tensors
        own = both.gather(1, goals.flatten(1)).view_as(right) * right - entropy
        found = shares.square().mul_(2 * squares[:, :, None, None]).mul_(weights[:, None])
        found.addcmul_(shares, (found.sum(1) + own)[:, None], value=-1.0)
        return found.scatter_add_(1, goals[:, None], own[:, None]), None, None


def _by_class(values: Tensor, goals: Tensor, kinds: int) -> Tensor:
    """Sums of `[B, H, W]` over the pixels of each class: `[B, kinds]`. By rows first: what is added one by one to a large sum in float32
    is lost."""
    return values.new_zeros(*goals.shape[:2], kinds).scatter_add_(2, goals, values).sum(1)


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
