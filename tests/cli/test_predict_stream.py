"""`saccade predict --format jsonl` over folders of any size, as real processes: results as they come, bounded memory, a clean end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import guard

pytestmark = pytest.mark.processes

# With the handlers of a terminal, in whatever way the suite itself was started (a job in the background ignores SIGINT).
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from saccade.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
COMMAND = [sys.executable, "-c", START, "predict"]
EXPORT = """
import sys
import torch
from pathlib import Path
from saccade.core.card import Card, InputSpec
from saccade.exporting import targets
from saccade.exporting.graph import assemble
from saccade.tasks.classification.task import MEAN, STD, Classification
torch.manual_seed(0)
arguments = {"classes": 3, "channels": 3, "width": 8, "blocks": [1, 1], "stem_stride": 1}
architecture = {"source": "saccade", "name": "x", "arguments": arguments}
card = Card("classify", ("a", "b", "c"), architecture, InputSpec(3, (8, 12), "crop", MEAN, STD))
room = Classification()
written = targets.write("onnx", assemble(room.build(card).eval(), room.decode, card), "fp32")
Path(sys.argv[1]).write_bytes(written.files["model.onnx"])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model, made in a child: these tests need no torch."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with guard.GUARD.allow("processes"):
        subprocess.run([sys.executable, "-c", EXPORT, str(path)], check=True, capture_output=True, timeout=300)
    return path


def make(folder: Path, n: int, *, bad: int = 0) -> Path:
    """`n` images under one name each, all of them the same file; the first `bad` of them are none."""
    folder.mkdir()
    file = io.BytesIO()
    Image.fromarray(np.random.Generator(np.random.Philox(0)).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    (folder.parent / "image.jpg").write_bytes(file.getvalue())
    for number in range(n):
        if number < bad:
            (folder / f"{number:06}.jpg").write_bytes(b"no image")
        else:
            os.link(folder.parent / "image.jpg", folder / f"{number:06}.jpg")
    return folder


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that nobody waits for the last one; read-only."""
    return make(tmp_path_factory.mktemp("many") / "crowd", 20_000)


def start(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)


def whole_lines(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n"), "the last line is cut"
    return [json.loads(line) for line in data.decode().splitlines()]


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < until, "it never came"
        time.sleep(0.002)


def test_the_first_lines_come_before_the_last_images_are_read(model: Path, tmp_path: Path) -> None:
    """A pipe holds 64 KiB: when a line is there and the rest is not taken, the last images are still untouched, and may go."""
    folder = make(tmp_path / "folder", 1500, bad=2)
    with start(model, folder, "--format", "jsonl", "--quiet") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert json.loads(first)["source"] == str(folder / "000002.jpg")
        for number in (1498, 1499):
            (folder / f"{number:06}.jpg").unlink()
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    rows = whole_lines(first + rest)
    assert [row["source"] for row in rows] == [str(folder / f"{n:06}.jpg") for n in range(2, 1498)]
    assert {(row["task"], row["label"] in "abc", tuple(row["size"])) for row in rows} == {("classify", True, (48, 64))}
    failed = errors.decode().splitlines()
    assert [line.split(": ")[1] for line in failed] == [str(folder / f"{n:06}.jpg") for n in (0, 1, 1498, 1499)]
    assert all(line.endswith("no such file") for line in failed[2:]), "they were read before the first line came"


@pytest.mark.parametrize("lines", [0, 1, 700])
def test_a_reader_that_goes_ends_it_quickly_and_quietly(model: Path, crowd: Path, lines: int) -> None:
    begin = time.monotonic()
    with start(model, crowd, "--format", "jsonl", "--quiet") as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(lines):
            assert json.loads(process.stdout.readline())
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141
    assert errors == b""
    assert time.monotonic() - begin < 15, "it hangs"


def test_head_in_a_shell(model: Path, crowd: Path) -> None:
    command = f'"$0" -m saccade predict "{model}" "{crowd}" --format jsonl --quiet | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, timeout=60)
    line, code = done.stdout.splitlines()
    assert json.loads(line)["source"] == str(crowd / "000000.jpg")
    assert (code, done.stderr) == (b"141", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_lines_in_the_partial_file(model: Path, crowd: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "predictions.jsonl").write_text("earlier")
    partial = tmp_path / "predictions.jsonl.partial"
    with start(model, crowd, "--format", "jsonl", "--out", tmp_path) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 20_000, process)
        assert whole_lines(partial.read_bytes().rpartition(b"\n")[0] + b"\n"), "it can be read while it grows"
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors.decode()
    assert out == b""
    assert errors.decode().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in errors.decode()
    rows = whole_lines(partial.read_bytes())
    assert 50 < len(rows) < 20_000
    assert [row["source"] for row in rows] == [str(crowd / f"{n:06}.jpg") for n in range(len(rows))]
    assert (tmp_path / "predictions.jsonl").read_text() == "earlier"
    assert sorted(os.listdir(tmp_path)) == ["predictions.jsonl", "predictions.jsonl.partial"]


def test_a_process_that_is_killed_leaves_whole_lines_too(model: Path, crowd: Path, tmp_path: Path) -> None:
    partial = tmp_path / "predictions.jsonl.partial"
    with start(model, crowd, "--format", "jsonl", "--out", tmp_path, "--quiet") as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 20_000, process)
        process.kill()
        process.communicate(timeout=60)
    assert len(whole_lines(partial.read_bytes())) > 50
    assert os.listdir(tmp_path) == ["predictions.jsonl.partial"]


def test_out_gets_the_file_when_it_is_whole(model: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", 60, bad=3)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "predictions.jsonl").write_text("earlier")
    (tmp_path / "o" / "predictions.jsonl.partial").write_text("of one that was stopped")
    with start(model, folder, "--format", "jsonl", "--out", tmp_path / "o", "--quiet") as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out.decode()) == (0, f"57 results written to {tmp_path / 'o'}\n"), errors.decode()
    assert len(errors.splitlines()) == 3
    assert len(whole_lines((tmp_path / "o" / "predictions.jsonl").read_bytes())) == 57
    assert os.listdir(tmp_path / "o") == ["predictions.jsonl"]


def test_only_bad_images_and_strict(model: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", 3, bad=3)
    with start(model, folder, "--format", "jsonl", "--out", tmp_path / "o", "--quiet") as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert len(errors.splitlines()) == 4 and errors.splitlines()[-1].startswith(b"error: ")
    assert os.listdir(tmp_path / "o") == []
    with start(model, tmp_path / "image.jpg", folder, "--format", "jsonl", "--strict", "--quiet") as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert [row["source"] for row in whole_lines(out)] == [str(tmp_path / "image.jpg")]
    assert len(errors.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(model: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", 40)
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, str(model), str(folder), "--format", "jsonl", "--quiet"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2, done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1 and b"No space left" in done.stderr


MEASURED = """
import sys
from saccade.cli.main import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:  # not getrusage: its peak counts the suite that the child was forked from
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def peak(model: Path, folder: Path, form: str) -> int:
    """KiB at the most, of a child that predicts over `folder`."""
    command = [sys.executable, "-c", MEASURED, "predict", str(model), str(folder), "--format", form, "--quiet"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stderr)


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of a process is read from /proc")
def test_memory_is_that_of_a_few_images(model: Path, tmp_path: Path) -> None:
    """Measured: 0.4 MB more for 3,000 images than for 300; 14 MB more where their results are held, 25 MB were it their pixels."""
    few, many = make(tmp_path / "few", 300), tmp_path / "many"
    many.mkdir()
    for number in range(3000):
        os.link(tmp_path / "image.jpg", many / f"{number:06}.jpg")
    assert peak(model, many, "jsonl") - peak(model, few, "jsonl") < 6000
    assert peak(model, many, "json") - peak(model, few, "json") > 6000, "what is held is not seen: this shows nothing"
