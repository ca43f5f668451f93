"""Many that start on one run folder, of whom one wins; and the threads of that one, which nobody can kill, stop or lose alone."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guard
from faults.commands import TINY, Child, make_data, paused, refused, run, start, wait_for
from saccade.core.rundir import RunDir
from saccade.data.loader import Loader, Source
from saccade.tasks.classification.task import Classification
from small_jobs import CONFIG, Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

QUICK = ("no_report", {})
OFTEN = ("checkpoint_each_step", {})
TRAIN = ("train", "data", *TINY, "--epochs", "4", "--out", "r")
RESUME = ("train", "--resume", "--out", "r")
STEP = ("saccade.training.loop:Trainer", "_step")
STARTERS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What an undisturbed run leaves."""
    place = tmp_path_factory.mktemp("whole")
    make_data(place / "data")
    with guard.GUARD.allow("processes"):
        code, child = run(place, *TRAIN, hooks=[QUICK])
    assert code == 0, child.errors
    return Outcome.of(RunDir(place / "r"))


def hold(owner: str, name: str, call: int, reached: Path, go: Path) -> tuple[str, dict[str, Any]]:
    return "pause", {"owner": owner, "name": name, "call": call, "reached": str(reached), "go": str(go)}


def race(place: Path, *argv: str, at: tuple[str, str]) -> tuple[Child, list[Child]]:
    """STARTERS processes held at one place and let go together. The winner, held before its first step, and the others."""
    go, on = place / "race", place / "on"
    hooks = [[QUICK, hold(*at, 0, place / f"ready-{n}", go), hold(*STEP, 0, place / f"won-{n}", on)] for n in range(STARTERS)]
    children = [start(place, *argv, hooks=each) for each in hooks]
    wait_for(lambda: all((place / f"ready-{n}").exists() for n in range(STARTERS)))
    go.touch()
    wait_for(lambda: sum(child.running() for child in children) == 1)
    wait_for(lambda: any((place / f"won-{n}").exists() for n in range(STARTERS)))
    (winner,) = [child for n, child in enumerate(children) if (place / f"won-{n}").exists()]
    return winner, [child for child in children if child is not winner]


def test_one_of_twenty_resumes_and_the_others_name_it(tmp_path: Path, whole: Outcome) -> None:
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    child.send(signal.SIGTERM)
    go.touch()
    assert child.wait() == 143
    winner, others = race(tmp_path, *RESUME, at=("saccade.api.training", "_resume"))
    for other in others:
        refused(other.wait(), other, f"r: the run folder is in use by process {winner.pid} on {socket.gethostname()}")
    (tmp_path / "on").touch()
    assert winner.wait() == 0, winner.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(whole) == []


def test_one_of_twenty_begins(tmp_path: Path, whole: Outcome) -> None:
    """All have seen that the folder is free before the first of them makes it."""
    make_data(tmp_path / "data")
    winner, others = race(tmp_path, *TRAIN, at=("saccade.core.rundir:RunDir", "lock"))
    for other in others:
        refused(other.wait(), other, f"r: the run folder is in use by process {winner.pid} on {socket.gethostname()}")
    (tmp_path / "on").touch()
    assert winner.wait() == 0, winner.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(whole) == []


def test_a_late_starter_does_not_write_over_a_finished_run(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    late, go = paused(tmp_path, *TRAIN, "--seed", "2", at=("saccade.core.rundir:RunDir", "lock", 0), hooks=[QUICK])
    assert run(tmp_path, *TRAIN, hooks=[QUICK])[0] == 0
    best = (tmp_path / "r" / "best.safetensors").read_bytes()
    go.touch()
    late.wait()
    assert (tmp_path / "r" / "best.safetensors").read_bytes() == best
    refused(late.wait(), late, "not empty")


def test_kill_9_frees_the_run_at_once(tmp_path: Path, whole: Outcome) -> None:
    make_data(tmp_path / "data")
    for _ in range(3):
        argv = RESUME if (tmp_path / "r").exists() else TRAIN
        child, _ = paused(tmp_path, *argv, at=(*STEP, 3), hooks=[QUICK, OFTEN])
        code, other = run(tmp_path, *RESUME)
        refused(code, other, f"in use by process {child.pid}")
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    code, child = run(tmp_path, *RESUME, hooks=[QUICK])
    assert code == 0, child.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(whole) == []


# The loader's workers are threads


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_workers_are_threads_and_a_stop_changes_nothing(tmp_path: Path, whole: Outcome) -> None:
    """There is no process to kill but the run itself; SIGSTOP and SIGCONT stop and wake all of it."""
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, "--workers", "2", at=(*STEP, 3), hooks=[QUICK])
    assert child.others() == [] and not Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().strip()
    assert len(os.listdir(f"/proc/{child.pid}/task")) >= 3, "two workers beside the main thread"
    go.touch()
    stops = 0
    for pause in np.random.Generator(np.random.Philox(3)).uniform(0.005, 0.04, 12).tolist():
        if not child.running():
            break
        child.send(signal.SIGSTOP)
        wait_for(lambda: _state(child.pid) in "TZ")
        stops += _state(child.pid) == "T"
        time.sleep(pause)
        child.send(signal.SIGCONT)
        time.sleep(pause / 2)
    assert child.wait() == 0, child.errors
    assert stops >= 3
    assert Outcome.of(RunDir(tmp_path / "r")).differs(whole) == []


@pytest.mark.parametrize(("error", "code"), [("RuntimeError", 1), ("MemoryError", 1), ("OSError", 1), ("UserError", 2)])
def test_an_error_in_a_worker_ends_the_run_with_its_cause(tmp_path: Path, whole: Outcome, error: str, code: int) -> None:
    make_data(tmp_path / "data")
    fail = ("fail_in_loader", {"error": error, "position": 40, "text": "the disk fell off"})
    child = start(tmp_path, *TRAIN, "--workers", "2", hooks=[QUICK, OFTEN, fail])
    assert child.wait(20) == code, child.errors
    assert "the disk fell off" in child.last
    assert child.others() == []
    assert RunDir(tmp_path / "r").read_run()["state"] == "failed"
    assert RunDir(tmp_path / "r").load_checkpoint()[0] >= 1
    again, child = run(tmp_path, *RESUME, hooks=[QUICK])
    assert again == 0, child.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(whole) == []


class SlowStore:
    """Each image takes a while; counts those that are being read."""

    def __init__(self) -> None:
        self.busy = 0
        self.began = threading.Event()

    def __len__(self) -> int:
        return 64

    def __getitem__(self, place: int) -> Any:
        self.busy += 1
        self.began.set()
        time.sleep(0.02)
        self.busy -= 1
        return np.zeros((16, 16, 3), np.uint8)


def test_closing_while_workers_are_busy_leaves_none() -> None:
    store = SlowStore()
    source = Source(store, [0] * 64, [""] * 64)  # type: ignore[arg-type]
    stream = Loader(source, Classification().augment(CONFIG), seed=0, batch=8, workers=3).stream(0)
    next(stream)
    store.began.clear()
    assert store.began.wait(5), "they prepare what comes next"
    begin = time.monotonic()
    stream.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("saccade-loader")] == []
    assert store.busy == 0
    assert time.monotonic() - begin < 2, "what was not begun is not done"
