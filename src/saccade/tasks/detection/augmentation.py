"""Random changes for detection: images placed, mirrored, set together and coloured, their boxes with them (`data.composing`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.core.config import TrainConfig
from saccade.core.geometry import fitting, padded
from saccade.data import augment, composing
from saccade.data.cache import Preparation
from saccade.data.loader import Batch
from saccade.data.sample import Objects, Sample
from saccade.tasks.detection.loss import IGNORED, NONE


class DetectionAugment:
    """Images are kept as large as the largest scale at which they may be placed, never enlarged; the canvas is the input's size, padded."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.canvas = padded(config.size)

    @property
    def preparation(self) -> Preparation:
        """What is kept of each decoded image."""
        largest = max(self.config.augment.resize[1], composing.TILES[1] if self.config.augment.mosaic else 1.0)
        room = (round(self.canvas[0] * largest), round(self.canvas[1] * largest))
        return Preparation(f"reduced to fit {room}", lambda pixels: _reduced(pixels, room), room)

    def partners(self, position: int) -> Sequence[int]:
        """Further places of the stream whose images a mosaic needs."""
        return composing.partners(position, self.config.augment, self.config.seed)

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """One canvas with its boxes."""
        return composing.changed(samples, self.canvas, self.config.augment, generator)

    def collate(self, samples: Sequence[Sample], positions: NDArray[np.int64]) -> Batch:
        """Canvases -> Batch with targets boxes float32 `[B, M, 4]` in pixels and labels int64 `[B, M]`, NONE where an image has fewer than
        M, IGNORED for crowds."""
        pixels = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        boxes, labels = gathered([sample.target for sample in samples])
        return Batch(torch.from_numpy(np.ascontiguousarray(pixels)), {"boxes": boxes, "labels": labels}, positions)


def gathered(targets: Sequence[Objects]) -> tuple[torch.Tensor, torch.Tensor]:
    """The objects of B images as boxes float32 `[B, M, 4]` and labels int64 `[B, M]`."""
    most = max(1, *(len(target.labels) for target in targets))
    boxes, labels = np.zeros((len(targets), most, 4), np.float32), np.full((len(targets), most), NONE, np.int64)
    for row, target in enumerate(targets):
        count = len(target.labels)
        boxes[row, :count], labels[row, :count] = target.boxes, np.where(target.crowd, IGNORED, target.labels)
    return torch.from_numpy(boxes), torch.from_numpy(labels)


def _reduced(pixels: NDArray[np.uint8], room: tuple[int, int]) -> NDArray[np.uint8]:
    """The image made to fit into `room` where it is larger."""
    source = (pixels.shape[0], pixels.shape[1])
    scaled = fitting(source, room)
    return augment.resized(pixels, scaled) if scaled[0] < source[0] or scaled[1] < source[1] else pixels
