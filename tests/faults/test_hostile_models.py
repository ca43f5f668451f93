"""Run folders that somebody else has written: checkpoints, state, events and records with hostile content, sealed with right sums.

Nothing in them may run code, take memory out of proportion, or end in anything but one line and exit code 2.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guard
from faults.commands import TINY, make_data, refused, run
from saccade.cli.main import main
from saccade.core import modelfile
from saccade.core.modelfile import Buffer
from saccade.core.rundir import RunDir
from small_jobs import one_thread  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]

Captured = pytest.CaptureFixture[str]
Harm = Callable[[Path], object]
STEP = "step-000000005"  # of six


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, and a run/ of six steps whose only checkpoint is that of step five."""
    place = tmp_path_factory.mktemp("finished")
    make_data(place / "data")
    with guard.GUARD.allow("processes"):
        hooks = [("no_report", {}), ("checkpoint_each_step", {})]
        code, child = run(place, "train", "data", *TINY, "--epochs", "2", "--out", "run", hooks=hooks)
    assert code == 0, child.errors
    shutil.rmtree(place / "run" / "checkpoints" / "step-000000006")
    assert [path.name for path in (place / "run" / "checkpoints").iterdir()] == [STEP]
    return place


@pytest.fixture
def here(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own copy of the run, as the place to work in; resuming it writes no report."""
    shutil.copytree(finished / "run", tmp_path / "run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(finished / "cache"))
    monkeypatch.setattr("saccade.api.reporting.write_report", lambda *args, **kwargs: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seal(step: Path) -> None:
    """Sums that agree: whoever can write the files can write these."""
    files = {path.name: path.read_bytes() for path in step.iterdir() if path.name != "MANIFEST.json"}
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (step / "MANIFEST.json").write_text(json.dumps({"files": entries}))


def sealed(change: Harm) -> Harm:
    """`change` is done to the checkpoint's folder."""

    def harm(run: Path) -> None:
        change(run / "checkpoints" / STEP)
        seal(run / "checkpoints" / STEP)

    return harm


def key(*path: Any) -> Callable[[dict[str, Any]], None]:
    """The last of `path` is the value to put at the others."""
    *keys, last, value = path

    def change(whole: dict[str, Any]) -> None:
        for name in keys:
            whole = whole[name]
        whole[last] = value

    return change


def json_file(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def state(*path: Any) -> Harm:
    return sealed(lambda step: json_file(step / "state.json", key(*path)))


def state_text(text: str) -> Harm:
    return sealed(lambda step: (step / "state.json").write_text(text))


def record(*path: Any) -> Harm:
    return lambda run: json_file(run / "run.json", key(*path))


def events(*rows: Mapping[str, Any] | str) -> Harm:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return lambda run: (run / "events.jsonl").write_text(text)


def tensors(name: str, change: Callable[[dict[str, Buffer]], object]) -> Harm:
    def rewrite(step: Path) -> None:
        buffers, _ = modelfile.unpack((step / f"{name}.safetensors").read_bytes())
        change(buffers)
        (step / f"{name}.safetensors").write_bytes(modelfile.pack(buffers))

    return sealed(rewrite)


def manifest(text: str) -> Harm:
    return lambda run: (run / "checkpoints" / STEP / "MANIFEST.json").write_text(text)


def raw(name: str, header: bytes, data: bytes = b"") -> Harm:
    return sealed(lambda step: (step / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data))


def first(buffers: Mapping[str, Buffer], part: str = "") -> str:
    """A matrix among the tensors."""
    return next(name for name, buffer in buffers.items() if part in name and buffer.dtype == "F32" and len(buffer.shape) > 1)


def spoil(part: str = "", **changes: Any) -> Callable[[dict[str, Buffer]], None]:
    def change(buffers: dict[str, Buffer]) -> None:
        name = first(buffers, part)
        buffer = buffers[name]
        given = {word: value(buffer) if callable(value) else value for word, value in changes.items()}
        buffers[name] = replace(buffer, **given)

    return change


def without(*names: str) -> Harm:
    return sealed(lambda step: [(step / name).unlink() for name in names])


NAN: dict[str, Any] = {"data": lambda buffer: np.full(buffer.shape, np.nan, np.float32).tobytes()}
TURNED: dict[str, Any] = {"shape": lambda buffer: buffer.shape[::-1]}
ENTRY = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

REFUSED: dict[str, tuple[Harm, str]] = {
    "a header of eight megabytes": (raw("model", b"{" + b" " * ((8 << 20) - 2) + b"}"), "header must have at most"),
    "a name twice": (raw("model", b'{"a":%b,"a":%b}' % (ENTRY, ENTRY), bytes(8)), "twice"),
    "a name that climbs": (raw("average", b'{"../../a":%b}' % ENTRY, bytes(8)), "name must be"),
    "no number in the weights": (tensors("model", spoil(**NAN)), "no longer a finite number at step 5"),
    "no number in the average": (tensors("average", spoil(**NAN)), "finite"),
    "no number in the moments": (tensors("optimizer-train", spoil("exp_avg", **NAN)), "finite"),
    "weights of other shapes": (tensors("model", spoil(**TURNED)), "do not fit"),
    "an average of other shapes": (tensors("average", spoil(**TURNED)), "do not fit"),
    "a weight too few": (tensors("model", lambda buffers: buffers.pop(first(buffers))), "1 missing"),
    "a manifest that climbs": (manifest('{"files":{"../x":{"bytes":1}}}'), "MANIFEST"),
    "digits without end": (state_text('{"loop":' + "9" * 5000 + "}"), "state.json: not valid JSON"),
    "an event that is a list": (events("[1]"), "events.jsonl:1"),
    "events that are no JSON": (events("{"), "events.jsonl:1"),
    "a path that is a number": (record("config", "data", 5), "run.json"),
    "a model that climbs": (record("config", "model", "../x"), "../x"),
}  # fmt: skip

PACE = {"event": "pace", "step": 5, "total_steps": 6, "from": 8}
MICRO = {"event": "micro_batch", "step": 0, "phase": "train", "from": 8, "to": 4}
IMPOSSIBLE: dict[str, tuple[Harm, str]] = {
    "an empty state": (state_text("{}"), ""),
    "a state that is a list": (state_text("[]"), ""),
    "a deep state": (state_text("[" * 100_000), ""),
    "a key twice": (state_text('{"loop":{"step":5,"position":40},"loop":{"step":5,"position":40},"metrics_bytes":0,"scaler":{}}'), ""),
    "a step that is a text": (state("loop", "step", "5"), ""),
    "a step without end": (state("loop", "step", 10**30), ""),
    "a step before the first": (state("loop", "step", -5), ""),
    "half a step": (state("loop", "step", 4.5), ""),
    "a step not that of the folder": (state("loop", "step", 2), ""),
    "a position without end": (state("loop", "position", 1 << 80), ""),
    "a position not that of the step": (state("loop", "position", 7), ""),
    "an unknown part of the loop": (state("loop", "more", 1), ""),
    "no loop": (state("loop", None), ""),
    "a best that is a text": (state("loop", "best", "1"), ""),
    "sums that are a list": (state("loop", "sums", [1]), ""),
    "an offset without end": (state("metrics_bytes", 10**30), ""),
    "an offset that is a text": (state("metrics_bytes", "0"), ""),
    "no model": (without("model.safetensors"), ""),
    "no average": (without("average.safetensors"), ""),
    "no optimizer": (without("optimizer-train.safetensors"), ""),
    "moments of nothing": (tensors("optimizer-train", key("9999.exp_avg", Buffer("F32", (2,), bytes(8)))), ""),
    "moments of a word": (tensors("optimizer-train", key("0x.evil", Buffer("F32", (2,), bytes(8)))), ""),
    "moments of other shapes": (tensors("optimizer-train", spoil("exp_avg", **TURNED)), ""),
    "moments of integers": (tensors("optimizer-train", spoil("exp_avg", dtype="I32")), ""),
    "a moment too few": (tensors("optimizer-train", lambda buffers: buffers.pop("0.exp_avg")), ""),
    "another end, and no more": (events({"event": "pace"}), ""),
    "an end before the start": (events(PACE | {"total_steps": -5}), ""),
    "an end without end": (events(PACE | {"total_steps": 1 << 40}), ""),
    "another end at a text": (events(PACE | {"step": "a"}), ""),
    "micro-batches of none": (events(MICRO | {"to": 0}), ""),
    "micro-batches of an unknown phase": (events(MICRO | {"phase": "x"}), ""),
    "micro-batches, and no more": (events({"event": "micro_batch"}), ""),
    "back, and no more": (events({"event": "back"}), ""),
    "no fingerprint": (lambda run: json_file(run / "run.json", lambda whole: whole["data"].pop("fingerprint")), ""),
    "threads that are a text": (record("resolved", "threads", "x"), ""),
    "fewer threads than none": (record("resolved", "threads", -3), ""),
    "steps that are a text": (record("resolved", "total_steps", "x"), ""),
    "fewer workers than none": (record("resolved", "workers", -1), ""),
    "an evaluation every zero steps": (record("resolved", "evaluate_every", 0), ""),
    "an epoch of no step": (record("resolved", "steps_per_epoch", 0), ""),
    "an unknown precision": (record("resolved", "precision", "int3"), ""),
    "seconds that are a text": (record("time", "seconds", "x"), ""),
}  # fmt: skip


def resume(capsys: Captured) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["train", "--resume", "--out", "run", "--quiet", "--workers", "0"])
    return code, capsys.readouterr().err


def hostile(here: Path, capsys: Captured, harm: Harm, word: str) -> None:
    """Refused in one line, and what is best stays what it was."""
    best = (here / "run" / "best.safetensors").read_bytes()
    harm(here / "run")
    code, errors = resume(capsys)
    assert code == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert word in errors
    assert (here / "run" / "best.safetensors").read_bytes() == best


@pytest.mark.parametrize("name", REFUSED)
def test_resume_refuses(here: Path, capsys: Captured, name: str) -> None:
    hostile(here, capsys, *REFUSED[name])


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_resume_refuses_what_no_run_has_left(here: Path, capsys: Captured, name: str) -> None:
    hostile(here, capsys, *IMPOSSIBLE[name])


@pytest.mark.parametrize("rows", [[{"event": "coup", "step": "x"}, {"x": 1}], [{"event": "skip", "step": 99}], []])
def test_events_of_others_are_passed_over(here: Path, capsys: Captured, rows: list[dict[str, Any]]) -> None:
    """As of a later version; and a run that nobody harmed goes on, or these tests would show nothing."""
    events(*rows)(here / "run")
    code, errors = resume(capsys)
    assert (code, errors) == (0, "")
    assert RunDir(here / "run").read_run()["state"] == "done"


# What a hostile run costs, and what it can start


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(("train", "--resume", "--out", "run"), id="resume"),
        pytest.param(("predict", "run", "run/a.png"), id="predict"),
        pytest.param(("eval", "run"), id="eval"),
    ],
)
def test_memory_is_bounded_by_the_file(finished: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    """A model file of 60 MB with one good tensor too many, a checkpoint the same: refused at the cost of twice that."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(finished / "data" / "red" / "1.png", tmp_path / "run" / "a.png")
    bulk = Buffer("U8", (60_000_000,), bytes(60_000_000))
    buffers, card = modelfile.load(tmp_path / "run" / "best.safetensors")
    modelfile.save(tmp_path / "run" / "best.safetensors", {**buffers, "bulk": bulk}, card)
    tensors("model", key("bulk", bulk))(tmp_path / "run")
    base = tmp_path / "base"
    hooks: list[Any] = [("no_report", {}), ("peak_memory", {"log": str(base)})]
    code, child = run(tmp_path, *verb, hooks=hooks, env={"XDG_CACHE_HOME": str(finished / "cache")})
    refused(code, child, "1 unexpected (bulk)")
    assert float(base.read_text()) < 2 * 60 + 40, "megabytes beyond what the process had"


STANDARD, OURS = str(Path(json.__file__).parents[1]), str(Path(modelfile.__file__).parents[1])
TRUSTED = (*sysconfig.get_paths().values(), STANDARD, OURS)
# Makers of classes and templates in libraries, whose texts are their own: end of the file -> what it compiles.
OWN_TEXTS = {
    "/typing.py": "<string>",
    "/dataclasses.py": "<string>",
    "/collections/__init__.py": "<string>",
    "/typing_inspection/typing_objects.py": "<string>",
    "/ast.py": "<unknown>",  # a syntax tree, not code: the header of a table of ours
    "/jinja2/environment.py": "<template>",
}


def is_ours(event: str, what: str, callers: list[str]) -> bool:
    """Modules of the installation being imported, and what libraries make of their own texts."""
    if event in ("exec", "compile"):
        who = callers[0] if callers else ""
        return what.startswith(TRUSTED) or any(who.endswith(end) and what == text for end, text in OWN_TEXTS.items())
    return event == "subprocess.Popen" and "['uname', '-p']" in what and any(name.endswith("/platform.py") for name in callers)


def test_no_verb_runs_what_a_run_holds(finished: Path, tmp_path: Path) -> None:
    """Loading, resuming, predicting, measuring, explaining: no unpickling, no code from a text, no shell, no process."""
    shutil.copytree(finished / "run", tmp_path / "run")
    verbs = {
        "resume": ("train", "--resume", "--out", "run", "--workers", "2"),
        "predict": ("predict", "run", str(finished / "data")),
        "eval": ("eval", "run"),
        "explain": ("explain", "run", str(finished / "data" / "red" / "1.png"), "--out", "x"),
        "train": ("train", str(finished / "data"), *TINY, "--epochs", "1", "--weights", "run/best.safetensors", "--out", "new"),
    }
    seen = 0
    for name, argv in verbs.items():
        code, child = run(tmp_path, *argv, hooks=[("audit", {"log": str(tmp_path / name)})])
        assert code == 0, child.errors
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [row for row in rows if not is_ours(*row)] == [], name
        seen += len(rows)
    assert seen, "the hook hears something"


def test_the_audit_would_tell(tmp_path: Path) -> None:
    code, child = run(tmp_path, "--help", hooks=[("audit", {"log": str(tmp_path / "log")}), ("misbehave", {})])
    assert code == 0, child.errors
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = {row[0] for row in rows if not is_ours(*row)}
    assert told >= {"pickle.loads", "pickle.find_class", "exec", "compile", "os.system", "subprocess.Popen"}, sys.version
