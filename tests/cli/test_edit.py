"""What `edit` asks of the API, and what it prints."""

from __future__ import annotations

import inspect
import json
import types
from typing import Any

import pytest

from saccade import api as real_api
from saccade.cli.main import main

PARAMETERS = inspect.signature(real_api.edit).parameters
Captured = pytest.CaptureFixture[str]
SHAPES = [{"name": f"[b]layer{place}.weight", "before": [64, 3], "after": [96, 3]} for place in range(14)]
ROW = {
    "text": "widen [b]layer2 1.5",
    "promise": "exact",
    "parameters_before": 1234,
    "parameters_after": 2345,
    "flops_before": 10_000,
    "flops_after": 20_000,
    "difference": 1.2e-7,
    "modules": ["[b]layer2", "b"],
    "shapes": SHAPES,
}
FOUND = {
    "edits": [ROW, {**ROW, "promise": "changes the function", "difference": None, "shapes": []}],
    "step": None,
    "model": "a b.safetensors",
}


def answer(facts: dict[str, Any]) -> types.SimpleNamespace:
    return types.SimpleNamespace(to_dict=lambda: facts)


def test_it_hands_on_what_was_given(api: Any, capsys: Captured) -> None:
    api.answer = answer(FOUND)
    assert main(["edit", "m", "widen x 2", "deepen y +1", "--dry-run", "--out", "o", "--seed", "7"]) == 0
    assert api.calls == [("edit", ("m", "widen x 2", "deepen y +1"), {"dry_run": True, "undo": False, "out": "o", "seed": 7})]


def test_an_option_that_is_not_given_is_the_default_of_python(api: Any, capsys: Captured) -> None:
    api.answer = answer(FOUND)
    assert main(["edit", "m", "--undo"]) == 0
    ((_, args, options),) = api.calls
    assert args == ("m",)
    assert set(options) == set(PARAMETERS) - {"target", "edits"}
    assert all(options[name] == PARAMETERS[name].default for name in options if name != "undo")


def test_in_words_and_as_json(api: Any, capsys: Captured) -> None:
    api.answer = answer(FOUND)
    assert main(["edit", "m", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "widen [b]layer2 1.5",
        "  promise     exact: outputs differ by 1e-07",
        "  parameters  1,234 -> 2,345",
        "  FLOPs       10,000 -> 20,000",
        "  2 modules: [b]layer2, b",
        "    [b]layer0.weight  64x3 -> 96x3",
    ]
    assert "    and 2 more tensors" in lines and "  promise     changes the function" in lines
    assert lines[-1] == "model  a b.safetensors"
    assert main(["edit", "m", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == FOUND


@pytest.mark.parametrize(("argv", "word"), [([], "MODEL"), (["m", "--seed", "-1"], "--seed"), (["m", "x", "--dry"], "--dry-run")])
def test_usage_errors_are_one_line(api: Any, capsys: Captured, argv: list[str], word: str) -> None:
    assert main(["edit", *argv]) == 2
    told = capsys.readouterr()
    assert told.out == "" and word in told.err and told.err.count("\n") == 1


def test_help_shows_every_operation(capsys: Captured) -> None:
    from saccade.editing.planning import OPERATIONS

    assert main(["edit", "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in OPERATIONS if name not in text] == []
