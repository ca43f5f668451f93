"""Mask2Former and EoMT in the room of things and stuff."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core import finish, keys, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.panoptic import Panoptic
from saccade.data.sample import Objects, Schema
from saccade.editing.planning import plan
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.task import Budget
from saccade.tasks.panoptic.example import CLASSES, STUFF
from saccade.tasks.panoptic.metrics import PanopticMetric
from saccade.tasks.panoptic.models.segments import _goals
from saccade.tasks.panoptic.task import Panoptic as Room
from saccade.training.step import Updater
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here
from tiny_queries import TINY, tiny  # noqa: F401  a fixture

TASK = Room()
SCHEMA = Schema("panoptic", CLASSES, {"train": (80, 80, 240)}, 3, (64, 64), True, {"train": 240, "val": 6}, ids=(9, 4, 7), stuff=STUFF)
pytestmark = pytest.mark.usefixtures("tiny")


def made(name: str, **changes: Any) -> tuple[Any, Card, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", **changes})
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_the_doors(name: str) -> None:
    """The card alone rebuilds it; it learns; its answers are segments at the original's pixels, and can be explained."""
    network, card, config = made(name, lr=3e-3)
    batch = TASK.example(4, keys.generator(0, "queries", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    update.progress = lambda step: step / 12
    found = [update.step([batch], step, 1.0)["loss"] for step in range(12)]
    assert np.isfinite(found).all() and min(found[-2:]) < 0.9 * found[0], found
    read = Card.from_json(card.to_json())
    assert (read.stuff, read.ids) == ((2,), (9, 4, 7))
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert all(torch.equal(one, same) for one, same in zip(outputs, other(batch.images), strict=True))
        decoded, alone = TASK.decode(outputs, (64, 64)), TASK.decode(network(batch.images[1:2]), (64, 64))
    for key, value in decoded.items():
        torch.testing.assert_close(value[1:2], alone[key], atol=1e-4, rtol=1e-4)
    results: Any = finish.results(decoded, card, [(128, 96)] * 4, list("wxyz"), complete=True)
    assert all(isinstance(one, Panoptic) and one.size == (128, 96) for one in results)
    for target in range(3):
        maps = gradcam(network, TASK.features(network), batch.images[:1], TASK.score, [target])
        assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()


def test_which_classes_are_stuff_goes_with_them() -> None:
    """Renamed they stay what they are, new ones are things, and taking an edit back brings them back."""
    network, card, _ = made("eomt_large")
    for text, classes, stuff in (
        ("set-classes +owl -bright", ("dark", "ground", "owl"), (1,)),
        ("set-classes ground=grass", ("bright", "dark", "grass"), (2,)),
        ("set-classes -ground", ("bright", "dark"), ()),
        ("set-classes =ground =bright", ("ground", "bright"), (0,)),
    ):
        planned = plan(text, network, card, TASK.build)
        assert (planned.card.classes, planned.card.stuff) == (classes, stuff), text
        before = planned.edit.before(planned.card)
        assert (before.classes, before.stuff, before.ids) == (card.classes, card.stuff, card.ids), text


def test_void_and_crowds_count_in_no_mask() -> None:
    masks = torch.zeros(4, 2, 3, dtype=torch.uint8)
    masks[0, 0], masks[1, :, 0], masks[2] = torch.tensor([255, 51, 0]), 0, 0
    masks[3, 1, 1], masks[1, 0, 2] = 200, 255
    goals = _goals(masks, torch.tensor([2, -2, 1, 0]))  # the second a crowd, the third shows nothing
    assert goals.labels.tolist() == [2, 0]
    torch.testing.assert_close(goals.masks[0], torch.tensor([[1.0, 0.2, 0], [0, 0, 0]]))
    assert goals.counted.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("name", TINY)
def test_images_without_segments_and_with_a_hundred(name: str) -> None:
    network, _, config = made(name)
    batch = TASK.example(2, keys.generator(0, "queries", 0))
    (phase,) = TASK.phases(network.train(), config)
    many = torch.randint(0, 2, (2, 100, 16, 16), dtype=torch.uint8) * 255
    targets = {"none": (many[:, :1] * 0, [[-1]] * 2), "crowds": (many[:, :1], [[-2]] * 2), "many": (many, [[1] * 100, [-1] * 100])}
    for what, (masks, labels) in targets.items():
        network.zero_grad()
        found = phase.loss(replace(batch, targets={**batch.targets, "masks": masks, "labels": torch.tensor(labels)}), 0)
        found.total.backward()
        assert torch.isfinite(found.total) and found.weight == (101 if what == "many" else 2), what
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters()), what


def test_the_metric_by_hand() -> None:
    """Truths are objects, of which a later one lies over an earlier; crowds need not be found; rows bring answers back."""
    card = Card("panoptic", CLASSES, {}, InputSpec(3, (8, 8)), stuff=STUFF)
    whole, left = np.ones((4, 6), bool), np.zeros((4, 6), bool)
    left[:, :2] = True
    none = np.zeros(2, bool)
    truth = Objects(np.zeros((2, 4)), np.array([2, 0]), none, none, (run_lengths.from_mask(whole), run_lengths.from_mask(left)))
    metric = PanopticMetric(card)
    result = metric._true(truth, (4, 6))
    assert [(one.label, one.thing) for one in result.segments] == [(2, False), (0, True)] and (result.map[:, :2] == 2).all()
    metric.update([result], [truth])
    assert metric.compute() == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "pq_things": 1.0, "pq_stuff": 1.0}
    assert [row["kind"] for row in metric.per_class()] == ["thing", "thing", "stuff"]
    row = metric.row(result, truth)
    assert row["pq"] == 1.0 and np.array_equal(Panoptic.from_dict(row, CLASSES).map, result.map)
    crowd = replace(truth, crowd=np.array([False, True]))
    nothing = Panoptic.of(np.where(left, 0, 1).astype(np.int32), [result.segments[0]], CLASSES)
    again = PanopticMetric(card)
    again.update([nothing], [crowd])
    assert again.compute()["pq"] == 1.0 and again.compute()["pq_things"] is None


def test_grey_images_and_cards_that_are_none() -> None:
    network, card, _ = made("eomt_large", channels=1)
    assert card.input.channels == 1 and len(network.eval()(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))) == 2
    with pytest.raises(UserError, match="fitted whole"):
        TASK.build(replace(card, input=replace(card.input, resize="native")))
    with pytest.raises(UserError, match="stuff must be a list of places"):
        Card.from_json(card.to_json().replace('"stuff":[2]', '"stuff":[3]'))
