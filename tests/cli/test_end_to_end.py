"""The command line as a person uses it: real processes, real files, a real (tiny) network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.long]

TINY = ["--model", "small", "--size", "32", "--batch", "8", "--device", "cpu", "--seed", "1"]


def saccade(*args: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "saccade", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=300)


def as_json(*args: str | Path, stdin: bytes | None = None) -> Any:
    done = saccade(*args, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1, "one object on one line, and nothing else"
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 drawn shapes of 33x20 pixels, made by the command."""
    import guard

    target = tmp_path_factory.mktemp("made") / "shapes"
    with guard.GUARD.allow("processes"):
        done = saccade("data", "make", "shapes", "--task", "classify", "--n", "120", "--size", "33x20", "--out", target, "--seed", "3")
    assert done.returncode == 0, done.stderr.decode()
    return target


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the shapes, one pass."""
    import guard

    target = tmp_path_factory.mktemp("runs") / "first run"
    with guard.GUARD.allow("processes"):
        done = saccade("train", shapes, *TINY, "--epochs", "1", "--out", target)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "accuracy" in text
    assert f"saccade eval '{target}'" in text
    assert "\x1b" not in text + done.stderr.decode()
    assert "Warning" not in done.stderr.decode()
    return target


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".png", ".jpg"})


def test_train_json_and_what_it_writes(shapes: Path, tmp_path: Path) -> None:
    answer = as_json("train", shapes, *TINY, "--epochs", "1", "--out", tmp_path / "r", "--set", "augment.flip=0.5")
    assert set(answer) >= {"run", "model", "task", "metrics", "seconds", "steps", "images_per_second"}
    assert answer["task"] == "classify"
    assert Path(answer["run"]) == tmp_path / "r"
    assert Path(answer["model"]).is_file()
    for name in ("run.json", "metrics.jsonl", "best.safetensors", "last.safetensors", "report.html"):
        assert (tmp_path / "r" / name).is_file(), name


def test_eval(run: Path, shapes: Path) -> None:
    answer = as_json("eval", run)
    assert set(answer) >= {"task", "metrics", "intervals", "per_class"}
    low, high = answer["intervals"]["accuracy"]
    assert low <= answer["metrics"]["accuracy"] <= high
    assert as_json("eval", run / "best.safetensors", shapes)["task"] == "classify"
    text = saccade("eval", run).stdout.decode()
    assert text.startswith("metric")
    assert "precision" in text


def test_predict_keeps_order_reports_the_bad_and_reads_standard_input(run: Path, shapes: Path, tmp_path: Path) -> None:
    first, second = images(shapes)[:2]
    bad = tmp_path / "bad.png"
    bad.write_bytes(first.read_bytes()[:40])
    answer = as_json("predict", run, second, bad, first)
    assert [Path(row["source"]) for row in answer["results"]] == [second, first]
    assert [Path(row["source"]) for row in answer["failed"]] == [bad]
    piped = as_json("predict", run, "-", stdin=second.read_bytes())
    assert piped["results"][0]["scores"] == pytest.approx(answer["results"][0]["scores"], abs=1e-5)
    assert saccade("predict", run, second, bad, "--strict").returncode == 2
    done = saccade("predict", run, bad, "--json")
    assert done.returncode == 2
    json.loads(done.stdout)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_predict_writes_each_format(run: Path, shapes: Path, tmp_path: Path, form: str) -> None:
    done = saccade("predict", run, shapes, "--out", tmp_path / "o", "--format", form)
    assert done.returncode == 0, done.stderr.decode()
    assert list((tmp_path / "o").glob(f"*.{form}"))
    assert len(done.stdout.splitlines()) == len(images(shapes)) + 1
    printed = saccade("predict", run, images(shapes)[0], "--format", form)
    assert (printed.returncode, bool(printed.stdout)) == (0, True)


def test_explain(run: Path, shapes: Path, tmp_path: Path) -> None:
    answer = as_json("explain", run, images(shapes)[0], "--out", tmp_path / "e")
    row = answer["images"][0]
    assert Path(row["map"]).is_file()
    assert Path(row["picture"]).is_file()
    assert "mistakes" in answer
    done = saccade("explain", run, images(shapes)[0], "--class", "no such class")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_the_same_seed_makes_the_same_shapes(shapes: Path, tmp_path: Path) -> None:
    as_json("data", "make", "shapes", "--n", "120", "--size", "33x20", "--out", tmp_path / "again", "--seed", "3")
    assert [path.read_bytes() for path in images(tmp_path / "again")] == [path.read_bytes() for path in images(shapes)]


def test_interrupt_saves_and_resume_goes_on(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    command = [sys.executable, "-m", "saccade", "train", str(shapes), *TINY, "--epochs", "100000", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: (out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size > 0, process)
        second = saccade("train", shapes, *TINY, "--epochs", "1", "--out", out, "--resume")
        assert_refused(second, "pid")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors.decode()
    assert "Traceback" not in errors.decode()
    assert list((out / "checkpoints").iterdir())
    with subprocess.Popen(
        [*command[:3], "train", "--resume", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        before = (out / "metrics.jsonl").stat().st_size
        wait_for(lambda: (out / "metrics.jsonl").stat().st_size > before, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 143, errors.decode()


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_refused(done: subprocess.CompletedProcess[bytes], *words: str) -> None:
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2, lines
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
    assert not any("Traceback" in line for line in lines)
    assert all(word in lines[-1] for word in words), lines[-1]


def huge_png() -> bytes:
    """A valid header of 60,000 x 60,000 pixels, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def spoil(folder: Path, data: bytes) -> None:
    victim = images(folder)[0]
    victim.with_name("spoiled.png").write_bytes(data)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such folder": (lambda folder: shutil.rmtree(folder), "tiny"),
    "no images": (lambda folder: [path.unlink() for path in images(folder)], "image"),
    "one class": (lambda folder: [shutil.rmtree(path) for path in sorted(folder.iterdir())[1:]], "class"),
    "a class with one image": (lambda folder: [path.unlink() for path in images(folder / "green")[1:]], "green"),
    "not an image": (lambda folder: spoil(folder, b"no image at all" * 9), "spoiled.png"),
    "zero bytes": (lambda folder: spoil(folder, b""), "spoiled.png"),
    "truncated": (lambda folder: spoil(folder, images(folder)[0].read_bytes()[:100]), "spoiled.png"),
    "huge": (lambda folder: spoil(folder, huge_png()), "spoiled.png"),
}


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_bad_data_is_one_line_and_nothing_is_written(tiny_folder: Path, tmp_path: Path, fault: str) -> None:
    damage, word = BAD_FOLDERS[fault]
    damage(tiny_folder)
    out = tmp_path / "r"
    assert_refused(saccade("train", tiny_folder, *TINY, "--epochs", "1", "--out", out), word)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "resnet81"], "did you mean"),
        (["--set", "lr=-1"], "lr"),
        (["--set", "augment.flop=1"], "augment.flip"),
        (["--task", "clasify"], "classify"),
        (["--device", "cuda:77"], "cuda"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--epochs", "-1"], "epochs"),
        (["--resume"], "resume"),
    ],
)
def test_bad_requests_are_one_line_and_nothing_is_written(tiny_folder: Path, tmp_path: Path, options: list[str], word: str) -> None:
    out = tmp_path / "r"
    assert_refused(saccade("train", tiny_folder, "--out", out, *options), word)
    assert not out.exists()


def test_a_folder_with_something_in_it_is_not_overwritten(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("mine")
    assert_refused(saccade("train", tiny_folder, *TINY, "--epochs", "1", "--out", tmp_path / "r"), str(tmp_path / "r"))
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_write_permission(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert_refused(saccade("train", tiny_folder, *TINY, "--epochs", "1", "--out", tmp_path / "locked" / "r"), "locked")


def test_train_without_data_and_targets_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    assert_refused(saccade("train"), "DATA")
    for verb in ("eval", "predict", "explain"):
        inputs = [] if verb == "eval" else ["a.png"]
        assert_refused(saccade(verb, tmp_path / "nowhere", *inputs), "nowhere")
        assert_refused(saccade(verb, tmp_path / "x.safetensors", *inputs), "x.safetensors")
