"""Our own network: how the last coarse map becomes one of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.tasks.segmentation.models.unet import TOGETHER, _twice, _twice_apart


@pytest.mark.parametrize("size", [(1, 1), (5, 1), (6, 9)])
@pytest.mark.parametrize("kinds", [1, TOGETHER, 2 * TOGETHER + 3])
def test_as_convolutions_it_is_bilinear_enlargement(kinds: int, size: tuple[int, int]) -> None:
    """Answer and gradient, edges included, of any number of classes."""
    maps = torch.randn(3, kinds, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pulls = torch.randn(3, kinds, 2 * size[0], 2 * size[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def found(way: str) -> tuple[Tensor, Tensor]:
        point = maps.clone().requires_grad_()
        told = _twice(point) if way == "plain" else F.pixel_shuffle(_twice_apart(point), 2)
        told.backward(pulls)
        assert point.grad is not None
        return told, point.grad

    for one, other in zip(found("plain"), found("apart"), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
