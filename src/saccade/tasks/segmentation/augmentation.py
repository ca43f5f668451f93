"""Random changes for classes of pixels: images placed, mirrored, set together and coloured, their masks with them (`data.composing`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.core.class_masks import IGNORED
from saccade.core.config import TrainConfig
from saccade.core.geometry import canvas, padded
from saccade.data import augment, composing
from saccade.data.cache import Preparation
from saccade.data.loader import Batch
from saccade.data.sample import Sample


class ClassesAugment:
    """Images are kept at their own pixels (native), the canvas is the input's size then, padded; else as large as the largest scale at
    which they may be placed, never enlarged, on canvases of their shape."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.native = config, config.segmentation.native

    @property
    def preparation(self) -> Preparation:
        """What is kept of each decoded image."""
        if self.native:
            return Preparation("as it is", lambda pixels: pixels)
        largest = max(self.config.augment.resize[1], composing.TILES[1] if self.config.augment.mosaic else 1.0)
        room = (round(padded(self.config.size)[0] * largest), round(padded(self.config.size)[1] * largest))
        return Preparation(f"reduced to fit {room}", lambda pixels: augment.reduced(pixels, room), room)

    def partners(self, position: int) -> Sequence[int]:
        """Further places of the stream whose images a mosaic or a paste needs."""
        return composing.partners(position, self.config.augment, self.config.seed)

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Of the canvas of an image of (height, width)."""
        return padded(self.config.size) if self.native else canvas(size, self.config.size)

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """One canvas with the classes of its pixels."""
        size = self.shape(samples[0].image.shape[:2])
        return composing.changed(samples, size, self.config.augment, generator, native=self.native)

    def collate(self, samples: Sequence[Sample], positions: NDArray[np.int64]) -> Batch:
        """Canvases -> Batch with targets as `gathered` gives them."""
        pixels = np.ascontiguousarray(np.stack([sample.image.transpose(2, 0, 1) for sample in samples]))
        edges = bool(self.config.segmentation.boundary)
        return Batch(torch.from_numpy(pixels), gathered([one.target for one in samples], edges=edges), positions)


def gathered(masks: Sequence[NDArray[np.uint8]], *, edges: bool = False) -> dict[str, torch.Tensor]:
    """classes: uint8 `[B, H, W]`. edges: also distances, float16 `[B, K, H, W]`, K: classes up to the largest there is in the batch: how
    many pixels lie between a pixel and the nearest of the class, or, in it, of another, negative; 0 where the class is not there."""
    classes = np.stack(masks)
    found = {"classes": torch.from_numpy(np.ascontiguousarray(classes))}
    if not edges:
        return found
    seen = np.bincount(classes.ravel(), minlength=IGNORED + 1)[:IGNORED]
    count = int(np.flatnonzero(seen).max(initial=0)) + 1
    distances = np.stack([[_distance(mask == label) for label in range(count)] for mask in masks])
    return found | {"distances": torch.from_numpy(distances.astype(np.float16))}


def _distance(shape: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Signed distance of each pixel to the edge of a shape (Kervadec et al. 2019, equation 3), negative within."""
    from scipy.ndimage import distance_transform_edt

    if not shape.any() or shape.all():
        return np.zeros(shape.shape, np.float32)
    found: NDArray[np.float32] = (distance_transform_edt(~shape) - distance_transform_edt(shape)).astype(np.float32)
    return found
