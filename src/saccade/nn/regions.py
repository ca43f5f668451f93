"""What a network says of the pixels of a region."""

from __future__ import annotations

from torch import Tensor


def mean(values: Tensor, region: Tensor) -> Tensor:
    """Of float `[B, h, w]` the mean over a region, bool `[B, h, w]`, over all of it where that is empty: `[B]`."""
    weights = region.float()
    weights = weights.where(weights.sum((1, 2), keepdim=True) > 0, 1.0)
    found: Tensor = (values * weights).sum((1, 2)) / weights.sum((1, 2))
    return found


def score(pixels: Tensor, targets: Tensor) -> Tensor:
    """Logits of the class of each pixel `[B, K, h, w]`, class indices `[B]` -> the mean logit of each over its region, the pixels told to
    be of it, `[B]` (Vinogradova et al. 2020, "Seg-Grad-CAM", equation 1)."""
    wanted = pixels.gather(1, targets[:, None, None, None].expand(-1, 1, *pixels.shape[2:]))[:, 0]
    return mean(wanted, pixels.argmax(1) == targets[:, None, None])
