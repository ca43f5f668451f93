"""Images that are seen at half their size in the first part of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from saccade.core.config import SegmentationConfig, TrainConfig
from saccade.data.loader import Batch
from saccade.tasks.segmentation.coarse import halved
from saccade.tasks.segmentation.task import Segmentation


def batch(height: int, width: int, *, distances: bool = False) -> Batch:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    images = (10 * (rows // 2) + columns // 2)[None, None].expand(2, 3, -1, -1).byte()  # each block of four is of one value
    targets = {"classes": (rows // 2 + columns // 2)[None].expand(2, -1, -1).byte()}
    if distances:
        targets["distances"] = (rows // 2 * 2 + columns * 0)[None, None].expand(2, 4, -1, -1).half()
    return Batch(images, targets, np.arange(2))


@pytest.mark.parametrize("size", [(8, 12), (7, 13), (17, 11)])
def test_each_pixel_stands_for_four(size: tuple[int, int]) -> None:
    found = halved(batch(*size, distances=True))
    rows, columns = torch.arange(size[0] // 2)[:, None], torch.arange(size[1] // 2)
    assert torch.equal(found.images, (10 * rows + columns)[None, None].expand(2, 3, -1, -1).byte())
    assert torch.equal(found.targets["classes"], (rows + columns)[None].expand(2, -1, -1).byte())
    assert torch.equal(found.targets["distances"], (rows + 0 * columns)[None, None].expand(2, 4, -1, -1).half())
    assert len(found) == 2


def test_means_are_rounded_to_the_nearest() -> None:
    images = torch.tensor([[0, 1], [1, 1]]).byte()[None, None]
    assert halved(Batch(images, {"classes": torch.zeros(1, 2, 2).byte()}, np.arange(1))).images.item() == 1


class Seeing(nn.Module):
    """Remembers the sizes of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.bias = nn.Parameter(torch.zeros(9, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape[2:]))
        return self.bias.expand(len(images), -1, *images.shape[2:])


@pytest.mark.parametrize(("share", "expected"), [(0.0, [(8, 8)] * 4), (0.5, [(4, 4), (4, 4), (8, 8), (8, 8)]), (1.0, [(4, 4)] * 4)])
def test_only_the_first_part_of_a_run(share: float, expected: list[tuple[int, int]]) -> None:
    network: Any = Seeing()
    config = TrainConfig(task="segment", segmentation=SegmentationConfig(coarse=share))
    (phase,) = Segmentation().phases(network, config)
    for step in range(4):
        if phase.pace is not None:
            phase.pace(step / 4)
        assert phase.loss(batch(8, 8), step).total.isfinite()
    assert network.seen == expected
    assert (phase.pace is None) == (share == 0), "the speed of a run that does not change is measured as it was"
