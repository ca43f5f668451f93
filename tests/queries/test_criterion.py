"""The loss of masks and queries: transformers' numbers, what does not count, batches cut in any way, nothing and too much to be found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.mask2former.configuration_mask2former import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from saccade.queries import criterion
from saccade.queries.criterion import CELL, Answers, Goals
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here

QUERIES, CLASSES, SIDE = 7, 4, 12


def answers(images: int, seed: int = 0) -> Answers:
    rng = torch.Generator().manual_seed(seed)
    classes = torch.randn(images, QUERIES, CLASSES + 1, generator=rng)
    return Answers(classes, 4 * torch.randn(images, QUERIES, SIDE, SIDE, generator=rng))


def goals(count: int, seed: int = 0) -> Goals:
    """Rectangles of the image's pixels."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, CELL * SIDE, CELL * SIDE), np.float32)
    for mask in masks:
        top, left = rng.integers(0, CELL * SIDE - 10, 2)
        mask[top : top + rng.integers(5, 30), left : left + rng.integers(5, 30)] = 1
    return Goals(torch.from_numpy(masks), torch.from_numpy(rng.integers(0, CLASSES, count)), torch.ones(CELL * SIDE, CELL * SIDE))


def seeded(layers: list[Answers], wanted: list[Goals]) -> Any:
    torch.manual_seed(3)
    return criterion.losses(layers, wanted)


@pytest.mark.parametrize("count", [1, 3, QUERIES, 20])
def test_the_librarys_own_numbers(count: int) -> None:
    """Of an image on which all counts, at the same points."""
    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=CELL**2 * SIDE**2)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    theirs = Mask2FormerLoss(config, weights)
    told, goal = answers(1), goals(count)
    ours = seeded([told], [goal])
    torch.manual_seed(3)
    found = theirs(told.masks, told.classes, [goal.masks], [goal.labels])
    for name, part in (("loss_cross_entropy", "classes"), ("loss_mask", "pixels"), ("loss_dice", "overlap")):
        assert float(ours.parts[part]) / ours.weight == pytest.approx(weights[name] * float(found[name]), rel=1e-5), name
    assert ours.weight == count


def test_it_is_a_sum_over_images() -> None:
    """Divided by the masks of all: the same whether images come together or one by one, up to the points that chance draws."""
    told, wanted = answers(3), [goals(2, 1), goals(0), goals(5, 2)]
    whole = seeded([told], wanted)
    torch.manual_seed(3)
    parts = [criterion.losses([Answers(told.classes[k : k + 1], told.masks[k : k + 1])], wanted[k : k + 1]) for k in range(3)]
    assert whole.weight == sum(one.weight for one in parts) == 2 + 1 + 5
    assert float(whole.total) == pytest.approx(sum(float(one.total) for one in parts), rel=1e-6)


def test_places_that_do_not_count() -> None:
    """Change nothing, whatever stands there."""
    told, wanted = answers(1), goals(3)
    counted = wanted.counted.clone()
    counted[:, : 2 * SIDE] = 0
    other = wanted.masks.clone()
    other[:, :, : 2 * SIDE - 2 * CELL] = 1 - other[:, :, : 2 * SIDE - 2 * CELL]
    one, two = (seeded([told], [Goals(masks, wanted.labels, counted)]) for masks in (wanted.masks, other))
    assert float(one.total) == pytest.approx(float(two.total), rel=1e-6)
    assert float(seeded([told], [Goals(other, wanted.labels, wanted.counted)]).total) != pytest.approx(float(one.total), rel=1e-2)
    masks = told.masks.clone().requires_grad_()
    seeded([Answers(told.classes, masks)], [Goals(wanted.masks, wanted.labels, counted)]).total.backward()
    assert masks.grad is not None
    assert masks.grad[..., : SIDE // 2 - 1].abs().max() == 0 < masks.grad[..., SIDE // 2 + 1 :].abs().max()


def test_each_query_learns_the_mask_that_it_tells_best() -> None:
    wanted = goals(3)
    told = answers(1)
    masks = told.masks.clone()
    masks[0, [5, 0, 2]] = torch.nn.functional.avg_pool2d(wanted.masks[None], CELL)[0] * 20 - 10
    queries, objects = criterion.matched(told.classes[0] * 0, masks[0], wanted, 2000)
    assert dict(zip(queries.tolist(), objects.tolist(), strict=True)) == {5: 0, 0: 1, 2: 2}
    classes = torch.full((1, QUERIES, CLASSES + 1), -20.0)
    classes[..., CLASSES] = 20.0
    classes[0, [5, 0, 2], CLASSES] = -20.0
    classes[0, [5, 0, 2], wanted.labels] = 20.0
    right = seeded([Answers(classes, masks)], [wanted])
    assert float(right.parts["classes"]) < 1e-3 and float(right.total) < 0.5 * float(seeded([told], [wanted]).total)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_nothing_and_more_than_there_are_queries(count: int) -> None:
    told = answers(2)
    layers = [Answers(told.classes.clone().requires_grad_(), told.masks.clone().requires_grad_()) for _ in range(2)]
    void = goals(count)
    found = seeded(layers, [void, Goals(void.masks, void.labels, torch.zeros_like(void.counted))])
    found.total.backward()
    assert torch.isfinite(found.total) and found.weight == 2 * max(1, count) and list(found.parts) == ["classes", "pixels", "overlap"]
    assert float(found.total.detach()) == pytest.approx(sum(float(part.detach()) for part in found.parts.values()))
    for one in layers:
        assert one.classes.grad is not None and torch.isfinite(one.classes.grad).all() and one.classes.grad.abs().sum() > 0


def test_half_precision_elsewhere_changes_nothing() -> None:
    told, wanted = answers(1), goals(3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = seeded([told], [wanted])
    assert float(inside.total) == float(seeded([told], [wanted]).total)


def test_numbers_that_are_none_show_in_the_loss() -> None:
    told = answers(1)
    told.masks[0, 2, 3, 3] = torch.nan
    assert not torch.isfinite(seeded([told], [goals(QUERIES)]).total)
