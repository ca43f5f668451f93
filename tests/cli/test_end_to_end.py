"""The command line as a person uses it: real processes, real files, a real (tiny) network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import guard

pytestmark = [pytest.mark.processes, pytest.mark.long]

TINY = ["--model", "small_resnet_8px", "--size", "32", "--batch", "8", "--device", "cpu", "--seed", "1"]
COMMAND = [sys.executable, "-m", "saccade"]


def saccade(*args: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, args)], input=stdin, capture_output=True, timeout=300, cwd=cwd)


def as_json(*args: str | Path, stdin: bytes | None = None) -> Any:
    done = saccade(*args, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1, "one object on one line, and nothing else"
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 drawn shapes of 33x20 pixels, made by the command."""
    target = tmp_path_factory.mktemp("made") / "shapes"
    with guard.GUARD.allow("processes"):
        done = saccade("data", "make", "shapes", "--task", "classify", "--n", "120", "--size", "33x20", "--out", target, "--seed", "3")
    assert done.returncode == 0, done.stderr.decode()
    assert f"saccade train {target}" in done.stdout.decode()
    return target


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the shapes, two passes."""
    target = tmp_path_factory.mktemp("runs") / "first run"
    with guard.GUARD.allow("processes"):
        done = saccade("train", shapes, *TINY, "--epochs", "2", "--out", target)
    assert done.returncode == 0, done.stderr.decode()
    text, errors = done.stdout.decode(), done.stderr.decode()
    assert "accuracy" in text
    assert f"saccade eval '{target}'" in text
    assert "\x1b" not in text + errors
    assert not {"Warning", "Traceback", "W0000", "cuda"} & set(errors.replace(":", " ").split())
    assert "training: " in errors and "images/s" in errors, "work that takes long says how far it is"
    return target


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".png", ".jpg"})


def test_train_json_and_the_default_place(shapes: Path, tmp_path: Path) -> None:
    done = saccade("train", shapes, *TINY, "--epochs", "1", "--set", "augment.flip=0.5", "--json", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    assert set(answer) >= {"run", "model", "task", "metrics", "seconds", "steps", "images_per_second"}
    assert (answer["run"], answer["task"]) == ("runs/shapes-1", "classify")
    for name in ("run.json", "metrics.jsonl", "best.safetensors", "last.safetensors", "report.html"):
        assert (tmp_path / answer["run"] / name).is_file(), name
    record = json.loads((tmp_path / answer["run"] / "run.json").read_text())
    assert record["config"]["augment"]["flip"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow  # tests/api repeats a run from its run.json to the bit, tests/cli/test_verbs.py looks at the seed
def test_a_configuration_keeps_its_seed_unless_one_is_given(run: Path, tmp_path: Path) -> None:
    again = as_json("train", "--config", run / "run.json", "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "run.json").read_text())["config"]["seed"] == 1
    assert Path(again["model"]).read_bytes() == (run / "best.safetensors").read_bytes(), "a run's own run.json repeats it to the bit"


def test_eval(run: Path, shapes: Path) -> None:
    answer = as_json("eval", run)
    assert set(answer) >= {"task", "metrics", "intervals", "per_class"}
    low, high = answer["intervals"]["accuracy"]
    assert low <= answer["metrics"]["accuracy"] <= high
    assert as_json("eval", "--predictions", run / "predictions" / "test.jsonl", shapes)["metrics"] == pytest.approx(answer["metrics"])
    text = saccade("eval", run / "best.safetensors", shapes).stdout.decode()
    assert text.startswith("metric")
    assert "precision" in text


def test_predict_keeps_order_reports_the_bad_and_reads_standard_input(run: Path, shapes: Path, tmp_path: Path) -> None:
    first, second = images(shapes)[:2]
    bad = tmp_path / "bad.png"
    bad.write_bytes(first.read_bytes()[:40])
    done = saccade("predict", run, second, bad, first)
    assert done.returncode == 0, "the rest went on"
    assert [line.split(": ")[0] for line in done.stdout.decode().splitlines()] == [str(second), str(first)]
    assert f"failed: {bad}: " in done.stderr.decode()
    answer = as_json("predict", run, second, bad, "-", first, stdin=second.read_bytes())
    assert [row["source"] for row in answer["results"]] == [str(second), "-", str(first)]
    assert [row["source"] for row in answer["failed"]] == [str(bad)]
    assert answer["results"][0]["scores"] == answer["results"][1]["scores"]


def test_predict_globs_and_formats_on_standard_output(run: Path, shapes: Path, tmp_path: Path) -> None:
    wanted = sorted((shapes / "test" / "star").glob("*.png"))
    done = saccade("predict", run, shapes / "test" / "st*" / "*.png", "--format", "csv", "--quiet")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "source,label,score,circle,cross,ring,square,star,triangle"
    assert [line.split(",")[0] for line in lines[1:]] == [str(path) for path in wanted]
    done = saccade("predict", run, shapes / "test", "--format", "jsonl", "--out", tmp_path / "o")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["predictions.jsonl"]
    assert len((tmp_path / "o" / "predictions.jsonl").read_text().splitlines()) == len(images(shapes / "test"))
    assert done.stdout.decode() == f"{len(images(shapes / 'test'))} results written to {tmp_path / 'o'}\n"


def test_explain(run: Path, shapes: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    done = saccade("explain", run, images(shapes)[0], bad, "--out", tmp_path / "e")
    assert done.returncode == 0, done.stderr.decode()
    assert f"failed: {bad}: " in done.stderr.decode(), "a bad image is reported here too"
    assert sorted(path.suffix for path in (tmp_path / "e").iterdir()) == [".npy", ".png"]
    assert "worst mistakes" in done.stdout.decode()


def test_the_same_seed_makes_the_same_shapes(shapes: Path, tmp_path: Path) -> None:
    facts = as_json("data", "make", "shapes", "--n", "120", "--size", "33x20", "--out", tmp_path / "again", "--seed", "3")
    assert facts["images"] == 120
    assert [path.read_bytes() for path in images(tmp_path / "again")] == [path.read_bytes() for path in images(shapes)]


def test_interrupt_saves_and_resume_goes_on(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    command = [*COMMAND, "train", str(shapes), *TINY, "--epochs", "40", "--out", str(out), "--set", "patience=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: (out / "best.safetensors").is_file(), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert "Traceback" not in errors.decode()
    last = errors.decode().splitlines()[-1]
    assert last.startswith("interrupted: stopped at step ") and "--resume" in last
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "interrupted"
    stopped = record["steps"]
    assert 0 < stopped < record["resolved"]["total_steps"]
    assert (out / "checkpoints" / f"step-{stopped:09d}").is_dir()
    assert saccade("predict", out, images(shapes)[0]).returncode == 0, "the best so far can be used"
    with subprocess.Popen([*COMMAND, "train", "--resume", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        before = (out / "best.safetensors").stat().st_mtime_ns
        wait_for(lambda: (out / "best.safetensors").stat().st_mtime_ns > before or in_training(out), process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors.decode()
    assert f"going on from step {stopped} of " in errors.decode()
    assert json.loads((out / "run.json").read_text())["steps"] > stopped


def in_training(out: Path) -> bool:
    """Whether the resumed process has opened its own file of events, which it does right before the first step."""
    return len(list((out / "tensorboard").glob("events*"))) > 1


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        if time.monotonic() > deadline:
            process.kill()  # or leaving the `with` would wait for its end
            raise AssertionError("waited for two minutes")
        time.sleep(0.02)


def test_an_interrupt_while_the_images_are_read_writes_nothing(tmp_path: Path) -> None:
    """Before step 0 there is nothing to save: exit code 130, one line, no run folder."""
    import numpy as np
    from PIL import Image

    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png", compress_level=1)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(150):  # some two seconds of reading: time enough for the signal on a busy machine
            os.link(tmp_path / "one.png", tmp_path / "data" / name / f"{number}.png")
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "saccade" / "pixels"
    before = set(cache.glob("*"))
    command = [*COMMAND, "train", str(tmp_path / "data"), *TINY, "--epochs", "1", "--out", str(tmp_path / "r")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: set(cache.glob("*")) > before, process)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert out == b""
    assert errors.decode().splitlines()[-1].startswith("interrupted"), errors.decode()
    assert "Traceback" not in errors.decode()
    assert not (tmp_path / "r").exists()


@pytest.mark.slow  # tests/api has all of it but the training
def test_quickstart(tmp_path: Path) -> None:
    done = saccade("quickstart", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "saccade train path/to/photos" in text
    run = tmp_path / "quickstart" / "run"
    rows = [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]
    right = sum(row["truth"] == row["label"] for row in rows) / len(rows)
    assert len(rows) >= 350
    assert right >= 0.98
    assert f"accuracy {right:.4f}" in text and f"on {len(rows)} images held out" in text
    digits = tmp_path / "quickstart" / "digits"
    assert len(images(digits)) == 1797
    assert len([path for path in (run / "explanations").iterdir() if path.suffix == ".png"]) >= 5
    assert (run / "report.html").stat().st_size > 50_000
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart"]
