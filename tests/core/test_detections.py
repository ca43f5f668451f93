"""Boxes: as results, there and back; and what `core.finish` makes of a session's arrays."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.results import Detections

CLASSES = ("ant", "bee")
CARD = Card("detect", CLASSES, {"name": "toy"}, InputSpec(3, (64, 64), "fit"))


def outputs(*rows: tuple[float, int, list[float]], fill: int = 4) -> dict[str, Any]:
    """Of one image, filled up with nothing."""
    rows = (*rows, *[(0.0, 0, [0.0, 0, 0, 0])] * fill)
    boxes = np.array([[box for _, _, box in rows]], np.float32)
    return {
        "boxes": boxes,
        "scores": np.array([[s for s, _, _ in rows]], np.float32),
        "labels": np.array([[k for _, k, _ in rows]], np.float32),
    }


def run(given: dict[str, Any], size: tuple[int, int] = (64, 64), card: Card = CARD, **options: Any) -> Detections:
    (found,) = finish.results(given, card, [size], ["x.png"], **options)
    assert isinstance(found, Detections)
    return found


def test_boxes_come_in_pixels_of_the_original() -> None:
    """An image of 128 x 96 is seen at half its size, the rest of the input is padding."""
    found = run(outputs((0.9, 1, [4, 4, 20, 24]), (0.5, 0, [-3, 10, 60, 80]), (0.9, 0, [50, 10, 60, 20])), size=(128, 96))
    assert found.boxes.tolist() == [[8, 8, 40, 48], [0, 20, 96, 128]]
    assert found.names == ["bee", "ant"] and found.summary == "1 bee, 1 ant", "in the padding nothing is"


def test_of_two_on_one_object_the_surer_stays() -> None:
    given = outputs((0.6, 0, [0, 0, 20, 20]), (0.9, 0, [1, 0, 21, 20]), (0.8, 1, [0, 0, 20, 20]))
    assert run(given).scores.tolist() == pytest.approx([0.9, 0.8])
    all_of_them = run(given, card=replace(CARD, architecture={"name": "toy", "nms": False}))
    assert all_of_them.scores.tolist() == pytest.approx([0.9, 0.8, 0.6]), "its card says that its answers are one for each object"
    many = outputs(*((score, 0, [0.0, 0, 9, 9]) for score in np.linspace(0.3, 0.9, 400).tolist()))
    best = run(many, card=replace(CARD, architecture={"name": "toy", "nms": False}))
    assert len(best) == finish.MOST and best.scores[0] == pytest.approx(0.9)


def test_thresholds() -> None:
    given = outputs((0.9, 0, [0, 0, 9, 9]), (0.3, 0, [20, 20, 29, 29]), (0.01, 0, [40, 40, 49, 49]), (0.0005, 1, [50, 50, 60, 60]))
    assert len(run(given)) == 2, "0.25 where the card has none"
    assert len(run(given, card=replace(CARD, metrics={"threshold": 0.5}))) == 1
    assert len(run(given, complete=True)) == 3, "all that figures over scores need"
    assert len(run(outputs())) == 0 and run(outputs()).summary == "nothing"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.pop("scores"), "must give 'scores', it gives 'boxes', 'labels'"),
        (lambda one: one.update(boxes=one["boxes"][0]), "must give boxes"),
        (lambda one: one.update(scores=one["scores"][:, :2]), "must give boxes"),
        (lambda one: one["boxes"].fill(np.nan), "x.png: boxes and scores must be finite"),
        (lambda one: one["labels"].fill(2), "x.png: boxes and scores must be finite, and labels classes"),
        (lambda one: one.update(labels=[["a"] * 5]), "labels must be numbers"),
    ],
)
def test_outputs_that_are_not_the_cards(change: Any, words: str) -> None:
    given = outputs((0.9, 0, [0, 0, 9, 9]))
    change(given)
    with pytest.raises(UserError, match=words):
        run(given)


def result(**more: Any) -> Detections:
    boxes = np.array([[1, 2, 30.5, 40.25], [5, 5, 9, 9]], np.float32)
    return Detections(boxes, np.array([0.75, 0.5], np.float32), np.array([1, 0]), CLASSES, **more)


@pytest.mark.parametrize("one", [result(), result(source="ä/ß.jpg", size=(17, 11), notes=("turned by EXIF",)), result().above(0.99)])
def test_round_trip_through_json(one: Detections, tmp_path: Path) -> None:
    back = Detections.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)), CLASSES)
    assert back.to_dict() == one.to_dict()
    np.testing.assert_array_equal(back.boxes, one.boxes)
    assert json.loads(one.save(tmp_path / "x.json").read_text()) == one.to_dict()
    assert one.plot().axes
    assert "ä" in one._repr_html_() or not one.source


@pytest.mark.parametrize("change", [{"labels": ["cat", "ant"]}, {"boxes": [[1, 2, 3]]}, {"scores": [0.5]}, {"scores": ["x", "y"]}], ids=str)
def test_what_is_no_result(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Detections.from_dict(result().to_dict() | change, CLASSES)
    plain = result().to_dict()
    del plain["boxes"]
    with pytest.raises(UserError, match="lacks 'boxes'"):
        Detections.from_dict(plain, CLASSES)


def test_the_sets_own_numbers_of_classes_stand_beside_the_names() -> None:
    found = run(outputs((0.9, 1, [4, 4, 20, 24]), (0.5, 0, [30, 10, 60, 40])), card=replace(CARD, ids=(2, 90)))
    assert found.category_ids is not None and found.category_ids.tolist() == [90, 2]
    assert found.to_dict()["category_ids"] == [90, 2] and found.above(0.6).to_dict()["category_ids"] == [90]
    assert found.labels.tolist() == [1, 0], "contiguous inside"
    assert "category_ids" not in result().to_dict() and result().category_ids is None


@pytest.mark.parametrize("one", [result(), result().above(0.6), result().above(0.99)], ids=len)
def test_supervision_takes_them(one: Detections) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = one.to_supervision()
    assert isinstance(theirs, supervision.Detections) and len(theirs) == len(one)
    assert np.array_equal(theirs.xyxy, one.boxes) and np.array_equal(theirs.confidence, one.scores)
    assert np.array_equal(theirs.class_id, one.labels) and theirs.data["class_name"].tolist() == one.names
    assert theirs.mask is None and len(theirs[theirs.confidence > 0.6]) == len(one.above(0.6))
    zone = supervision.PolygonZone(np.array([[0, 0], [20, 0], [20, 50], [0, 50]]))
    assert zone.trigger(theirs).sum() == (one.boxes[:, [0, 2]].mean(1) < 20).sum()


def test_without_supervision_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"supervision is not installed \(pip install 'saccade\[supervision\]'\)"):
        result().to_supervision()


def test_agreement() -> None:
    one, none = result(), result().above(0.99)
    moved = replace(one, boxes=one.boxes + np.float32(0.02))
    assert one.agreement(one) == one.agreement(moved) == none.agreement(none) == 1
    assert one.agreement(none) == none.agreement(one) == 0
    assert one.agreement(one.above(0.6)) == pytest.approx(2 / 3)
    assert one.agreement(replace(one, labels=np.array([0, 0]))) == 0.5
