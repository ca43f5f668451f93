"""`saccade generate` and `eval --features`: what they ask of the API, and what is printed."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade import api as real_api
from saccade.cli.main import main
from saccade.core.results import Generated

PARAMETERS = inspect.signature(real_api.generate).parameters
Captured = pytest.CaptureFixture[str]
FILES = {"images": ["made/000000.png", "made/000001.png"], "latents": "made/latents.npy", "grid": "made/grid.png"}


def made(**facts: Any) -> Generated:
    return Generated(np.zeros((2, 17, 11, 3), np.uint8), np.zeros((2, 4), np.float32), np.array([0, 1]), ("a", "b"), 3, FILES, facts)


def test_generate_hands_on_what_was_given(api: Any, capsys: Captured) -> None:
    api.answer = made(bits_per_dim=1.234, difference=5.5)
    argv = "generate run --n 2 --class b --truncation 0.5 --interpolate 7 --from x.png --nearest --seed 3 --out made --device cpu"
    assert main(argv.split()) == 0
    name, args, options = api.calls[0]
    assert (name, args) == ("generate", ())
    options.pop("progress")
    given = {"target": "run", "n": 2, "class_name": "b", "truncation": 0.5, "interpolate": 7, "from_image": "x.png", "nearest": True}
    assert options == {**given, "seed": 3, "out": "made", "device": "cpu"}
    assert set(options) <= set(PARAMETERS)
    text = capsys.readouterr().out
    assert "made/grid.png" in text and "2 images of 11x17 pixels" in text and "1.234" in text
    assert main([*argv.split(), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"images", "latents", "seed"} <= facts.keys()
    assert (facts["seed"], facts["labels"], facts["n"]) == (3, ["a", "b"], 2)


def test_a_free_folder_is_taken_and_the_defaults_are_those_of_python(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    api.answer = made()
    assert main(["generate", "run"]) == 0
    options = api.calls[0][2]
    assert options.pop("out") == Path("made-2")
    options.pop("progress")
    options.pop("target")
    assert options == {name: PARAMETERS[name].default for name in options}


def test_what_is_not_understood_is_one_line(api: Any, capsys: Captured) -> None:
    for argv, word in (
        (["generate"], "RUN|MODEL"),
        (["generate", "run", "--n", "x"], "n"),
        (["generate", "run", "--trunc", "1"], "truncation"),
    ):
        assert main(argv) == 2
        assert word in capsys.readouterr().err
    assert api.calls == []


def test_eval_hands_features_on(api: Any, an_evaluation: Any) -> None:
    api.answer = an_evaluation
    assert main(["eval", "run", "--features", "resnet18"]) == 0
    assert api.calls[0][2]["features"] == "resnet18"
