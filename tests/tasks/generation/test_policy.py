"""Differentiable augmentation: what its draws do, that gradients pass, and that its strength follows the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from saccade.tasks.generation.policy import BRIGHTNESS, CONTRAST, CUTOUT, DRAWS, SATURATION, TRANSLATION, Adaptive, augment

SIZES = [(1, 8, 8), (2, 17, 11), (3, 17, 11), (4, 16, 32), (3, 1, 1), (1, 3, 2)]


def pictures(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def uniforms(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def only(operation: int, *amounts: float, count: int = 1) -> Tensor:
    """Draws that let one operation through at a probability of 0.5."""
    draws = torch.full((count, DRAWS), 0.75)
    draws[:, operation : operation + 1 + len(amounts)] = torch.tensor([0.25, *amounts])
    return draws


@pytest.mark.parametrize("shape", SIZES)
def test_probability_zero_changes_no_bit(shape: tuple[int, int, int]) -> None:
    images = pictures(3, *shape)
    images[0, 0, 0, 0] = -0.0
    for probability in (0.0, torch.tensor(0.0)):
        out = augment(images, torch.zeros(3, DRAWS), probability)
        assert torch.equal(out.view(torch.int32), images.view(torch.int32))


@pytest.mark.parametrize("shape", SIZES)
def test_any_size_and_repeatable(shape: tuple[int, int, int]) -> None:
    images, draws = pictures(16, *shape), uniforms(16)
    out = augment(images, draws, 0.7)
    assert out.shape == images.shape and out.dtype == images.dtype and out.isfinite().all()
    assert not torch.equal(out, images)
    assert torch.equal(out, augment(images, draws, torch.tensor(0.7)))
    assert not torch.equal(out, augment(images, uniforms(16, seed=2), 0.7))


@pytest.mark.parametrize("shape", SIZES)
def test_a_batch_cut_in_two_is_the_whole(shape: tuple[int, int, int]) -> None:
    images, draws = pictures(7, *shape), uniforms(7)
    parts = [augment(images[rows], draws[rows], 0.8) for rows in (slice(0, 3), slice(3, 7))]
    assert torch.equal(torch.cat(parts), augment(images, draws, 0.8))


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 11), (8, 8), (3, 2)])
@pytest.mark.parametrize("draw", [(0.0, 0.0), (0.9999999, 0.0), (0.5, 0.5), (0.3, 0.8), (0.999999999, 0.1)])
def test_translation_is_roll_with_zeros(height: int, width: int, draw: tuple[float, float]) -> None:
    images = pictures(1, 3, height, width)
    expected = images[0].numpy().copy()
    for axis, (side, u) in enumerate(zip((height, width), draw, strict=True), 1):
        most = int(side / 8 + 0.5)
        by = min(int(np.float32(u) * np.float32(2 * most + 1)), 2 * most) - most
        expected = np.roll(expected, by, axis)
        index = np.arange(side)
        gone = (index < by) | (index >= side + by)
        expected[(slice(None),) * axis + (gone,)] = 0
    assert torch.equal(augment(images, only(TRANSLATION, *draw), 0.5)[0], torch.from_numpy(expected))


def test_translation_reaches_an_eighth_either_way() -> None:
    images = torch.ones(1, 1, 32, 32)
    for draw, rows in ((0.0, slice(28, 32)), (0.9999999, slice(0, 4))):
        out = augment(images, only(TRANSLATION, draw, 0.5), 0.5)
        assert out[:, :, rows].eq(0).all() and out.sum() == 28 * 32


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 11)])
def test_cutout_is_half_of_each_side(height: int, width: int) -> None:
    images = torch.ones(1, 4, height, width)
    hole = augment(images, only(CUTOUT, 0.5, 0.5), 0.5)[0] == 0
    assert hole.sum((1, 2)).tolist() == [((height + 1) // 2) * ((width + 1) // 2)] * 4
    assert hole[:, height // 2, width // 2].all()
    corner = augment(images, only(CUTOUT, 0.0, 0.9999999), 0.5)[0] == 0
    assert corner[:, 0, -1].all() and corner.sum() < hole.sum()


@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_colour_leaves_alpha_alone(channels: int, colours: int) -> None:
    images = pictures(1, channels, 9, 5)
    colour = images[:, :colours]
    brighter = augment(images, only(BRIGHTNESS, 0.9), 0.5)
    torch.testing.assert_close(brighter[:, :colours], colour + 0.4)
    contrast = augment(images, only(CONTRAST, 0.25), 0.5)
    torch.testing.assert_close(contrast[:, :colours], colour.mean() + 0.75 * (colour - colour.mean()))
    grey = augment(images, only(SATURATION, 0.0), 0.5)
    expected = colour.mean(1, keepdim=True).expand_as(colour) if colours == 3 else colour
    torch.testing.assert_close(grey[:, :colours], expected)
    for out in (brighter, contrast, grey):
        assert torch.equal(out[:, colours:], images[:, colours:])


def test_operations_are_applied_as_often_as_asked() -> None:
    """Each image has gates of its own: none of the five with probability 0.7 ** 5."""
    images = pictures(4000, 3, 6, 6)
    same = (augment(images, uniforms(4000), 0.3) == images).flatten(1).all(1)
    assert same.float().mean().item() == pytest.approx(0.7**5, abs=0.03)


@pytest.mark.parametrize("operation", [BRIGHTNESS, SATURATION, CONTRAST, TRANSLATION, CUTOUT])
def test_gradients_flow(operation: int) -> None:
    images = pictures(2, 3, 16, 9).requires_grad_()
    out = augment(images, only(operation, 0.1, count=2), 0.5)
    assert not torch.equal(out, images)
    (gradient,) = torch.autograd.grad(out.square().sum(), images)
    assert gradient.isfinite().all() and (gradient != 0).float().mean() > 0.5


def test_gradients_are_exact_and_so_are_their_own() -> None:
    images, draws = pictures(2, 4, 3, 5).double().requires_grad_(), uniforms(2, seed=3)
    assert not torch.equal(augment(images, draws, 0.8)[:, 3], images[:, 3])
    assert torch.autograd.gradcheck(lambda x: augment(x, draws, 0.8), images)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws, 0.8).square(), images)


def test_strength_rises_when_the_judge_knows_its_images_and_falls_otherwise() -> None:
    adaptive = Adaptive(images=10_000, start=0.3)
    adaptive.note(torch.full((64,), 5.0))
    adaptive.note(torch.tensor([1.0, -1.0] * 3))
    adaptive.settle()
    assert adaptive.probability.item() == pytest.approx(0.3 + 70 / 10_000)
    adaptive.note(torch.tensor([3.0] * 7 + [-1.0] * 3))  # 0.4, under 0.6
    adaptive.settle()
    assert adaptive.probability.item() == pytest.approx(0.3 + 60 / 10_000)
    adaptive.settle()  # nothing was noted
    assert adaptive.probability.item() == pytest.approx(0.3 + 60 / 10_000)


def test_strength_stays_in_its_range_and_takes_the_images_it_says() -> None:
    adaptive = Adaptive(images=1000, most=0.8)
    for steps, sign, end in ((5, 1, 0.5), (10, 1, 0.8), (20, -1, 0.0)):
        for _ in range(steps):
            adaptive.note(torch.full((100,), float(sign)))
            adaptive.settle()
        assert adaptive.probability.item() == pytest.approx(end, abs=1e-6)


def test_all_of_its_state_is_in_buffers() -> None:
    whole, first = Adaptive(images=500), Adaptive(images=500)
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) + 1
    for row in logits:
        whole.note(row)
    whole.settle()
    first.note(logits[0])
    second = Adaptive(images=500)
    second.load_state_dict(first.state_dict())
    second.note(logits[1:])
    second.settle()
    assert list(whole.state_dict()) == ["probability", "signs"]
    assert torch.equal(second.probability, whole.probability) and whole.probability > 0
    assert not list(whole.parameters())
