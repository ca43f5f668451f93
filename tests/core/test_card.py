"""Cards: canonical JSON out, and only cards in, whatever a file says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from saccade.core.card import MAX_CARD_BYTES, Card, InputSpec
from saccade.core.errors import UserError

CARD = Card(
    "classify",
    ("Katze", "wäßrig", "犬"),
    {"source": "saccade", "name": "n", "arguments": {"blocks": [1, 2]}},
    InputSpec(3, (17, 11), "crop", (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)),
    edits=({"op": "freeze"},),
    metrics={"accuracy": 0.5, "ece": None},
    version="0.1.0",
    licenses=({"weights": "w", "license": "MIT"},),
    data="photos",
)


def raw(**changes: Any) -> str:
    return json.dumps(CARD.to_dict() | changes)


def test_round_trip() -> None:
    assert Card.from_json(CARD.to_json()) == CARD
    least = Card("classify", (), {}, InputSpec(1, (1, 1)))
    assert Card.from_json(least.to_json()) == least
    assert Card.from_json('{"task":"classify","classes":["a"],"architecture":{},"input":{"channels":1,"size":[2,3]}}').edits == ()


def test_a_trained_model_is_the_last_link_of_its_descent() -> None:
    assert CARD.descent == (*CARD.licenses, {"weights": "this model", "data": "photos"})
    assert replace(CARD, data="").descent == CARD.licenses


def test_ids_of_classes_stand_there_where_the_set_has_them() -> None:
    numbered = replace(CARD, ids=(2, 7, 90))
    assert Card.from_json(numbered.to_json()) == numbered
    assert '"ids":[2,7,90]' in numbered.to_json() and '"ids"' not in CARD.to_json()


def test_canonical() -> None:
    """Golden, with the keys in order: the same model hashes the same whoever wrote it and in whatever order."""
    text = CARD.to_json()
    assert text == (
        '{"architecture":{"arguments":{"blocks":[1,2]},"name":"n","source":"saccade"},"classes":["Katze","wäßrig","犬"],"data":"photos","edits":[{"op":"freeze"}],'
        '"input":{"channels":3,"mean":[0.5,0.4,0.3],"resize":"crop","size":[17,11],"std":[0.2,0.2,0.25]},'
        '"licenses":[{"license":"MIT","weights":"w"}],"metrics":{"accuracy":0.5,"ece":null},"task":"classify","version":"0.1.0"}'
    )
    shuffled = dict(reversed(list(CARD.to_dict().items())))
    assert Card.from_json(json.dumps(shuffled, indent=3)).to_json() == text
    other = replace(CARD, architecture=dict(reversed(list(CARD.architecture.items()))))
    assert other.to_json() == text


def test_metrics_are_replaced_in_a_copy() -> None:
    assert CARD.with_metrics({"f1": 1.0}).metrics == {"f1": 1.0}
    assert CARD.metrics == {"accuracy": 0.5, "ece": None}


def test_a_card_with_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        CARD.with_metrics({"f1": float("nan")}).to_json()


SPEC = CARD.to_dict()["input"]
HOSTILE = {
    "empty": "",
    "no json": "{",
    "null": "null",
    "a list": "[]",
    "a number": "5",
    "a text": '"card"',
    "empty object": "{}",
    "deep": "[" * 100_000,
    "nan": raw().replace("0.5", "NaN", 1),
    "infinite mean": raw(input=SPEC | {"mean": [float("inf")] * 3}),
    "huge mean": raw(input=SPEC | {"mean": [10**400] * 3}),
    "mean of one": raw(input=SPEC | {"mean": [0.5]}),
    "std of zero": raw(input=SPEC | {"std": [0.0, 1, 1]}),
    "mean is text": raw(input=SPEC | {"mean": "abc"}),
    "mean is null": raw(input=SPEC | {"mean": None}),
    "huge size": raw(input=SPEC | {"size": [10**9, 1]}),
    "negative size": raw(input=SPEC | {"size": [-1, 1]}),
    "float size": raw(input=SPEC | {"size": [1.5, 1]}),
    "size of three": raw(input=SPEC | {"size": [1, 1, 1]}),
    "size is a number": raw(input=SPEC | {"size": 5}),
    "size is an object": raw(input=SPEC | {"size": {"0": 1, "1": 1}}),
    "channels true": raw(input=SPEC | {"channels": True}),
    "channels zero": raw(input=SPEC | {"channels": 0}),
    "resize is a list": raw(input=SPEC | {"resize": []}),
    "input is a list": raw(input=[1]),
    "input of unknown keys": raw(input=SPEC | {"more": 1}),
    "unknown keys": raw(more=1),
    "dunder": raw(__class__="x"),
    "classes is a text": raw(classes="abc"),
    "classes is an object": raw(classes={"a": 1}),
    "classes are numbers": raw(classes=[1, 2]),
    "classes is null": raw(classes=None),
    "ids of another length": raw(ids=[1, 2]),
    "ids twice": raw(ids=[1, 1, 2]),
    "ids are texts": raw(ids=["1", "2", "3"]),
    "ids are true": raw(ids=[True, 2, 3]),
    "ids are huge": raw(ids=[1, 2, 1 << 60]),
    "ids is an object": raw(ids={"1": 1}),
    "two classes of a name": raw(classes=["a", "a"]),
    "architecture is a list": raw(architecture=[]),
    "task is a list": raw(task=["classify"]),
    "version is a number": raw(version=1),
    "edits is a text": raw(edits="ab"),
    "edits are texts": raw(edits=["a"]),
    "edits is a number": raw(edits=1),
    "licenses are lists": raw(licenses=[[]]),
    "data is a number": raw(data=1),
    "license is a number": raw(licenses=[{"license": 1}]),
    "metrics is a number": raw(metrics=5),
    "metrics are texts": raw(metrics={"a": "b"}),
    "metric is true": raw(metrics={"a": True}),
    "too long": '{"task": "' + "x" * MAX_CARD_BYTES + '"}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_card_is_refused_in_one_short_line(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        Card.from_json(HOSTILE[kind], where="m.safetensors")
    line = str(caught.value)
    assert line.startswith("m.safetensors: not a saccade model card: ") and "\n" not in line and len(line) < 500


def test_the_base_of_the_hostile_ones_is_a_card() -> None:
    assert Card.from_json(raw()) == CARD
