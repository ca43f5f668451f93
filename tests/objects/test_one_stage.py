"""The one-stage detector: its table, its places, any size, what an untrusted card may ask for; decode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import CONIC, FILL
from saccade.objects import building
from saccade.objects.decode import KEPT, Gridded, decode
from saccade.objects.one_stage import OneStage
from saccade.objects.room import MEAN, STD
from saccade.tasks.detection.task import Detection
from saccade.tasks.instances.task import Instances
from saccade.tasks.panoptic.task import Panoptic

SPEC = InputSpec(3, (96, 128), "fit", MEAN, STD)
ROOMS = (Detection(), Instances(), Panoptic())
SMALL = {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "head": 8}


def card(**changes: Any) -> Card:
    arguments = {"classes": 2, "channels": 3, "widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "head": 8, **changes}
    return Card("detect", ("a", "b"), {"source": "saccade", "name": "x", "arguments": arguments}, SPEC)


def network(classes: int = 2) -> OneStage:
    torch.manual_seed(0)
    return OneStage(SPEC, classes, **SMALL).eval()


@pytest.mark.parametrize(("task", "name"), [(room.name, name) for room in ROOMS for name in room.own])
def test_parameters_of_the_table(task: str, name: str) -> None:
    own = next(room for room in ROOMS if room.name == task).own[name]
    made = building.rebuild(Card(task, tuple(map(str, range(80))), own.architecture(name, classes=80, channels=3), SPEC))
    assert sum(parameter.numel() for parameter in made.parameters()) == own.parameters


def test_sides_that_are_no_multiples_are_padded_inside() -> None:
    image = torch.randint(0, 255, (1, 3, 33, 47), dtype=torch.uint8)
    whole = torch.full((1, 3, 64, 64), FILL, dtype=torch.uint8)
    whole[..., :33, :47] = image
    with torch.no_grad():
        assert torch.equal(network()(image), network()(whole))


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (96, 128)])
def test_any_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        raw = network().raw(torch.zeros(2, 3, *size, dtype=torch.uint8))
        found = network()(torch.zeros(2, 3, *size, dtype=torch.uint8))
    places = sum(size[0] // stride * (size[1] // stride) for stride in (8, 16, 32))
    assert found.shape == (2, places, 6) and found.dtype == torch.float32
    assert raw.points.shape == (places, 2)
    first = raw.points[: size[0] * size[1] // 64]
    assert first[0].tolist() == [4, 4] and first[1].tolist() == ([12, 4] if size[1] > 8 else [4, 12])
    assert raw.points.amax(0).tolist() == [size[1] - 4, size[0] - 4]
    assert (raw.points % raw.strides[:, None] == raw.strides[:, None] / 2).all()
    assert float(raw.logits.sigmoid().mean()) == pytest.approx(0.01, abs=2e-3), "at first every class is rare"


def test_an_image_has_the_same_answer_in_any_company() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        images = torch.randint(0, 255, (4, 3, 64, 96), dtype=torch.uint8)
        torch.testing.assert_close(model(images)[2:3], model(images[2:3]), atol=1e-4, rtol=1e-5)


def test_decode_keeps_the_surest_and_fills_up() -> None:
    outputs = torch.zeros(1, 84, 6)
    outputs[..., 4:] = -10.0
    outputs[0, 7, 4:] = torch.tensor([1.0, 3.0])
    outputs[0, 7, :4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = decode(outputs)
    assert {name: tuple(value.shape) for name, value in found.items()} == {"boxes": (1, KEPT, 4), "scores": (1, KEPT), "labels": (1, KEPT)}
    assert found["labels"][0, :2].tolist() == [1, 0], "one place may be two things"
    assert found["boxes"][0, 0].tolist() == found["boxes"][0, 1].tolist() == [1, 2, 3, 4]
    assert found["scores"][0, :2].tolist() == pytest.approx(torch.tensor([3.0, 1.0]).sigmoid().tolist())
    assert (found["scores"][0].diff() <= 0).all()
    assert (found["scores"][0, 84 * 2 :] == 0).all()
    assert ((found["labels"] >= 0) & (found["labels"] < 2)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 3},
        {"classes": 0},
        {"channels": 1},
        {"widths": [8, 8, 8]},
        {"widths": [8, 8, 8, 10**9]},
        {"widths": [1, 8, 8, 8]},
        {"widths": "8888"},
        {"blocks": [0, 1, 1, 1]},
        {"blocks": [1, 1, 1, True]},
        {"head": 0},
        {"head": 2.5},
        {"more": 1},
        {"prototypes": 4},
    ],
    ids=str,
)
def test_cards_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        building.rebuild(card(**changes))


def test_cards_of_others_and_too_large_ones() -> None:
    assert isinstance(building.rebuild(card()), OneStage)
    with pytest.raises(UserError, match="unknown architecture source"):
        building.rebuild(replace(card(), architecture={"source": "elsewhere"}))
    with pytest.raises(UserError, match="fitted whole"):
        building.rebuild(replace(card(), input=replace(SPEC, resize="crop")))
    with pytest.raises(UserError, match="the file holds 1,000"):
        building.rebuild(card(), 1000)
    masks = replace(card(prototypes=4), task="instances")
    assert building.rebuild(masks).prototypes is not None
    for wrong in (card(), card(prototypes=0), card(prototypes=10**9), card(prototypes=True)):
        with pytest.raises(UserError):
            building.rebuild(replace(wrong, task="instances"))


def test_decode_with_grids() -> None:
    """Of few places too: each grid stays beside its box, and what fills up has a score of 0."""
    places, grids = torch.full((2, 5, 4 + 2), -30.0), torch.randn(2, 5, 3, 3)
    places[1, 3] = torch.tensor([1.0, 2, 3, 4, 1, 3])
    found = decode(Gridded(places, grids))
    assert found.keys() == {"boxes", "scores", "labels", "grids"} and found["grids"].shape == (2, KEPT, 3, 3)
    assert found["labels"][1, :2].tolist() == [1, 0] and (found["scores"][:, 10:] == 0).all()
    assert torch.equal(found["grids"][1, :2], grids[1, [3, 3]])


def test_decode_with_masks() -> None:
    outputs = torch.zeros(1, 84, 6 + CONIC + 4), torch.randn(1, 4, 16, 24)
    outputs[0][..., 4:6] = -10.0
    outputs[0][0, 7] = torch.tensor([1.0, 2, 3, 4, 1, 3, *range(10)])
    found = decode(outputs)
    assert found["weights"].shape == (1, KEPT, CONIC + 4) and torch.equal(found["prototypes"], outputs[1])
    assert found["labels"][0, :2].tolist() == [1, 0]
    assert found["weights"][0, 0].tolist() == found["weights"][0, 1].tolist() == list(range(10))
