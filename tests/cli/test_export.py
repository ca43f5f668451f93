"""What `export` and `verify` ask of the API, what they print, and the code they end with."""

from __future__ import annotations

import inspect
import json
import types
from pathlib import Path
from typing import Any

import pytest

from saccade import api as real_api
from saccade.cli.main import main

PARAMETERS = {name: inspect.signature(getattr(real_api, name)).parameters for name in ("export", "verify")}

Captured = pytest.CaptureFixture[str]
FIGURES = {"accuracy": 0.98, "top5_accuracy": None}
PASSED = {
    "target": "onnx",
    "verdict": "pass",
    "images": 1234,
    "metrics": {"reference": FIGURES, "exported": {"accuracy": 0.975, "top5_accuracy": None}},
    "differences": {
        "accuracy": {"value": -0.005, "low": -0.01, "high": 0.0},
        "top5_accuracy": {"value": None, "low": None, "high": None},
    },
    "agreement": 0.9951,
    "outputs": [],
    "checks": [
        {"name": "card", "passed": True, "message": "the original's"},
        {"name": "outputs", "passed": True, "message": "differ by at most 1e-07"},
    ],
    "runtime": "onnxruntime 1.2.3",
    "bytes": 1_250_000,
    "source": {"file": "my run/best.safetensors", "sha256": "0", "bytes": 2_500_000},
    "latency_ms": {"reference": 12.345, "exported": 1.2},
    "file": "my run/exports/onnx-fp32/model.onnx",
    "certificate": "my run/exports/onnx-fp32/CERTIFICATE.json",
}
FAILED = {
    **PASSED,
    "verdict": "fail",
    "metrics": {"reference": {}, "exported": {}},
    "differences": {},
    "agreement": None,
    "checks": [PASSED["checks"][0], {"name": "run", "passed": False, "message": "[b]fails[/b] on <images>"}],  # type: ignore[index]
    "latency_ms": {},
    "file": None,
    "certificate": None,
}
VERIFIED = {key: value for key, value in PASSED.items() if key not in ("bytes", "source", "latency_ms")}


def found(facts: dict[str, Any]) -> types.SimpleNamespace:
    return types.SimpleNamespace(to_dict=lambda: facts)


def test_export_hands_on_what_was_given(api: Any, capsys: Captured) -> None:
    api.answer = found(PASSED)
    argv = ["export", "my run", "--to", "openvino", "--data", "d", "--out", "o", "--precision", "fp16", "--tolerance", "1.5"]
    assert main([*argv, "--device", "cpu", "--seed", "7"]) == 0
    name, args, options = api.calls[0]
    options.pop("progress")
    assert (name, args) == ("export", ())
    assert options == {
        "target": "my run",
        "to": "openvino",
        "data": "d",
        "out": "o",
        "precision": "fp16",
        "tolerance": 1.5,
        "device": "cpu",
        "seed": 7,
    }


def test_verify_hands_on_what_was_given(api: Any, capsys: Captured) -> None:
    api.answer = found(VERIFIED)
    assert main(["verify", "x/model.onnx", "photos", "--device", "cpu", "--seed", "7"]) == 0
    name, args, options = api.calls[0]
    options.pop("progress")
    assert (name, args, options) == ("verify", (), {"file": "x/model.onnx", "data": "photos", "device": "cpu", "seed": 7})


@pytest.mark.parametrize(("verb", "argv"), [("export", ["run", "--to", "onnx"]), ("verify", ["x.onnx", "data"])])
def test_an_option_that_is_not_given_is_the_default_of_python(api: Any, verb: str, argv: list[str], capsys: Captured) -> None:
    api.answer = RuntimeError("called")
    assert main([verb, *argv]) == 1
    parameters = PARAMETERS[verb]
    options = api.calls[0][2]
    assert set(options) == set(parameters), "every option is there, under the same name"
    for name, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty and name != "progress":
            assert options[name] == parameter.default, name


@pytest.mark.parametrize(("verb", "argv"), [("export", ["run", "--to", "onnx"]), ("verify", ["x.onnx", "data"])])
@pytest.mark.parametrize(("facts", "code"), [(PASSED, 0), (FAILED, 2)])
def test_json_is_complete_and_the_verdict_is_the_code(
    api: Any, capsys: Captured, verb: str, argv: list[str], facts: dict[str, Any], code: int
) -> None:
    api.answer = found(facts)
    assert main([verb, *argv, "--json", "--quiet"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out) == facts and told.out.count("\n") == 1
    assert told.err == ""


def test_export_in_words(api: Any, capsys: Captured) -> None:
    api.answer = found(PASSED)
    assert main(["export", "my run", "--to", "onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "pass  card     the original's",
        "pass  outputs  differ by at most 1e-07",
        "",
        "metric         original  exported  difference  95 % from      to",
        "accuracy         0.9800    0.9750     -0.0050    -0.0100  0.0000",
        "top5_accuracy         -         -           -          -       -",
        "",
        "agreement  99.51 % of 1,234 answers are the same",
        "latency    12.35 ms -> 1.20 ms for one image (median), onnxruntime 1.2.3",
        "size       2.50 MB -> 1.25 MB",
        "verdict    pass",
        "file       my run/exports/onnx-fp32/model.onnx",
        "certified  my run/exports/onnx-fp32/CERTIFICATE.json",
    ]


def test_a_failure_in_words(api: Any, capsys: Captured) -> None:
    api.answer = found(FAILED)
    assert main(["export", "my run", "--to", "onnx"]) == 2
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[:2] == ["pass  card     the original's", "FAIL  run      [b]fails[/b] on <images>"]
    assert "agreement  - of 1,234 answers are the same" in lines and "verdict    fail" in lines
    assert not any(line.startswith(("latency", "file", "certified")) for line in lines)
    assert lines[-1].startswith("nothing was written")
    assert "Traceback" not in told.err


def test_verify_in_words(api: Any, capsys: Captured) -> None:
    api.answer = found(VERIFIED)
    assert main(["verify", "my run/exports/onnx-fp32/model.onnx", "data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "verdict    pass" in lines and not any(line.startswith(("latency", "size")) for line in lines)


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["export"], "RUN|MODEL"),
        (["export", "run", "--to"], "--to"),
        (["export", "run", "--to", "onnx", "--tolerance", "much"], "--tolerance"),
        (["export", "run", "--to", "onnx", "--device", "gpu"], "--device"),
        (["export", "run", "--to", "onnx", "--seed", "-1"], "--seed"),
        (["export", "run", "more", "--to", "onnx"], "more"),
        (["verify"], "EXPORT"),
        (["verify", "x.onnx"], "DATA"),
        (["verify", "x.onnx", "data", "--to", "onnx"], "--to"),
    ],
)
def test_usage_errors_are_one_line(api: Any, capsys: Captured, argv: list[str], word: str) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == "" and word in told.err and told.err.count("\n") == 1
    assert api.calls == []


@pytest.mark.parametrize("verb", ["export", "verify"])
def test_help_names_what_the_verb_takes_and_when_it_says_no(verb: str, capsys: Captured) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    wanted = {"export": ["onnx|openvino", "--tolerance", "Exit code 2"], "verify": ["EXPORT", "DATA", "CERTIFICATE.json"]}[verb]
    assert [word for word in wanted if word not in text] == []


def test_the_pretended_answer_has_the_keys_of_the_real_one() -> None:
    """So that these tests print what there is."""
    from saccade.api.exporting import Export

    real = Export(Path("x"), Path("y"), {"verdict": "pass"}).to_dict()
    assert set(real) <= set(PASSED)
