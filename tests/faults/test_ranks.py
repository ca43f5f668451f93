"""`torchrun ... -m saccade train`: ranks that die, come back and end with the same bits; signals; refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ranked import HERE, environment, free_port
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

LIMIT = 150.0
OPTIONS = ["--epochs", "4", "--batch", "8", "--model", "small_resnet_32px", "--size", "16", "--device", "cpu"]


def torchrun(*command: str, restarts: int = 0, **more: Any) -> subprocess.Popen[str]:
    """Two processes on this machine."""
    start = ["torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    where = ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    words = [sys.executable, "-m", *start, *where, *command]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=LIMIT)
    return process.returncode, out, said


def train(folder: Path, out: Path, kills: list[tuple[int, int]]) -> tuple[int, str, str]:
    arguments = ["train", str(folder), "--out", str(out), "--json", *OPTIONS]
    return ended(torchrun(str(HERE / "ranked.py"), "command", json.dumps(arguments), json.dumps(kills), restarts=len(kills)))


def test_ranks_that_die_change_no_bit(tiny_folder: Path, tmp_path: Path) -> None:
    code, out, said = train(tiny_folder, tmp_path / "whole", [])
    assert code == 0, said
    assert json.loads(out)["steps"] == 12, "one object, from the first rank alone"
    code, out, said = train(tiny_folder, tmp_path / "broken", [(1, 3), (0, 6), (1, 9)])
    assert code == 0, said
    resumed = [int(found) for found in re.findall(r"going on from step (\d+) of 12", said)]
    assert len(resumed) == 3, said
    assert all(at - 2 <= step <= at for step, at in zip(resumed, (3, 6, 9), strict=True)), "the last save may not have ended"
    assert Outcome.of(RunDir(tmp_path / "broken")).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []
    assert RunDir(tmp_path / "broken").read_run()["state"] == "done"


@pytest.mark.slow  # tests/training/test_ranks.py has it without torchrun
def test_a_run_of_two_goes_on_alone(tiny_folder: Path, tmp_path: Path) -> None:
    """A checkpoint knows nothing of the number of processes."""
    arguments = ["train", str(tiny_folder), "--out", str(tmp_path / "run"), *OPTIONS]
    code, _, said = ended(torchrun(str(HERE / "ranked.py"), "command", json.dumps(arguments), json.dumps([(1, 7)])))
    assert code != 0 and "Traceback (most recent call last):\n  File" not in said.partition("failed (exitcode")[0], said
    run = RunDir(tmp_path / "run")
    assert run.load_checkpoint()[0] in (5, 6, 7)
    command = [sys.executable, "-m", "saccade", "train", "--resume", "--out", str(run.path), "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in run.metrics() if "split" not in row] == list(range(1, 13))


def test_a_signal_to_torchrun_saves_the_run(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", str(tiny_folder), "--out", str(tmp_path / "run"), *OPTIONS, "--set", "epochs=4000"]
    process = torchrun("-m", "saccade", *arguments)
    wait_for(lambda: any((tmp_path / "run" / "tensorboard").glob("*")) and workers(process.pid), process)
    time.sleep(0.5)  # some steps
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, _, said = ended(process)
    assert time.monotonic() - began < 20
    assert "stopped at step" in said and "go on with: saccade train --resume" in said, said
    assert "Traceback" not in said.partition("Sending process")[0]
    run = RunDir(tmp_path / "run")
    step, _, passed = run.load_checkpoint()
    assert step > 0 and passed == []
    assert run.read_run()["state"] == "interrupted"


MISTAKES = {
    "batch": (["--out", "run", "--batch", "6"], "batch must be a multiple of 4 for 2 processes, got 6"),
    "place": (["--batch", "8"], "several processes need --out"),
    "model": (["--out", "run", "--model", "resnet81"], "unknown"),
    "full": (["--out", "tiny"], "the folder is not empty"),
}


@pytest.mark.parametrize("name", [name if name == "batch" else pytest.param(name, marks=pytest.mark.slow) for name in MISTAKES])
def test_a_mistake_is_said_once(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    words, expected = MISTAKES[name]
    code, out, said = ended(torchrun("-m", "saccade", "train", str(tiny_folder), "--epochs", "1", *words, cwd=tmp_path))
    assert code != 0 and out == ""
    ours = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(ours) == 1 and expected in ours[0], said
    assert not (tmp_path / "run").exists()


def workers(pid: int) -> list[int]:
    """The processes that torchrun has started."""
    return [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(what: Any, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    assert os.path.isdir(f"/proc/{process.pid}")
