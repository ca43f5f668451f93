"""Objects with masks: as results, there and back; and how `core.finish` sums their masks up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from saccade.core import finish, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import CONIC
from saccade.core.results import Instances

CLASSES = ("ant", "bee")
CARD = Card("instances", CLASSES, {"name": "toy"}, InputSpec(3, (64, 64), "fit"))
BOX = [16.0, 8.0, 48.0, 40.0]
ELLIPSE, FLAT = [1.0, 0, 0, -1, -1, 0], [0.0] * CONIC


def outputs(weights: list[float], prototypes: np.ndarray, *boxes: list[float]) -> dict[str, Any]:
    """Of one image with objects that share their weights."""
    count = len(boxes)
    return {
        "boxes": np.array([boxes], np.float32).reshape(1, count, 4),
        "scores": np.linspace(0.9, 0.5, count, dtype=np.float32)[None],
        "labels": np.arange(count, dtype=np.float32)[None] % 2,
        "weights": np.tile(np.array(weights, np.float32), (1, count, 1)),
        "prototypes": prototypes[None].astype(np.float32),
    }


def run(given: dict[str, Any], size: tuple[int, int] = (64, 64), card: Card = CARD) -> Instances:
    (found,) = finish.results(given, card, [size], ["x.png"])
    assert isinstance(found, Instances)
    return found


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (32, 32), (128, 96)])
def test_the_conic_is_an_ellipse_in_its_box(size: tuple[int, int]) -> None:
    found = run(outputs([*ELLIPSE, 0.0], np.zeros((1, 16, 16)), BOX), size)
    factor = max(size) / 64
    down, across = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    expected = np.hypot(across - 32 * factor, down - 24 * factor) < 16 * factor
    assert np.array_equal(found.mask(0), expected)
    assert found.boxes[0].tolist() == [value * factor for value in BOX]


def test_prototypes_are_summed_and_read_between_their_cells() -> None:
    """Of two maps that rise across and down, the first once and the second taken off: what lies right of a diagonal."""
    rows, columns = np.mgrid[0:16, 0:16] * 4.0 + 2
    found = run(outputs([*FLAT, 1.0, -1.0], np.stack([columns, rows]), [10.0, 10, 50, 50]))
    down, across = np.mgrid[0:64, 0:64] + 0.5
    inner = (down > 6) & (down < 54) & (across > 6) & (across < 54)
    assert np.array_equal(found.mask(0), inner & (across > down))


def test_masks_end_a_cell_beyond_their_box_and_at_the_edges_of_the_image() -> None:
    found = run(outputs([9.0, 0, 0, 0, 0, 0, 0.0], np.zeros((1, 16, 16)), BOX, [-5.0, -5, 3, 70]))
    assert run_lengths.patch(found.masks[0]).box == (12, 4, 52, 44)
    assert run_lengths.patch(found.masks[1]).box == (0, 0, 7, 64)


def test_images_that_are_padded() -> None:
    """32 x 64 of 64 x 64: the prototypes are those of the padded input."""
    found = run(outputs([*FLAT, 1.0], np.ones((1, 8, 16)), [4.0, 4, 60, 28]), (16, 32))
    assert found.masks[0].size == (16, 32) and found.mask(0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.pop("prototypes"), "must give 'prototypes'"),
        (lambda one: one.update(prototypes=one["prototypes"][0]), "must give finite weights"),
        (lambda one: one.update(weights=one["weights"][..., 1:]), "must give finite weights"),
        (lambda one: one["prototypes"].fill(np.nan), "must give finite weights"),
    ],
)
def test_outputs_that_are_not_the_cards(change: Any, words: str) -> None:
    given = outputs([*ELLIPSE, 0.0], np.zeros((1, 16, 16)), BOX)
    change(given)
    with pytest.raises(UserError, match=words):
        run(given)


def result() -> Instances:
    return run(outputs([*ELLIPSE, 0.0], np.zeros((1, 16, 16)), BOX, [2.0, 2, 9, 9]), (128, 128))


def test_round_trip_through_json() -> None:
    one = result()
    assert one.summary == "1 ant, 1 bee"
    back = Instances.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)), CLASSES)
    assert back.to_dict() == one.to_dict() and back.masks == one.masks
    few = one.above(0.7)
    assert few.masks == one.masks[:1] and len(one.above(0.99).masks) == 0
    with pytest.raises(ValueError, match="masks must be 1"):
        replace(few, masks=one.masks)


@pytest.mark.parametrize("change", [{"masks": ["0"]}, {"masks": ["0", "x"]}, {"masks": [3, 4]}, {"size": [3, 3]}], ids=str)
def test_what_is_no_result(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Instances.from_dict(result().to_dict() | change, CLASSES)
    plain = result().to_dict()
    del plain["masks"]
    with pytest.raises(UserError, match="lacks 'masks'"):
        Instances.from_dict(plain, CLASSES)


def test_agreement_is_that_of_masks() -> None:
    one = result()
    assert one.agreement(one) == 1
    filled = np.zeros((128, 128), bool)
    filled[16:80, 32:96] = True
    assert one.agreement(replace(one, masks=(run_lengths.from_mask(filled), one.masks[1]))) == 0.5, "a full box is no ellipse"
