"""A tiny batch that can be learned: a bright square is of one class, a dark one of another, a striped one of a third."""

from __future__ import annotations

import numpy as np
import torch

from saccade.core import run_lengths
from saccade.core.run_lengths import Patch
from saccade.data.loader import Batch
from saccade.data.sample import Objects
from saccade.objects.augmentation import gathered

CLASSES = ("bright", "dark", "striped")
SIDE = 64


def example(n: int, generator: np.random.Generator) -> Batch:
    """`n` images uint8 `[n, 3, 64, 64]` with an object of each of the three CLASSES in turn."""
    pixels = generator.integers(100, 150, (n, 3, SIDE, SIDE), dtype=np.uint8)
    targets = []
    for i in range(n):
        side, label = int(generator.integers(18, 30)), i % len(CLASSES)
        top, left = (int(generator.integers(0, SIDE - side)) for _ in range(2))
        part = pixels[i, :, top : top + side, left : left + side]
        part[:] = (230, 20, 20)[label]
        if label == 2:
            part[:, ::4] = part[:, 1::4] = 230
        box = np.array([[left, top, left + side, top + side]], np.float64)
        none = np.zeros(1, bool)
        mask = run_lengths.from_patch(Patch(np.ones((side, side), bool), top, left), (SIDE, SIDE))
        targets.append(Objects(box, np.array([label]), none, none, (mask,)))
    return Batch(torch.from_numpy(pixels), gathered(targets, (SIDE, SIDE)), np.arange(n))
