"""Random changes for objects: images placed, mirrored, set together and coloured, their boxes and masks with them (`data.composing`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from saccade.core import run_lengths
from saccade.core.config import TrainConfig
from saccade.core.geometry import CELL, FILL, MULTIPLE, canvas, padded
from saccade.core.run_lengths import Patch
from saccade.data import augment, composing
from saccade.data.cache import Preparation
from saccade.data.loader import Batch
from saccade.data.sample import Objects, Sample
from saccade.nn.coarse import smaller
from saccade.objects.loss import IGNORED, NONE


class ObjectsAugment:
    """Images are kept as large as the largest scale at which they may be placed, never enlarged; a canvas is of the image's shape. cell:
    pixels of a side of the cells in which masks are told."""

    def __init__(self, config: TrainConfig, cell: int = CELL) -> None:
        self.config, self.cell = config, cell

    @property
    def preparation(self) -> Preparation:
        """What is kept of each decoded image."""
        largest = max(self.config.augment.resize[1], composing.TILES[1] if self.config.augment.mosaic else 1.0)
        room = (round(padded(self.config.size)[0] * largest), round(padded(self.config.size)[1] * largest))
        return Preparation(f"reduced to fit {room}", lambda pixels: augment.reduced(pixels, room), room)

    def partners(self, position: int) -> Sequence[int]:
        """Further places of the stream whose images a mosaic needs."""
        return composing.partners(position, self.config.augment, self.config.seed)

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Of the canvas of an image of (height, width)."""
        return canvas(size, self.config.size)

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """One canvas with its boxes."""
        return composing.changed(samples, self.shape(samples[0].image.shape[:2]), self.config.augment, generator)

    def collate(self, samples: Sequence[Sample], positions: NDArray[np.int64]) -> Batch:
        """Canvases -> Batch with targets as `gathered` gives them."""
        pixels = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        shared = (pixels.shape[2], pixels.shape[3]) if self.config.task != "detect" else None
        targets = gathered([sample.target for sample in samples], shared, self.cell)
        return Batch(torch.from_numpy(np.ascontiguousarray(pixels)), targets, positions)


def gathered(targets: Sequence[Objects], size: tuple[int, int] | None = None, cell: int = CELL) -> dict[str, torch.Tensor]:
    """The objects of B images: boxes float32 `[B, M, 4]` in pixels and labels int64 `[B, M]`, NONE where an image has fewer than M, IGNORED
    for crowds; of canvases of one `size` (height, width) also masks uint8 `[B, M, height / cell, width / cell]`, the share of each cell
    that they cover in 255ths."""
    most = max(1, *(len(target.labels) for target in targets))
    boxes, labels = np.zeros((len(targets), most, 4), np.float32), np.full((len(targets), most), NONE, np.int64)
    for place, target in enumerate(targets):
        count = len(target.labels)
        boxes[place, :count], labels[place, :count] = target.boxes, np.where(target.crowd, IGNORED, target.labels)
    found = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}
    if size is None:
        return found
    masks = np.zeros((len(targets), most, size[0] // cell, size[1] // cell), np.uint8)
    for row, target in zip(masks, targets, strict=True):
        for cells, mask in zip(row, target.masks):
            _share(run_lengths.patch(mask), cells, cell)
    return found | {"masks": torch.from_numpy(masks)}


def halved(batch: Batch) -> Batch:
    """Images of half the height and width, with what `gathered` gives for them, on canvases of multiples of 32 again."""
    images = smaller(batch.images)
    below, beside = (-side % MULTIPLE for side in images.shape[2:])
    targets = {**batch.targets, "boxes": batch.targets["boxes"] / 2}
    if "masks" in targets:
        masks = targets["masks"]
        cell = batch.images.shape[2] // masks.shape[2]
        targets["masks"] = F.pad(smaller(masks), (0, beside // cell, 0, below // cell))
    return replace(batch, images=F.pad(images, (0, beside, 0, below), value=FILL), targets=targets)


def _share(part: Patch, cells: NDArray[np.uint8], cell: int) -> None:
    """Fill in the share of each cell that a patch covers."""
    height, width = part.pixels.shape
    top, left = part.top // cell, part.left // cell
    tall, wide = -(-(part.top + height) // cell) - top, -(-(part.left + width) // cell) - left
    whole = np.zeros((tall * cell, wide * cell), np.float32)
    above, before = part.top - top * cell, part.left - left * cell
    whole[above : above + height, before : before + width] = part.pixels
    shares = whole.reshape(tall, cell, wide, cell).mean((1, 3))
    cells[top : top + tall, left : left + wide] = np.round(shares * 255)
