"""A tiny batch that can be learned: a bright square on noise is of one class, a dark one of another."""

from __future__ import annotations

import numpy as np
import torch

from saccade.data.loader import Batch
from saccade.tasks.segmentation.augmentation import gathered

CLASSES = ("background", "bright", "dark")
SIDE = 64


def example(n: int, generator: np.random.Generator) -> Batch:
    """`n` images uint8 `[n, 3, 64, 64]` with a square of each of two classes in turn."""
    pixels = generator.integers(100, 150, (n, 3, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros((n, SIDE, SIDE), np.uint8)
    for i in range(n):
        side, label = int(generator.integers(18, 30)), i % 2
        top, left = (int(generator.integers(0, SIDE - side)) for _ in range(2))
        pixels[i, :, top : top + side, left : left + side] = (230, 20)[label]
        masks[i, top : top + side, left : left + side] = 1 + label
    return Batch(torch.from_numpy(pixels), gathered(list(masks)), np.arange(n))
