"""What each verb asks of the API, and what it prints."""

from __future__ import annotations

import inspect
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from saccade import api as real_api
from saccade.cli.main import main

PARAMETERS = {
    name: inspect.signature(getattr(real_api, name)).parameters for name in ("train", "quickstart", "eval", "predict", "explain", "embed")
}
Captured = pytest.CaptureFixture[str]


def test_train_hands_on_what_was_given(api: Any, a_run: Any, capsys: Captured) -> None:
    api.answer = a_run
    argv = "train photos --task classify --model resnet18 --minutes 2 --size 17x11 --batch 32 --out r --set lr=0.1 --set augment.flip=0.5"
    argv += (
        " --set model=vit --workers 0 --skip-bad --no-images --device cuda:1 --precision bf16 --seed 7 --pretrained --weights w --config c"
    )
    assert main(argv.split()) == 0
    name, args, options = api.calls[0]
    assert (name, args) == ("train", ())
    options.pop("started")
    options.pop("progress")
    assert options == {
        "data": "photos",
        "task": "classify",
        "model": "resnet18",
        "epochs": None,
        "minutes": 2.0,
        "size": (17, 11),
        "batch": 32,
        "out": "r",
        "resume": False,
        "config": "c",
        "set": {"lr": 0.1, "augment.flip": 0.5, "model": "vit"},
        "weights": "w",
        "pretrained": True,
        "workers": 0,
        "skip_bad": True,
        "on_nan": None,
        "other_torch": False,
        "compile": False,
        "shard": False,
        "license": None,
        "edits": (),
        "images": False,
        "device": "cuda:1",
        "precision": "bf16",
        "seed": 7,
    }


def test_train_defaults_are_the_apis(api: Any, a_run: Any, capsys: Captured) -> None:
    api.answer = a_run
    assert main(["train", "--resume", "--out", "r", "--batch", "auto"]) == 0
    options = api.calls[0][2]
    assert (options["data"], options["resume"], options["out"], options["batch"]) == (None, True, "r", "auto")
    assert (options["images"], options["skip_bad"], options["set"], options["size"]) == (True, False, {}, None)
    assert options["seed"] is None, "a configuration's seed stays"


def test_train_prints_recipe_outcome_places_and_next_commands(api: Any, a_run: Any, capsys: Captured) -> None:
    api.answer = a_run
    assert main(["train", "photos"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "recipe",
        "  model small: 28x28 grey images",
        "",
        "metric     value",
        "accuracy  0.9877",
        "ece            -",
        "",
        "1,200 steps in 32.13 s, 1,934 images/s",
        "",
        "run     runs/my photos-1",
        "model   runs/my photos-1/best.safetensors",
        "report  runs/my photos-1/report.html",
        "",
        "next  saccade eval 'runs/my photos-1'",
        "      saccade predict 'runs/my photos-1' IMAGE...",
    ]


def test_json_is_one_object_and_all_else_on_standard_error(api: Any, a_run: Any, capsys: Captured) -> None:
    def train(**options: Any) -> Any:
        options["progress"].start("train", 3)
        options["progress"].advance(3)
        options["progress"].message("resumed at step 5")
        return a_run

    api.answer = train
    assert main(["train", "x", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert json.loads(captured.out) == a_run.to_dict()
    assert "resumed at step 5" in captured.err
    assert "train: 3/3 images" in captured.err, "the stage that the API left open was closed"
    assert main(["train", "x", "--json", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_quickstart(api: Any, a_run: Any, capsys: Captured) -> None:
    a_run.summary = ["trained on 1,437 digits", "", "next  saccade train photos"]
    api.answer = a_run
    assert main(["quickstart", "--out", "q", "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == a_run.summary
    name, _, options = api.calls[0]
    assert (name, options["task"], options["out"], options["seed"]) == ("quickstart", "classify", "q", 3)
    assert options["started"] > 0
    assert main(["quickstart", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "runs/my photos-1"


def test_eval_prints_intervals_and_classes(api: Any, an_evaluation: Any, capsys: Captured) -> None:
    api.answer = an_evaluation
    assert main(["eval", "run", "--split", "val"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "metric          value  95 % from      to",
        "accuracy       0.9000     0.8500  0.9500",
        "top5_accuracy       -          -       -",
        "",
        "class   precision  recall  images",
        "[b]cat     0.5000  1.0000   1,234",
    ]
    assert api.calls[0][:2] == ("eval", ("run",))
    assert api.calls[0][2]["split"] == "val"


def test_eval_takes_data_and_predictions(api: Any, an_evaluation: Any, capsys: Captured) -> None:
    api.answer = an_evaluation
    assert main(["eval", "run", "data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == an_evaluation.to_dict()
    assert main(["eval", "--predictions", "p.jsonl", "data", "--quiet"]) == 0
    assert [call[:2] for call in api.calls] == [("eval", ("run", "data")), ("eval_predictions", ("p.jsonl", "data"))]
    capsys.readouterr()
    assert main(["eval", "--predictions", "p.jsonl", "run", "data"]) == 2
    assert "give DATA only" in capsys.readouterr().err


def test_predict_prints_a_line_an_image_and_reports_the_bad(api: Any, predictions: Any, capsys: Captured) -> None:
    api.answer = predictions
    assert main(["predict", "run", "a.png", "b.gif", "c.jpg", "--max-pixels", "9", "--out", "o", "--quiet"]) == 0, "the rest went on"
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["a.png: cat  0.988", "bé\\udcff.gif: dog  0.988  (first frame)", "written to o"]
    assert captured.err == "failed: c.jpg: truncated\n"
    _, args, options = api.calls[0]
    assert args == ("run", ["a.png", "b.gif", "c.jpg"])
    assert (options["max_pixels"], options["out"], options["format"], options["strict"]) == (9, "o", None, False)


def test_predict_json_and_formats_on_standard_output(api: Any, predictions: Any, capsys: Captured) -> None:
    api.answer = predictions
    assert main(["predict", "run", "a.png", "--json", "--format", "csv"]) == 0
    expected = json.loads(json.dumps(predictions.to_dict()).replace("\\udcff", "\\\\udcff"))
    assert json.loads(capsys.readouterr().out) == expected
    predictions.results = predictions.results[:1]
    assert main(["predict", "run", "a.png", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "csv\na.png,cat\n"


def test_a_dash_is_one_image_on_standard_input_and_stands_once(api: Any, predictions: Any, capsys: Captured) -> None:
    api.answer = predictions
    assert main(["predict", "run", "a.png", "-"]) == 0
    assert api.calls[0][1] == ("run", ["a.png", "-"])
    for verb in ("predict", "explain", "embed"):
        assert main([verb, "run", "-", "-"]) == 2
        assert "once" in capsys.readouterr().err


REQUIRED = {"train": ["x"], "quickstart": [], "eval": ["run"], "predict": ["run", "a.png"], "explain": ["run", "a.png"]}
REQUIRED["embed"] = ["run", "a.png", "--json"]


@pytest.mark.parametrize("verb", REQUIRED)
def test_an_option_that_is_not_given_is_the_default_of_python(api: Any, a_run: Any, capsys: Captured, verb: str) -> None:
    """Same names, same defaults (design, section 3); a default of the command line's own would go before a configuration."""
    api.answer = RuntimeError("called")
    assert main([verb, *REQUIRED[verb]]) == 1
    name, args, options = api.calls[0]
    defaults = {key: parameter.default for key, parameter in PARAMETERS[name].items()}
    assert set(options) <= set(defaults), "every option is one of Python's too"
    given = set(list(defaults)[: len(args)]) | {"data", "progress", "started", "report"}  # report: of Python alone, for many short runs
    assert {key: value or None for key, value in options.items() if key not in given} == {
        key: value or None for key, value in defaults.items() if key not in given
    }


def test_explain(api: Any, capsys: Captured) -> None:
    facts = {
        "images": [{"source": "a.png", "target": "cat", "map": "o/a.npy", "picture": "o/a.png"}],
        "mistakes": [{"source": "z.png", "truth": "dog", "predicted": "cat"}],
    }
    api.answer = types.SimpleNamespace(to_dict=lambda: facts)
    assert main(["explain", "run", "a.png", "--class", "cat", "--out", "o"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a.png: cat  o/a.png", "", "worst mistakes", "source  truth  predicted", "z.png     dog        cat"]
    assert api.calls[0][1:] == (("run", ["a.png"]), {**api.calls[0][2], "out": "o", "target_class": "cat", "device": "auto"})
    assert main(["explain", "run", "a.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_data_make_asks_the_builtin_maker(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def make_shapes(out: Path, **options: Any) -> dict[str, Any]:
        calls.append({"out": out, **options})
        return {"out": str(out), "task": options["task"], "images": options["n"], "classes": ["disc"]}

    builtin = types.ModuleType("saccade.data.builtin")
    builtin.make_shapes = make_shapes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "saccade.data.builtin", builtin)
    assert main(["data", "make", "shapes", "--task", "classify", "--n", "5", "--size", "17x11", "--out", "my/shapes", "--seed", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["out     my/shapes", "task    classify", "images  5", "next  saccade train my/shapes"]
    calls[0].pop("progress")
    assert calls == [{"out": Path("my/shapes"), "task": "classify", "n": 5, "size": (17, 11), "seed": 2, "format": None}]
    assert main(["data", "make", "shapes", "--out", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["disc"]
    assert calls[1]["size"] == (64, 64)


@pytest.mark.parametrize("color", ["plain", "terminal", "NO_COLOR"])
def test_colour_codes_only_on_a_terminal_that_wants_them(api: Any, an_evaluation: Any, monkeypatch: pytest.MonkeyPatch, color: str) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return color != "plain"

    api.answer = an_evaluation
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if color == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["eval", "run"]) == 0
    codes = {"plain": False, "terminal": True, "NO_COLOR": False}[color]
    assert ("\x1b[" in screen.getvalue()) == codes
