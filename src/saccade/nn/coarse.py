"""Images at half their size in the first part of a run, where a step takes a quarter of the time: what shapes look like is learned there,
and where exactly they end afterwards (Tan & Le 2021, "EfficientNetV2", section 4, "progressive learning")."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class Coarse:
    """Whether a run is in its first `share` of steps, which sees half of each side: `now`."""

    def __init__(self, share: float) -> None:
        self.share, self.now = share, False

    def pace(self, done: float) -> None:
        """Told before each step how much of the run lies before it."""
        self.now = done < self.share


def smaller(images: Tensor) -> Tensor:
    """uint8 `[B, C, H, W]` -> `[B, C, H // 2, W // 2]`, each pixel the mean of four; odd sides lose their last pixels."""
    return F.avg_pool2d(images.float(), 2).round_().byte()
