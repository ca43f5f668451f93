"""Batches at half their size."""

from __future__ import annotations

from dataclasses import replace

from saccade.data.loader import Batch
from saccade.nn.coarse import smaller


def halved(batch: Batch) -> Batch:
    """Images of half the height and width; classes uint8 `[B, H, W]`, and distances `[B, K, H, W]` where there are such, are those of one
    of the four pixels that become one."""
    images = smaller(batch.images)
    height, width = images.shape[2:]
    targets = {name: value[..., 1::2, 1::2][..., :height, :width] for name, value in batch.targets.items()}
    if "distances" in targets:
        targets["distances"] = targets["distances"] / 2
    return replace(batch, images=images, targets=targets)
