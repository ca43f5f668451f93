"""`saccade set` hands on what was given, and says from when on it holds."""

from __future__ import annotations

import types
from typing import Any

import pytest

from saccade.cli.main import main

Captured = pytest.CaptureFixture[str]


def answer(step: int | None, **settings: Any) -> Any:
    facts = {"run": "r", "step": step, "settings": settings, "state": None, "snapshot": False}
    return types.SimpleNamespace(to_dict=lambda: facts)


def test_settings_a_state_and_a_snapshot(api: Any, capsys: Captured) -> None:
    api.answer = answer(7, lr=0.1)
    assert main(["set", "r", "lr=0.1", "augment.flip=0.5", "state=paused", "snapshot=now"]) == 0
    assert api.calls == [("set", ("r", {"lr": 0.1, "augment.flip": 0.5}), {"state": "paused", "snapshot": True, "undo": False})]
    assert capsys.readouterr().out == "r  lr=0.1 augment.flip=0.5 state=paused snapshot=now  from step 7 on\n"


def test_what_was_set_is_taken_back(api: Any, capsys: Captured) -> None:
    api.answer = answer(7, lr=0.003)
    assert main(["set", "r", "--undo"]) == 0
    assert api.calls == [("set", ("r", {}), {"state": None, "snapshot": False, "undo": True})]
    assert capsys.readouterr().out == "r  lr=0.003  from step 7 on\n"
    api.answer = answer(None)
    assert main(["set", "r", "--undo"]) == 0
    assert capsys.readouterr().out == "r  what was set last is taken back  when it is resumed\n"
