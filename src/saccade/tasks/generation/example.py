"""A tiny batch that can be learned: a bright square on a dark ground, whose place is its class."""

from __future__ import annotations

import numpy as np
import torch

from saccade.data.loader import Batch
from saccade.tasks.generation import latents
from saccade.tasks.generation.models import LATENT
from saccade.tasks.generation.policy import DRAWS

CLASSES = ("top left", "bottom right", "middle")


def example(n: int, generator: np.random.Generator) -> Batch:
    """`n` images uint8 `[n, 3, 16, 16]` of the three CLASSES in turn, with the numbers of a step."""
    pixels = generator.integers(0, 40, (n, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(n) % len(CLASSES)
    for i, corner in enumerate(np.array([0, 10, 5])[labels].tolist()):
        pixels[i, :, corner : corner + 6, corner : corner + 6] += 180
    positions = np.arange(n)
    targets = {
        "label": torch.from_numpy(labels),
        "noise": torch.from_numpy(latents.normals(0, "noise", positions, (2, LATENT))),
        "draws": torch.from_numpy(latents.uniforms(0, "policy", positions, (3, DRAWS))),
    }
    return Batch(torch.from_numpy(pixels), targets, positions)
