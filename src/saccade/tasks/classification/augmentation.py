"""Random changes for classification: small images a batch at a time, large ones cropped one by one; then pairs are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.core.card import InputSpec
from saccade.core.config import TrainConfig
from saccade.core.prepare import prepare
from saccade.data import augment
from saccade.data.augment import Draws
from saccade.data.cache import Preparation
from saccade.data.loader import Batch
from saccade.data.sample import Sample

SMALL = 64
ROOM = 1.25  # stored pixels by input pixels and side: what a random crop may lose without having to enlarge


class ClassificationAugment:
    """Up to SMALL pixels the stored image has the model's size and one warp does all; above, a random crop is cut and resized."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.small = max(config.size) <= SMALL

    @property
    def preparation(self) -> Preparation:
        """What is kept of each decoded image."""
        height, width = self.config.size
        if self.small:
            spec = InputSpec(self.config.channels, self.config.size)
            return Preparation(f"prepare {spec}", lambda pixels: prepare(pixels, spec).transpose(1, 2, 0), spec.size)
        cover = (round(height * ROOM), round(width * ROOM))
        return Preparation(f"shrunk {cover}", lambda pixels: augment.shrink(pixels, cover), cover)

    def partners(self, position: int) -> Sequence[int]:
        """None: pairs are mixed in the batch."""
        return ()

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """The input's, whatever the image's."""
        return self.config.size

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """Crop and mirror a large image; small ones wait for their batch."""
        sample = samples[0]
        if self.small:
            return sample
        draws = Draws.of(generator)
        box = augment.crop_box(draws, sample.image.shape[:2], self.config.size, self.config.augment.crop)
        flip = bool(draws["flip"][0] < self.config.augment.flip)
        return replace(sample, image=augment.crop_and_resize(sample.image, box, self.config.size, flip=flip))

    def collate(self, samples: Sequence[Sample], positions: NDArray[np.int64]) -> Batch:
        """Images of one shape -> Batch with targets label, other (int64 `[B]`) and share (float32 `[B]`) of the label."""
        config = self.config.augment
        pixels = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        images: Tensor = torch.from_numpy(np.ascontiguousarray(pixels))
        label = torch.from_numpy(np.array([sample.target for sample in samples]))
        left = config if self.small else replace(config, flip=0.0, crop=1.0)  # large ones are cropped and mirrored already
        if left == type(config)():
            return Batch(images, {"label": label, "other": label, "share": torch.ones(len(label))}, positions)
        draws = Draws.at(self.config.seed, positions)
        floats = images.float()
        floats = augment.erase(augment.recolor(augment.warp(floats, draws, left), draws, config), draws, config)
        floats, mixing = augment.mix_pairs(floats, positions, config, self.config.seed)
        images = floats.round_().clamp_(0, 255).byte()
        return Batch(images, {"label": label, "other": label[mixing.partner], "share": mixing.share}, positions)
