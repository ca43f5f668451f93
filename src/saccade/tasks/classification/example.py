"""A tiny batch that can be learned: the class is where the bright square stands."""

from __future__ import annotations

import numpy as np
import torch

from saccade.data.loader import Batch

CLASSES = ("top left", "bottom right", "middle")


def example(n: int, generator: np.random.Generator) -> Batch:
    """`n` images uint8 `[n, 3, 16, 16]` of the three CLASSES in turn."""
    pixels = generator.integers(0, 80, (n, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(n) % len(CLASSES)
    for i, corner in enumerate(np.array([0, 10, 5])[labels].tolist()):
        pixels[i, :, corner : corner + 6, corner : corner + 6] += 150
    label = torch.from_numpy(labels)
    return Batch(torch.from_numpy(pixels), {"label": label, "other": label, "share": torch.ones(n)}, np.arange(n))
