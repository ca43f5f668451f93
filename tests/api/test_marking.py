"""The marks of a report: what happened on the way, and what came of each edit."""

from __future__ import annotations

from typing import Any

import pytest

from saccade.api.marking import marks

EDIT = {"event": "edit", "step": 30, "number": 0, "text": "widen layer2 2", "edit": {"promise": "exact"}, "parameters": [1000, 4000]}
ROWS: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.0},
    {"step": 20, "metrics": {"accuracy": 0.9, "nll": 0.3}},
    {"step": 30, "metrics": {"accuracy": 0.915, "nll": None}},
    {"step": 1040, "metrics": {"accuracy": 0.92, "nll": 0.25}},
]


@pytest.mark.parametrize(
    ("more", "rows", "primary", "effect"),
    [
        ({}, ROWS, "accuracy", "exact; 1,000 → 4,000 parameters; accuracy 91.5\u202f% before, 92.0\u202f% after (step 1,040)"),
        ({"flops": [10_000, 90_000]}, ROWS[:3], "accuracy", None),
        ({"flops": [2_300_000, 12_345_678]}, [], "accuracy", "exact; 1,000 → 4,000 parameters; 2.3 → 12.3 million FLOPs an image"),
        ({}, ROWS[:1], "accuracy", "exact; 1,000 → 4,000 parameters"),
        ({"step": 5}, ROWS, "accuracy", "exact; 1,000 → 4,000 parameters; accuracy 90.0\u202f% after (step 20)"),
        ({"parameters": [7, 7]}, ROWS, "nll", "exact; log loss 0.3 before, 0.25 after (step 1,040)"),
        ({"parameters": "many", "edit": None}, [], "accuracy", ""),
    ],
)
def test_the_effect_of_an_edit(more: dict[str, Any], rows: list[dict[str, Any]], primary: str, effect: str | None) -> None:
    (mark,) = marks([{**EDIT, **more}], rows, primary)
    assert mark["text"] == "widen layer2 2" and mark["step"] == more.get("step", 30)
    if effect is None:
        effect = "exact; 1,000 → 4,000 parameters; 10,000 → 90,000 FLOPs an image; accuracy 91.5\u202f% before"
    assert mark["effect"] == effect


def test_other_events_and_what_was_withdrawn() -> None:
    events: list[dict[str, Any]] = [
        {"event": "undo", "step": 40, "number": 1, "text": "widen layer2 2", "parameters": [4000, 1000]},
        {"event": "set", "step": 41, "number": 2, "settings": {"lr": 0.01, "clip": 2.0}, "rate": 0.001},
        {"event": "set", "step": 42, "number": 3, "settings": {"clip": 1.0}, "undoes": 2},
        {"event": "edit", "step": 43, "number": 4, "text": "too large"},
        {"event": "withdrawn", "step": 43, "number": 4},
        {"event": "refused", "step": 44, "number": 5, "text": "widen nosuch 2"},
        {"event": "paused", "step": 45},
        {"event": "begun"},
    ]
    told = marks(events, [], "accuracy")
    assert [mark["text"] for mark in told] == [
        "undo widen layer2 2",
        "lr=0.001, clip=2.0",
        "undo: clip=1.0",
        "not edited, widen nosuch 2",
        "paused",
    ]
    assert [mark["anew"] for mark in told] == [True, False, False, False, False]
    (exact,), (pruned,) = marks([EDIT], [], "accuracy"), marks([{**EDIT, "edit": {"promise": "changes the function"}}], [], "accuracy")
    assert pruned["anew"] and not exact["anew"] and marks([{**EDIT, "edit": {"promise": "exact", "anew": True}}], [], "")[0]["anew"]
    assert [mark["effect"] for mark in told] == ["4,000 → 1,000 parameters", "", "", "", ""]
