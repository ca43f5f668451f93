"""What becomes of a training image: its size, a mirror image now and then, and the random numbers of its step, keyed by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.core.card import InputSpec
from saccade.core.config import TrainConfig
from saccade.core.prepare import prepare
from saccade.data.cache import Preparation
from saccade.data.loader import Batch
from saccade.data.sample import Sample
from saccade.tasks.generation import latents
from saccade.tasks.generation.policy import DRAWS


class GenerationAugment:
    """Images as the model makes them: scaled to cover its size, the middle cut out. `latent`: normal numbers by image; `rows`: how many
    such rows a step needs (a GAN one for each phase)."""

    def __init__(self, config: TrainConfig, latent: int, rows: int, *, policy: bool) -> None:
        self.config, self.latent, self.rows, self.policy = config, latent, rows, policy

    @property
    def preparation(self) -> Preparation:
        """What is kept of each decoded image."""
        spec = InputSpec(self.config.channels, self.config.size)
        return Preparation(
            f"prepare {spec.channels} {spec.size} {spec.resize}", lambda pixels: prepare(pixels, spec).transpose(1, 2, 0), spec.size
        )

    def partners(self, position: int) -> Sequence[int]:
        """None."""
        return ()

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """The input's, whatever the image's."""
        return self.config.size

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """The image, mirrored with the configuration's probability."""
        sample = samples[0]
        if self.config.augment.flip and generator.random() < self.config.augment.flip:
            return replace(sample, image=sample.image[:, ::-1])
        return sample

    def collate(self, samples: Sequence[Sample], positions: NDArray[np.int64]) -> Batch:
        """Targets: label int64 `[B]` (0 without classes), noise float32 `[B, rows, latent]`, draws `[B, 3, DRAWS]` where the judge's
        images are changed."""
        seed = self.config.seed
        pixels = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        label = torch.tensor([sample.target or 0 for sample in samples], dtype=torch.int64)
        noise = latents.normals(seed, "noise", positions, (self.rows, self.latent))
        targets = {"label": label, "noise": torch.from_numpy(noise)}
        if self.policy:
            targets["draws"] = torch.from_numpy(latents.uniforms(seed, "policy", positions, (3, DRAWS)))
        return Batch(torch.from_numpy(np.ascontiguousarray(pixels)), targets, positions)
