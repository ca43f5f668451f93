"""Masks: what is learned is what is drawn; the loss is a sum over images; what is collated; figures by masks; pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.core import finish, keys, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.geometry import CELL, CONIC
from saccade.core.results import Instances
from saccade.core.run_lengths import Patch
from saccade.data.loader import Batch
from saccade.data.sample import Objects
from saccade.objects import loss
from saccade.objects.augmentation import gathered
from saccade.objects.drawing import drawn
from saccade.objects.example import example
from saccade.objects.loss import losses, mask_logits
from saccade.objects.metrics import ObjectsMetric
from saccade.objects.one_stage import OneStage
from saccade.objects.room import MEAN, STD

SPEC = InputSpec(3, (64, 64), "fit", MEAN, STD)
CARD = Card("instances", ("a", "b", "c"), {}, SPEC)


def network() -> OneStage:
    torch.manual_seed(0)
    return OneStage(SPEC, 3, (8, 8, 8, 8), (1, 1, 1, 1), 8, prototypes=4).eval()


def batch(n: int = 6) -> Batch:
    return example(n, keys.generator(0, "loss", 0))


def test_what_is_learned_is_what_is_drawn() -> None:
    """The logits that training sees at the middles of the cells, and the pixels that `core.finish` draws, twice as large."""
    draws = np.random.default_rng(0)
    prototypes, weights = draws.normal(size=(2, 4, 16, 16)), draws.normal(size=(2, 3, CONIC + 4))
    boxes = np.array([[[8.0, 8, 40, 48], [30, 2, 62, 20], [3, 40, 25, 61]]] * 2)
    tensors = [torch.from_numpy(value).double() for value in (prototypes, weights.reshape(6, -1), boxes.reshape(6, 4))]
    logits = mask_logits(*tensors, torch.tensor([0, 0, 0, 1, 1, 1])).reshape(2, 3, 16, 16).numpy()
    given = {
        "boxes": boxes,
        "scores": np.full((2, 3), 0.9),
        "labels": np.tile(np.arange(3), (2, 1)),
        "weights": weights,
        "prototypes": prototypes,
    }
    found = finish.results(given, CARD, [(64 * 2, 64 * 2)] * 2, ["x", "y"])
    # The middle of a cell of 4 pixels lies between pixels of an image twice as large: linear between the four about it.
    for one, wanted in zip(found, logits, strict=True):
        assert isinstance(one, Instances)
        for label, row, box in zip(one.labels.tolist(), range(3), one.boxes / 2, strict=True):
            mask = one.mask(row)
            about = np.stack([mask[3 + dy :: 8, 3 + dx :: 8] for dy in (0, 1) for dx in (0, 1)])
            sure = np.abs(wanted[label]) > 1.0
            cells = np.arange(16) * CELL + CELL / 2
            inner = (cells > box[0]) & (cells < box[2])
            rows = (cells > box[1]) & (cells < box[3])
            where = sure & rows[:, None] & inner
            agree = (about == (wanted[label] > 0)).all(0)[where]
            assert len(agree) and agree.mean() > 0.9


def test_the_loss_is_a_sum_over_images() -> None:
    model, given = network(), batch()
    with torch.no_grad():
        together = losses(model.raw(given.images), given)
        parts = [losses(model.raw(one.images), one) for one in given.split(2)]
    assert sum(one.weight for one in parts) == pytest.approx(together.weight, rel=1e-5)
    assert float(sum(one.parts["masks"] for one in parts)) == pytest.approx(float(together.parts["masks"]), rel=1e-4)
    assert float(sum(together.parts.values())) == pytest.approx(float(together.total), rel=1e-5)


def test_crowded_images_learn_from_some_of_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as may be, evenly chosen, each for as many; of an image alone as among others."""
    monkeypatch.setattr(loss, "MOST_MASKS", 7)
    positive = torch.zeros(3, 50, dtype=torch.bool)
    positive[0, ::5] = positive[2] = True
    image, place, share = loss._chosen(positive, 7)
    assert image.tolist() == [0] * 5 + [2] * 7 and place.tolist() == [0, 10, 20, 30, 40, 0, 8, 16, 24, 32, 40, 48]
    assert share.tolist() == pytest.approx([2.0] * 5 + [50 / 7] * 7)
    alone = loss._chosen(positive[2:], 7)
    assert torch.equal(alone[1], place[5:]) and torch.equal(alone[2], share[5:])
    test_the_loss_is_a_sum_over_images()


def test_without_objects_masks_cost_nothing() -> None:
    model, some = network(), batch(2)
    targets = {**some.targets, "labels": torch.full_like(some.targets["labels"], -1)}
    found = losses(model.raw(some.images), Batch(some.images, targets, some.positions))
    assert found.parts["masks"].item() == 0
    found.total.backward()


def test_the_right_mask_costs_least() -> None:
    """Of the conic's constant: lower or higher than where the mask is full costs more than the truth's own share."""
    model, some = network(), batch(3)
    with torch.no_grad():
        full = losses(model.raw(some.images), some).parts["masks"].item()
        emptied = {**some.targets, "masks": torch.zeros_like(some.targets["masks"])}
        none = losses(model.raw(some.images), Batch(some.images, emptied, some.positions)).parts["masks"].item()
    assert full < none, "an ellipse in each box is nearer to its square than to nothing"


def test_shares_of_cells() -> None:
    mask = np.zeros((8, 12), bool)
    mask[1:6, 3:9] = True
    box, none = np.array([[3.0, 1, 9, 6]]), np.zeros(1, bool)
    found = gathered([Objects(box, np.array([1]), none, none, (run_lengths.from_mask(mask),))], (8, 12))["masks"]
    expected = mask.reshape(2, 4, 3, 4).mean((1, 3)) * 255
    assert np.array_equal(found[0, 0].numpy(), np.round(expected))
    by_pixel = gathered([Objects(box, np.array([1]), none, none, (run_lengths.from_mask(mask),))], (8, 12), 1)["masks"]
    assert np.array_equal(by_pixel[0, 0].numpy(), mask * 255)
    assert gathered([Objects(np.zeros((0, 4)), np.zeros(0, np.int64), none[:0], none[:0])], (8, 12))["masks"].shape == (1, 1, 2, 3)


def answer(*masks: np.ndarray) -> Instances:
    covers = tuple(run_lengths.from_mask(mask) for mask in masks)
    boxes = np.array([run_lengths.patch(cover).box for cover in covers], np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(masks), dtype=np.float32)
    return Instances(boxes, scores, np.zeros(len(masks), np.int64), ("a",), "x.png", (40, 60), masks=covers)


def test_supervision_takes_masks() -> None:
    theirs = answer(disc(12, 12, 8), disc(40, 20, 5)).to_supervision()
    assert np.array_equal(theirs.mask, [disc(12, 12, 8), disc(40, 20, 5)])
    assert theirs.area.tolist() == [disc(12, 12, 8).sum(), disc(40, 20, 5).sum()]
    assert answer().to_supervision().mask.shape == (0, 40, 60)  # type: ignore[union-attr]


def truth(*masks: np.ndarray) -> Objects:
    found = answer(*masks)
    none = np.zeros(len(masks), bool)
    return Objects(found.boxes.astype(np.float64), found.labels, none, none, found.masks)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    down, across = np.mgrid[0:40, 0:60] + 0.5
    return np.hypot(across - x, down - y) < radius


def test_figures_are_those_of_masks() -> None:
    """A ring and the disc that it lies about have one box, but share no pixel."""
    inner, ring = disc(20, 20, 8), disc(20, 20, 12) & ~disc(20, 20, 8)
    metric = ObjectsMetric(("a",))
    metric.update([answer(ring)], [truth(disc(20, 20, 12) & disc(20, 20, 8))])
    assert metric.compute()["map_50"] == 0
    metric = ObjectsMetric(("a",))
    metric.update([answer(inner, disc(45, 20, 9))], [truth(inner, disc(45, 20, 9))])
    figures = metric.compute()
    assert figures["map"] == figures["f1"] == pytest.approx(1)
    row = metric.row(answer(inner), truth(inner))
    assert row["masks"] == row["truth"]["masks"] and len(row["masks"]) == 1


def test_pictures() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    picture = np.asarray(drawn(image, answer(disc(20, 20, 12)), truth(disc(22, 20, 12), disc(45, 20, 9))))
    assert picture.shape == (240, 360, 3)
    assert (picture == (0x00, 0x72, 0xB2)).all(2).any(), "an edge in the colour of the class"
    assert (picture == 255).all(2).any(), "a truth that was not found"
    inside = picture[20 * 6, 12 * 6].tolist()
    assert inside != [90, 90, 90] and inside != [0x00, 0x72, 0xB2], "a veil"
    none = Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("a",), "x", (17, 11))
    assert drawn(np.zeros((17, 11, 1), np.uint8), none).size[1] >= 320
    assert Patch(np.zeros((0, 0), bool), 0, 0).box == (0, 0, 0, 0)
