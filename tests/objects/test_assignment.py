"""Which place learns which object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.core import average_precision as ap
from saccade.objects import assignment
from saccade.objects.assignment import TOP, assign, inside, overlap

POINTS = torch.stack(torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="xy"), 2).flatten(0, 1) * 8


def random_boxes(draws: np.random.Generator, n: int) -> torch.Tensor:
    corner = draws.uniform(0, 44, (n, 2))
    return torch.from_numpy(np.concatenate([corner, corner + draws.uniform(4, 30, (n, 2))], 1)).float()


@given(st.integers(0, 1 << 32))
def test_overlap_is_that_of_the_figures(seed: int) -> None:
    draws = np.random.default_rng(seed)
    one, other = random_boxes(draws, 5), random_boxes(draws, 4)
    expected = ap.overlaps(one.numpy(), other.numpy(), np.zeros(4, bool))
    np.testing.assert_allclose(overlap(one[:, None], other[None]).numpy(), expected, atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 5))
def test_goals(seed: int, objects: int) -> None:
    """Every object has a place, a place one object, inside of it; the best place of each gets its largest overlap, all others less."""
    draws = np.random.default_rng(seed)
    torch.manual_seed(seed % 1000)
    boxes = torch.cat([random_boxes(draws, objects), torch.zeros(6 - objects, 4)])[None]
    labels = torch.full((1, 6), -1)
    labels[0, :objects] = torch.from_numpy(draws.integers(0, 3, objects))
    found = torch.cat([POINTS - torch.rand(64, 2) * 20, POINTS + torch.rand(64, 2) * 20], 1)[None]
    scores = torch.rand(1, 64, 3)
    goals = assign(scores, found, POINTS, boxes, labels)
    taken = goals.quality[0] > 0
    assert (goals.quality >= 0).all() and (goals.quality <= 1).all()
    if not objects:
        assert not taken.any()
        return
    assert int(taken.sum()) <= objects * TOP
    allowed = inside(POINTS, boxes[:, :objects])[0]
    near = overlap(boxes[0, :objects, None], found)
    for place in torch.nonzero(taken)[:, 0].tolist():
        own = [k for k in range(objects) if torch.equal(boxes[0, k], goals.boxes[0, place]) and labels[0, k] == goals.labels[0, place]]
        assert own and any(allowed[k, place] for k in own)
        assert goals.quality[0, place] <= max(near[k, place] for k in range(objects)) + 1 or own
    for k in range(objects):
        mine = taken & (goals.boxes[0] == boxes[0, k]).all(1)
        if mine.any():
            assert goals.quality[0, mine].max() == pytest.approx(float(near[k, mine].max()), abs=1e-5)


def test_an_object_smaller_than_a_cell_has_places() -> None:
    boxes = torch.tensor([[[29.0, 29, 32, 32]]])
    goals = assign(torch.full((1, 64, 1), 0.5), torch.cat([POINTS - 8, POINTS + 8], 1)[None], POINTS, boxes, torch.zeros(1, 1).long())
    assert (goals.quality > 0).sum() == 4


def test_the_surer_place_wins() -> None:
    boxes, labels = torch.tensor([[[0.0, 0, 64, 64]]]), torch.zeros(1, 1).long()
    found = torch.tensor([0.0, 0, 64, 64]).expand(1, 64, 4)
    scores = torch.full((1, 64, 1), 0.1)
    scores[0, 20] = 0.9
    goals = assign(scores, found, POINTS, boxes, labels)
    assert int(goals.quality[0].argmax()) == 20
    assert goals.quality[0, 20] == pytest.approx(1.0)
    assert sorted(goals.quality[0][goals.quality[0] > 0].tolist())[:-1] == pytest.approx([(0.1 / 0.9) ** 0.5] * (TOP - 1))


def test_images_of_a_batch_do_not_meet() -> None:
    draws = np.random.default_rng(3)
    boxes = torch.stack([random_boxes(draws, 3), random_boxes(draws, 3)])
    labels = torch.tensor([[0, 1, 2], [2, -1, 1]])
    torch.manual_seed(0)
    found, scores = torch.cat([POINTS - 9, POINTS + 7], 1).expand(2, 64, 4), torch.rand(2, 64, 3)
    both = assign(scores, found, POINTS, boxes, labels)
    for row in range(2):
        one = assign(scores[row : row + 1], found[row : row + 1], POINTS, boxes[row : row + 1], labels[row : row + 1])
        assert torch.equal(one.quality[0], both.quality[row])
        kept = one.quality[0] > 0
        assert torch.equal(one.labels[0][kept], both.labels[row][kept])


def test_a_batch_of_very_many_objects_is_gone_through_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same goals, to the bit, whatever stands between the objects of an image and behind them."""
    draws = np.random.default_rng(5)
    boxes = torch.stack([random_boxes(draws, 7) for _ in range(4)])
    labels = torch.tensor([[0, 1, 2, 1, 0, 2, 1], [2, -2, 1, -1, -1, -1, -1], [-1] * 7, [-2, 0, -1, -1, -1, -1, -1]])
    torch.manual_seed(0)
    found, scores = torch.cat([POINTS - 9, POINTS + 7], 1).expand(4, 64, 4), torch.rand(4, 64, 3)
    together = assign(scores, found, POINTS, boxes, labels)
    monkeypatch.setattr(assignment, "ROOM", 0)
    apart = assign(scores, found, POINTS, boxes, labels)
    shown = together.quality > 0
    assert torch.equal(apart.quality, together.quality) and shown.any(1).tolist() == [True, True, False, True]
    for name in ("objects", "labels", "boxes"):
        assert torch.equal(getattr(apart, name)[shown], getattr(together, name)[shown])
