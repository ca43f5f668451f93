"""What the detector learns by, against the papers' formulas and torchvision's; and that it is a sum over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from saccade.core import keys
from saccade.core.card import InputSpec
from saccade.data.loader import Batch
from saccade.objects.example import example
from saccade.objects.loss import IGNORED, NONE, _distribution, _quality_focal, generalized_overlap, losses
from saccade.objects.one_stage import STEPS, OneStage

SPEC = InputSpec(3, (64, 64), "fit", (0.5,) * 3, (0.5,) * 3)


def network() -> OneStage:
    torch.manual_seed(0)
    return OneStage(SPEC, 3, (8, 8, 8, 8), (1, 1, 1, 1), 8).eval()


def batch(n: int = 6) -> Batch:
    return example(n, keys.generator(0, "loss", 0))


@settings(deadline=None)
@given(st.integers(0, 1 << 32))
def test_generalized_overlap_is_torchvisions(seed: int) -> None:
    draws = np.random.default_rng(seed)
    corner = draws.uniform(0, 40, (8, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + draws.uniform(1, 30, (8, 2))], 1)).float()
    one, other = boxes[:4], boxes[4:]
    torch.testing.assert_close(
        generalized_overlap(one, other), torchvision.ops.generalized_box_iou(one, other).diag(), atol=1e-5, rtol=1e-4
    )


def test_quality_focal_at_known_points() -> None:
    """Equation 5: -|y - s|^2 ((1 - y) log(1 - s) + y log s)."""
    logits, wanted = torch.tensor([0.0, 2.0, -3.0]), torch.tensor([0.5, 0.0, 1.0])
    s = logits.sigmoid()
    expected = -((wanted - s).abs() ** 2) * ((1 - wanted) * (1 - s).log() + wanted * s.log())
    torch.testing.assert_close(_quality_focal(logits, wanted), expected)
    assert _quality_focal(logits, wanted)[0] == 0, "a goal that is met costs nothing"


def test_a_distribution_between_two_steps() -> None:
    """A side 2.25 steps away: least where three quarters lie on step 2 and a quarter on step 3."""
    points, boxes, strides = torch.tensor([[50.0, 50.0]]), torch.tensor([[32.0, 32.0, 68.0, 68.0]]), torch.tensor([8.0])
    sides = torch.full((1, 4, STEPS), -20.0)
    sides[:, :, 2], sides[:, :, 3] = float(np.log(0.75)), float(np.log(0.25))
    least = float(_distribution(sides, boxes, points, strides))
    assert least == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-4)
    for shift in (-0.5, 0.5):
        other = sides.clone()
        other[:, :, 2] += shift
        assert float(_distribution(other, boxes, points, strides)) > least
    far = torch.tensor([[-1000.0, 50, 60, 60]])
    assert torch.isfinite(_distribution(sides, far, points, strides)).all(), "beyond the last step the last one is learned"


def test_boxes_are_read_where_their_distributions_lie() -> None:
    raw = network().raw(batch().images)
    sides = torch.full_like(raw.sides, -40.0)
    sides[..., 3] = 40.0
    boxes = type(raw)(raw.logits, sides, raw.points, raw.strides).boxes()
    expected = torch.cat([raw.points - 3 * raw.strides[:, None], raw.points + 3 * raw.strides[:, None]], 1)
    torch.testing.assert_close(boxes, expected.expand_as(boxes))


def test_it_is_a_sum_over_images() -> None:
    """So that accumulation, halved micro-batches and ranks agree: total, weight and parts."""
    model, whole = network(), batch()
    with torch.no_grad():
        together = losses(model.raw(whole.images), whole)
        parts = [losses(model.raw(one.images), one) for one in whole.split(2)]
    assert sum(one.weight for one in parts) == pytest.approx(together.weight, rel=1e-5)
    assert float(sum(one.total for one in parts)) == pytest.approx(float(together.total), rel=1e-4)
    assert float(sum(together.parts.values())) == pytest.approx(float(together.total), rel=1e-5)


def test_images_without_objects_teach_the_background() -> None:
    model, some = network(), batch(2)
    empty = Batch(some.images, {"boxes": torch.zeros(2, 1, 4), "labels": torch.full((2, 1), NONE)}, some.positions)
    found = losses(model.raw(empty.images), empty)
    assert found.weight == 2
    assert found.parts["boxes"].item() == found.parts["sides"].item() == 0
    assert found.total.item() > 0
    found.total.backward()
    assert float(model.head.classes.bias.grad.sum()) > 0, "all scores are pushed down"  # type: ignore[union-attr]


def test_in_a_crowd_nothing_is_learned_about_the_background() -> None:
    model, some = network(), batch(1)
    crowd = Batch(some.images, {"boxes": torch.tensor([[[0.0, 0, 64, 64]]]), "labels": torch.full((1, 1), IGNORED)}, some.positions)
    assert losses(model.raw(crowd.images), crowd).total.item() == 0
    boxes, labels = some.targets["boxes"], some.targets["labels"]
    inside = {"boxes": torch.cat([boxes, torch.tensor([[[0.0, 0, 64, 64]]])], 1), "labels": F.pad(labels, (0, 1), value=IGNORED)}
    both = losses(model.raw(some.images), Batch(some.images, inside, some.positions))
    alone = losses(model.raw(some.images), some)
    assert 0 < both.parts["classes"].item() < alone.parts["classes"].item()
    assert both.parts["boxes"].item() == pytest.approx(alone.parts["boxes"].item())
