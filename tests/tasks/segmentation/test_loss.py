"""Parts of the loss against their definitions; no image's part depends on its neighbours; gradients by finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from saccade.core.class_masks import IGNORED
from saccade.core.config import SegmentationConfig
from saccade.data.loader import Batch
from saccade.tasks.segmentation.augmentation import gathered
from saccade.tasks.segmentation.loss import _Told, dice, losses, lovasz

ALL = SegmentationConfig(cross_entropy=1.0, focal=0.5, dice=1.0, lovasz=1.0, boundary=0.5, class_weights=(1.0, 2.0, 3.0))
NONE = SegmentationConfig(cross_entropy=0.0, dice=0.0)


def batch(n: int = 3, seed: int = 0, *, void: bool = True) -> tuple[torch.Tensor, Batch]:
    draws = np.random.default_rng(seed)
    masks = [draws.integers(0, 3, (4, 5), dtype=np.uint8).repeat(3, 0).repeat(3, 1) for _ in range(n)]
    for mask in masks if void else ():
        mask[:2] = IGNORED
    logits = torch.from_numpy(draws.normal(0, 2, (n, 3, 12, 15)))
    images = torch.zeros(n, 3, 12, 15, dtype=torch.uint8)
    return logits, Batch(images, gathered(masks, edges=True), np.arange(n))


def test_sum_over_images() -> None:
    logits, whole = batch()
    together = losses(logits, whole, ALL)
    assert together.weight == 3 and set(together.parts) == {"cross_entropy", "focal", "dice", "lovasz", "boundary"}
    alone = [losses(logits[i : i + 1], part, ALL) for i, part in enumerate(whole.split(1))]
    assert float(together.total) == pytest.approx(sum(float(one.total) for one in alone), rel=1e-5)
    for name, value in together.parts.items():
        assert float(value) == pytest.approx(sum(float(one.parts[name]) for one in alone), rel=1e-5), name


def test_cross_entropy_and_class_weights() -> None:
    logits, one = batch()
    target = one.targets["classes"].long()
    for weights in ((), (1.0, 2.0, 3.0)):
        config = replace(NONE, cross_entropy=1.0, class_weights=weights)
        tensor = torch.tensor(weights, dtype=torch.float32) if weights else None
        expected = sum(
            float(torch.nn.functional.cross_entropy(row[None].float(), goal[None], tensor, ignore_index=IGNORED))
            for row, goal in zip(logits, target, strict=True)
        )
        assert float(losses(logits, one, config).total) == pytest.approx(expected, rel=1e-5)


def test_perfect_answers_cost_nothing() -> None:
    _, one = batch(void=False)
    right = torch.nn.functional.one_hot(one.targets["classes"].long(), 3).permute(0, 3, 1, 2) * 60.0
    for config in (replace(NONE, cross_entropy=1.0), replace(NONE, focal=1.0), replace(NONE, dice=1.0), replace(NONE, lovasz=1.0)):
        assert float(losses(right, one, config).total) == pytest.approx(0, abs=1e-4)
        assert float(losses(-right, one, config).total) > 1
    edges = replace(NONE, boundary=1.0)
    assert float(losses(right, one, edges).total) < float(losses(-right, one, edges).total)


def test_lovasz_of_certain_answers_is_the_jaccard_loss() -> None:
    """At the corners of the cube the extension equals the set function (Berman et al. 2018, section 2)."""
    draws = np.random.default_rng(3)
    truth, said = (torch.from_numpy(draws.integers(0, 3, (8, 9))) for _ in range(2))
    one, other = (torch.nn.functional.one_hot(mask, 3).permute(2, 0, 1) for mask in (said, truth))
    expected = np.mean([1 - float(((said == k) & (truth == k)).sum() / ((said == k) | (truth == k)).sum()) for k in range(3)])
    assert float(lovasz(one.double(), other, torch.ones(8, 9, dtype=torch.bool))) == pytest.approx(expected)


def test_dice_by_hand() -> None:
    shares = torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]])
    truth = torch.tensor([[[[0, 1]], [[1, 0]]]])
    first, second = 1 - (2 * 1.0 + 1) / (1.25 + 1 + 1), 1 - (2 * 0.5 + 1) / (0.25 + 1 + 1)
    assert float(dice(shares, truth)) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(("side", "void"), [(12, True), (12, False), (640, True)])
def test_dice_of_pixels_of_one_class_is_that_of_maps(side: int, void: bool) -> None:
    """In float32 too where an image is large: sums of its pixels lose nothing."""
    draws = np.random.default_rng(4)
    classes = draws.integers(0, 3, (2, side, side)).astype(np.uint8)
    classes[0] = np.where(classes[0] == 2, 0, classes[0])  # an image without one of them
    if void:
        classes[:, : side // 3] = IGNORED
    logits = torch.from_numpy(draws.normal(0, 1, (2, 3, side, side)) + 6.0 * np.eye(3)[np.minimum(classes, 2)].transpose(0, 3, 1, 2))
    one = Batch(torch.zeros(2, 3, side, side, dtype=torch.uint8), gathered(list(classes)), np.arange(2))
    counted = torch.from_numpy(classes != IGNORED)[:, None]
    truth = (torch.from_numpy(classes)[:, None] == torch.arange(3)[:, None, None]) & counted
    expected = dice(logits.softmax(1) * counted, truth).sum()
    found = losses(logits.float(), one, replace(NONE, dice=1.0)).parts["dice"]
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_gradients() -> None:
    logits, one = batch(2)
    point = logits.clone().requires_grad_()

    def total(values: torch.Tensor) -> torch.Tensor:
        return losses(values, one, ALL).total

    total(point).backward()
    direction = torch.randn_like(logits)
    step = 1e-2
    slope = (total(logits + step * direction) - total(logits - step * direction)) / (2 * step)
    assert float((point.grad * direction).sum()) == pytest.approx(float(slope), rel=0.05)  # type: ignore[operator]


@pytest.mark.parametrize("void", [True, False])
def test_the_gradient_that_is_found_at_once(void: bool) -> None:
    """By finite differences in float64, of each of the three sums."""
    logits, one = batch(2, void=void)
    classes = one.targets["classes"].long()
    counted = classes != IGNORED
    goals = classes.where(counted, torch.zeros_like(classes))
    assert void is not bool(counted.all())

    def told(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        entropy, both, squares = _Told.apply(values, goals, counted)
        return entropy * counted, both, squares

    assert torch.autograd.gradcheck(told, (logits.contiguous(memory_format=torch.channels_last).requires_grad_(),))


def test_images_where_nothing_counts() -> None:
    logits, one = batch(1)
    void = Batch(one.images, gathered([np.full((12, 15), IGNORED, np.uint8)], edges=True), one.positions)
    point = logits.clone().requires_grad_()
    found = losses(point, void, ALL)
    found.total.backward()
    assert float(found.total) == 0 and found.weight == 1 and torch.isfinite(point.grad).all()  # type: ignore[arg-type]
