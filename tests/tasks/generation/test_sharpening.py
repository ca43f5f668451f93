"""What a judge of patches adds: nothing for an exact copy but its verdict, slopes only where they belong, and by image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from saccade.core.config import GenerationConfig
from saccade.data.loader import Batch
from saccade.tasks.generation.models.base import to_float
from saccade.tasks.generation.models.gan import Patches
from saccade.tasks.generation.sharpening import Sharpening, perceived


def sharpening(**settings: Any) -> Sharpening:
    torch.manual_seed(0)
    return Sharpening(Patches((1, 17, 11), [8, 12]), GenerationConfig(loss="hinge", **settings))


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 17, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_an_exact_copy_costs_only_the_verdict() -> None:
    real = images()
    assert sharpening(perceptual=2.0).cost(real, to_float(real), 0).abs().max() < 1e-6
    both = sharpening(perceptual=2.0, adversarial=0.5, adversarial_after=7)
    assert both.cost(real, to_float(real), 6).abs().max() < 1e-6, "not before its step"
    torch.testing.assert_close(both.cost(real, to_float(real), 7), -0.5 * both.judge(to_float(real)).mean(1))


def test_each_image_by_itself() -> None:
    one = sharpening(perceptual=1.0, adversarial=1.0)
    real, again = images(), to_float(images()).flip(3)
    whole = one.cost(real, again, 0)
    torch.testing.assert_close(whole, torch.cat([one.cost(real[i : i + 1], again[i : i + 1], 0) for i in range(3)]))


def test_an_autoencoder_can_follow_it() -> None:
    """Descending on pixels by the perceptual part brings them to look like the image."""
    one = sharpening(perceptual=1.0)
    real = images(1)
    again = (0.3 * to_float(images(2)[1:])).requires_grad_(True)
    before = one.cost(real, again, 0).item()
    for _ in range(60):
        (slope,) = torch.autograd.grad(one.cost(real, again, 0).sum(), again)
        again = (again - 2.0 * slope).detach().requires_grad_(True)
    assert one.cost(real, again, 0).item() < 0.3 * before


def test_the_judge_learns_to_tell() -> None:
    one = sharpening(adversarial=1.0, r1=0.1, penalty_every=2)
    real = images(8)
    phase = one.phase(lambda batch: to_float(batch.images) * 0.5)
    optimizer = torch.optim.Adam(one.judge.parameters(), 3e-3)
    for step in range(40):
        losses = phase.loss(Batch(real, {}, np.arange(8)), step)
        assert (losses.parts["penalty"] > 0) == (step % 2 == 0)
        optimizer.zero_grad()
        (losses.total / losses.weight).backward()
        optimizer.step()
    assert float(losses.parts["told_apart"]) / 8 > 0.8


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_slopes_are_finite(scale: float) -> None:
    maps = (scale * torch.ones(2, 3, 4, 4)).requires_grad_(True)
    (slope,) = torch.autograd.grad(perceived(maps, torch.randn(2, 3, 4, 4)).sum(), maps)
    assert slope.isfinite().all()
