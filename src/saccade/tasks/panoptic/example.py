"""A tiny batch that can be learned: a bright or a dark square, which are things, on noise, which is stuff."""

from __future__ import annotations

import numpy as np
import torch

from saccade.core import run_lengths
from saccade.data.loader import Batch
from saccade.data.sample import Objects
from saccade.objects.augmentation import gathered

CLASSES = ("bright", "dark", "ground")
STUFF = (2,)
SIDE = 64


def example(n: int, generator: np.random.Generator) -> Batch:
    """`n` images uint8 `[n, 3, 64, 64]`, each of the ground and a square of one of the two kinds in turn on it."""
    pixels = generator.integers(100, 150, (n, 3, SIDE, SIDE), dtype=np.uint8)
    targets = []
    for i in range(n):
        side, label = int(generator.integers(18, 30)), i % 2
        top, left = (int(generator.integers(0, SIDE - side)) for _ in range(2))
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top : top + side, left : left + side] = True
        pixels[i, :, mask] = (230, 20)[label]
        boxes = np.array([[0, 0, SIDE, SIDE], [left, top, left + side, top + side]], np.float64)
        none = np.zeros(2, bool)
        targets.append(Objects(boxes, np.array([2, label]), none, none, (run_lengths.from_mask(~mask), run_lengths.from_mask(mask))))
    return Batch(torch.from_numpy(pixels), gathered(targets, (SIDE, SIDE)), np.arange(n))
