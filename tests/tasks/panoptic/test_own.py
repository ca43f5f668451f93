"""Our own network of things and stuff: what it learns by, its card, edits of its classes, its recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.core import keys
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.data.loader import Batch
from saccade.data.sample import Schema
from saccade.editing.planning import plan
from saccade.objects import building
from saccade.objects import loss as objects
from saccade.objects.one_stage import WithPixels
from saccade.objects.room import MEAN, STD
from saccade.task import Budget
from saccade.tasks.panoptic.example import CLASSES, STUFF
from saccade.tasks.panoptic.loss import PIXELS, _pixels, losses
from saccade.tasks.panoptic.task import Panoptic

ROOM = Panoptic()
SPEC = InputSpec(3, (64, 64), "fit", MEAN, STD)
SCHEMA = Schema("panoptic", CLASSES, {"train": (80, 80, 240)}, 3, (64, 64), True, {"train": 240, "val": 6}, ids=(9, 4, 7), stuff=STUFF)
ARGUMENTS = {"classes": 3, "channels": 3, "widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "head": 8, "prototypes": 4}
CARD = Card("panoptic", CLASSES, {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, SPEC, ids=(9, 4, 7), stuff=STUFF)


def network() -> WithPixels:
    torch.manual_seed(0)
    made: Any = building.rebuild(CARD)
    return made.eval()


def batch(n: int = 6) -> Batch:
    return ROOM.example(n, keys.generator(0, "loss", 0))


def test_the_loss_of_pixels_by_hand() -> None:
    """Half of a cell grass and a quarter cat; a void cell, one that is mostly void, one of a crowd; images count by their segments."""
    logits = torch.tensor([[1.0, 0, 2], [0, 0, 5], [3, 1, 0], [9, 9, 9], [0, 7, 0]]).T[None, :, None]  # [1, 3, 1, 5]
    masks = torch.tensor([[128, 255, 0, 0, 0], [64, 0, 0, 100, 0], [0, 0, 0, 0, 255]], dtype=torch.uint8)[None, :, None]
    labels = torch.tensor([[2, 0, -2]])
    by_class = logits[0, :, 0].T.log_softmax(1)
    first = -(128 * by_class[0, 2] + 64 * by_class[0, 0]) / 192
    wanted = (first - by_class[1, 2]) / 2  # two cells count
    assert float(_pixels(logits, masks, labels)) == pytest.approx(2 * float(wanted), rel=1e-5)
    twice = [torch.cat([one, one]) for one in (logits, masks, labels)]
    assert float(_pixels(*twice)) == pytest.approx(4 * float(wanted), rel=1e-5)
    assert float(_pixels(logits, masks * 0, torch.full_like(labels, -1))) == 0, "where nothing is known nothing is lost"


def test_stuff_is_learned_by_pixels_alone() -> None:
    """What objects lose is what they would without it, and the rest cross-entropy; a sum over images."""
    model, given = network(), batch()
    model.pixels.last.weight.data.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]
    labels = given.targets["labels"]
    things = replace(given, targets={**given.targets, "labels": labels.masked_fill(labels == 2, -1)})
    with torch.no_grad():
        raw = model.raw(given.images)
        found, alone = losses(raw, given, STUFF), objects.losses(raw, things)
        parts = [losses(model.raw(one.images), one, STUFF) for one in given.split(2)]
    assert {name: float(part) for name, part in found.parts.items() if name != "pixels"} == pytest.approx(
        {name: float(part) for name, part in alone.parts.items()}
    )
    assert found.weight == alone.weight and float(found.parts["pixels"]) > 0
    assert float(found.total) == pytest.approx(float(alone.total) + float(found.parts["pixels"]), rel=1e-5)
    assert float(sum(one.parts["pixels"] for one in parts)) == pytest.approx(float(found.parts["pixels"]), rel=1e-4)
    shares = (F.one_hot(labels, 3)[..., None, None] * given.targets["masks"][:, :, None] / 255).sum(1)
    every = torch.nn.CrossEntropyLoss(reduction="none")(raw.pixels, shares).mean((1, 2))  # type: ignore[arg-type]
    assert float(found.parts["pixels"]) == pytest.approx(PIXELS * 2 * float(every.sum()), rel=1e-3), "each image has two segments"


def test_images_of_nothing_and_of_stuff_alone() -> None:
    model, given = network().train(), batch(2)
    for label in (-1, -2, 2):
        model.zero_grad()
        found = losses(model.raw(given.images), replace(given, targets={**given.targets, "labels": torch.full((2, 2), label)}), STUFF)
        found.total.backward()
        assert torch.isfinite(found.total) and found.weight == 2, label
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in model.parameters())


def test_outputs_and_their_decoding() -> None:
    model = network()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
        found = ROOM.decode(outputs, (64, 64))
    assert [tuple(one.shape[1:]) for one in outputs[1:]] == [(4, 16, 24), (3, 16, 24)]
    assert set(found) == {"boxes", "scores", "labels", "weights", "prototypes", "pixels"} and torch.equal(found["pixels"], outputs[2])
    even = found["pixels"].softmax(1)
    assert float((even - 1 / 3).abs().max()) < 0.1, "at first no class is likelier than another"


def test_other_classes() -> None:
    """Rows of both last layers go with their classes: what is told of those kept is the same."""
    planned = plan("set-classes +owl -bright", network(), CARD, ROOM.build)
    assert (planned.card.classes, planned.card.stuff) == (("dark", "ground", "owl"), (1,))
    assert planned.edit.promise == "exact" and set(planned.edit.modules()) == {"head.classes", "pixels.last"}
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = network()(image), planned.network(image)
    torch.testing.assert_close(after[2][:, :2], before[2][:, 1:])


def test_which_classes_are_stuff_the_data_tell() -> None:
    config, reasons = ROOM.recipe(SCHEMA, "cpu", Budget())
    assert config.model == "small_panoptic" and config.objects.stuff == STUFF
    assert "objects.stuff: 1 of 3 classes cannot be counted, as the data have it" in reasons
    _, card = ROOM.create(config, SCHEMA)
    assert card.stuff == STUFF and card.ids == (9, 4, 7)
    with pytest.raises(UserError, match=r"objects.stuff.*was \[0\].*--set objects.stuff=\[2\]"):
        ROOM.create(override(config, {"objects.stuff": (0,)}), SCHEMA)


def test_cards_that_are_none() -> None:
    assert np.prod(network().pixels.last.weight.shape) == 3 * 4  # type: ignore[union-attr]
    for changes in ({"prototypes": 0}, {"classes": 4}, {"pixels": True}):
        with pytest.raises(UserError):
            ROOM.build(replace(CARD, architecture={**CARD.architecture, "arguments": {**ARGUMENTS, **changes}}))
    with pytest.raises(UserError, match="fitted whole"):
        ROOM.build(replace(CARD, input=replace(SPEC, resize="native")))
    with pytest.raises(UserError, match=r"needs .* numbers, but the file holds 1,000"):
        ROOM.build(CARD, 1000)
