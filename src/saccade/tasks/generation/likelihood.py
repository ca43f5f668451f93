"""Log-likelihoods of 8-bit images and the terms of variational bounds, in nats and summed over an image: `[B]`, float32.

A value v of 0..255 is the bin (v - 1/2, v + 1/2) of a continuous density, and the bins of 0 and 255 take the tails: the 256 probabilities
sum to 1, so nats by these are nats of the data, and bits per dimension compare with any other exact model's. Means and scales are in units
of images scaled to -1..1 (v / 127.5 - 1, a bin is 2/255 wide); log scales are clamped to LOG_SCALES.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# exp(-7) is 0.12 bins: narrower ones only sharpen what is certain. exp(7) is 500 times the range: wider ones are all tails.
LOG_SCALES = (-7.0, 7.0)
_UNIT = 127.5  # values of a pixel in one unit of -1..1
_WIDE = 0.5  # the log ratio of both CDFs from which their difference is taken as such
_NODES = (
    (-math.sqrt(0.6), math.log(5 / 18)),
    (0.0, math.log(8 / 18)),
    (math.sqrt(0.6), math.log(5 / 18)),
)  # Gauss-Legendre: node, log weight


def discretized_logistic_mixture(images: Tensor, means: Tensor, log_scales: Tensor, logits: Tensor) -> Tensor:
    """log p `[B]`: each value's probability is a mixture of K logistics over its bin (Salimans et al. 2017, "PixelCNN++", eq. 2).

    images: values 0..255 `[B,C,H,W]`, uint8 or float; means, log_scales, logits `[B,K,C,H,W]`; channels are independent.
    K = 1 is the discretised logistic (Kingma et al. 2016).
    """
    values = images.unsqueeze(1).float()
    centred, inverse = _standard(values, means, log_scales)
    high, low = (centred + 0.5) * inverse, (centred - 0.5) * inverse
    # s(high) - s(low) = s(high) s(-low) (1 - exp(low - high)) holds exactly, and none of its logarithms cancels
    zero = torch.zeros_like(high)
    above = torch.where(values < 255, F.logsigmoid(high), zero)
    below = torch.where(values > 0, F.logsigmoid(-low), zero)
    inner = (values > 0) & (values < 255)
    nats = above + below + torch.where(inner, torch.log(-torch.expm1(-inverse)), zero)
    return torch.logsumexp(F.log_softmax(logits.float(), 1) + nats, 1).flatten(1).sum(1)


def discretized_gaussian(images: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """log p `[B]`: each value's probability is a normal's over its bin (Ho et al. 2020, eq. 13).

    images: values 0..255 `[B,C,H,W]`, uint8 or float; means `[B,C,H,W]`; log_scales: log standard deviations, of a shape that
    broadcasts to it.
    """
    values = images.float()
    centred, inverse = _standard(values, means, log_scales)
    lowest = torch.special.log_ndtr((centred + 0.5) * inverse)
    highest = torch.special.log_ndtr((0.5 - centred) * inverse)
    nats = torch.where(values <= 0, lowest, torch.where(values >= 255, highest, _normal_bin(centred, inverse)))
    return nats.flatten(1).sum(1)


def bernoulli(images: Tensor, logits: Tensor) -> Tensor:
    """sum of v log p + (1 - v) log(1 - p) `[B]` with v = value / 255 and p = sigmoid(logits); both `[B,C,H,W]`.

    A log-likelihood only of binarised images (0 and 255). Values between are taken as probabilities of a binary pixel: a loss that is not
    normalised over 256 values, whose bits per dimension compare with nothing.
    """
    return -F.binary_cross_entropy_with_logits(logits.float(), images.float() / 255, reduction="none").flatten(1).sum(1)


def kl_to_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) by dimension, nats `[B,L]` (Kingma & Welling 2014, appendix B); inputs `[B,...]`."""
    mean, log_variance = mean.float(), log_variance.float()
    return (0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)).flatten(1)


def free_bits(kl: Tensor, least: float) -> Tensor:
    """KL by image `[B]` where a dimension below `least` nats on average costs `least`, and is not pushed (Kingma et al. 2016, eq. 15).

    kl: `[B,L]` nats. The sum over the images is B * sum_d max(least, mean_b kl[b, d]). The mean makes images depend on each other: it is
    taken over the rows given, so cutting a batch in parts can change the sum.
    """
    return torch.where(kl.mean(0) > least, kl, least).sum(1)


def bits_per_dim(nats: Tensor, dimensions: int) -> Tensor:
    """Bits per dimension `[B]` of log-likelihoods `[B]` in nats; dimensions: C * H * W."""
    return -nats / (dimensions * math.log(2))


def importance_bound(log_weights: Tensor) -> Tensor:
    """log mean_s exp(log_weights) `[B]`, a lower bound of log p(x) (Burda et al. 2016, eq. 8).

    log_weights: `[S,B]` nats, log p(x, z_s) - log q(z_s | x) with z_s drawn from q.
    """
    return torch.logsumexp(log_weights.float(), 0) - math.log(len(log_weights))


def _standard(values: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of `values` to the mean, and 1 / scale, both by the width of a bin: small distances keep all their digits."""
    return (values - _UNIT) - means.float() * _UNIT, torch.exp(-log_scales.float().clamp(*LOG_SCALES)) / _UNIT


def _normal_bin(centred: Tensor, inverse: Tensor) -> Tensor:
    """log of the normal's mass between (centred - 1/2) * inverse and (centred + 1/2) * inverse."""
    middle = -centred.abs() * inverse  # the left half, where CDFs are small and their logarithms exact
    high = torch.special.log_ndtr(middle + 0.5 * inverse)
    ratio = high - torch.special.log_ndtr(middle - 0.5 * inverse)
    wide = high + torch.log(-torch.expm1(-ratio))  # finite where it is not used too: LOG_SCALES keep the ratio above 5e-6
    # Where both CDFs are nearly the same their difference has no digits left, but the density hardly bends: three nodes do.
    points = torch.stack([weight - 0.5 * (middle + 0.5 * node * inverse).square() for node, weight in _NODES])
    narrow = torch.logsumexp(points, 0) + torch.log(inverse) - 0.5 * math.log(2 * math.pi)
    return torch.where(ratio > _WIDE, wide, narrow)
