"""Images at half their size in the first part of a run, where a step takes a quarter of the time: what shapes look like is learned there,
and where exactly they end afterwards (Tan & Le 2021, "EfficientNetV2", section 4, "progressive learning")."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional as F

from saccade.data.loader import Batch


class Coarse:
    """Of a run, its first `share` sees half of each side."""

    def __init__(self, share: float) -> None:
        self.share, self.now = share, False

    def pace(self, done: float) -> None:
        """Told before each step how much of the run lies before it."""
        self.now = done < self.share

    def seen(self, batch: Batch) -> Batch:
        """What is learned from now: batches of classes uint8 `[B, H, W]`, with distances `[B, K, H, W]` where there are such."""
        return halved(batch) if self.now else batch


def halved(batch: Batch) -> Batch:
    """Images of half the height and width, each pixel the mean of four; classes and distances are those of one of the four. Odd sides lose
    their last pixels."""
    images = F.avg_pool2d(batch.images.float(), 2).round_().byte()
    height, width = images.shape[2:]
    targets = {name: value[..., 1::2, 1::2][..., :height, :width] for name, value in batch.targets.items()}
    if "distances" in targets:
        targets["distances"] = targets["distances"] / 2
    return replace(batch, images=images, targets=targets)
