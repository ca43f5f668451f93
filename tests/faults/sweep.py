"""A fault at each system call of a save, in turn: the process is killed there, the call fails, or it lies (SQLite's way to test itself).

The faults come from `strace`, so the calls are real ones of a real process (tests/faults/saver.py). What must hold afterwards stands
in `verdict`. Shared by test_sweep.py and benchmarks/sweep.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults import saver
from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.files import TEMPORARY, read_json
from saccade.core.rundir import RunDir

LIMIT = 60.0  # seconds that one save may take
FAST = Path("/dev/shm")  # a disk in memory: the calls are the same, and nobody waits for a plate
MODES = ("first", "next", "again", "torn", "damaged")
CHANGING = ("openat", "mkdir", "write", "rename", "fsync", "ftruncate", "unlink", "unlinkat", "rmdir")
LOOKING = ("close", "read", "pread64", "newfstatat", "getdents64", "lseek", "flock")
# fault -> the calls it can meet
FAULTS: dict[str, tuple[str, ...]] = {
    "KILL": (*CHANGING, *LOOKING),
    "ENOSPC": ("openat", "mkdir", "write", "rename", "fsync", "ftruncate"),
    "EIO": (*CHANGING, *LOOKING),
    "EROFS": ("openat", "mkdir", "write", "rename", "ftruncate", "unlink", "unlinkat", "rmdir"),
    "EACCES": ("openat", "mkdir", "rename", "unlink", "unlinkat", "rmdir", "newfstatat"),
    "EMFILE": ("openat",),
    "EINTR": ("openat", "write", "read", "pread64", "fsync", "ftruncate"),
    "lie": ("write",),
    "half lie": ("write",),
}


@dataclass(frozen=True)
class Point:
    """One fault: the mode and size of the save, the system call, what happens to it, and at which of its occurrences."""

    mode: str
    size: int
    call: str
    fault: str
    number: int


@dataclass
class Verdict:
    """What was wrong, by kind ("lost", "false success", "exit", "leftover"); nothing where all held."""

    wrong: list[tuple[str, str]] = field(default_factory=list)

    def must(self, holds: bool, kind: str, what: str) -> None:
        """Note `what` unless it holds."""
        if not holds:
            self.wrong.append((kind, what))


def missing() -> str:
    """Why there can be no sweep here; empty where it can."""
    if not shutil.which("strace"):
        return "no strace (apt-get install strace)"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()}"


class Savers:
    """The process that forks a child for each save, and `strace` beside each child."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.server = subprocess.Popen(
            [sys.executable, str(Path(saver.__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def save(self, folder: Path, size: int, step: int, version: int, options: list[str]) -> tuple[int, str, str]:
        """Exit status of a traced save, what it wrote to standard error, and strace's log."""
        errors, log = self.scratch / "errors", self.scratch / "log"
        request = {"folder": str(folder), "step": step, "size": size, "version": version, "errors": str(errors)}
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        pid = self._answer()["pid"]
        tracer = subprocess.Popen(["strace", "-p", str(pid), "-o", str(log), "-s", "0", *options], stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        os.kill(pid, signal.SIGUSR1)
        status = self._answer()["status"]
        tracer.communicate(timeout=LIMIT)
        assert "attached" in attached, attached
        return status, errors.read_text(), log.read_text()

    def _answer(self) -> dict[str, int]:
        assert self.server.stdout is not None
        told: dict[str, int] = json.loads(self.server.stdout.readline())
        return told

    def close(self) -> None:
        """End the server."""
        self.server.communicate()


class Sweep:
    """The folders that a save begins with, and the checks of what a fault left."""

    def __init__(self, savers: Savers, scratch: Path) -> None:
        self.savers, self.scratch = savers, scratch
        self.prepared: dict[tuple[str, int], tuple[Path, str]] = {}

    def prepare(self, mode: str, size: int) -> tuple[Path, str]:
        """A folder as it is before the save, to be copied; and the log of a save that nothing happens to."""
        if (mode, size) not in self.prepared:
            origin = self.scratch / f"{mode}-{size}"
            origin.mkdir()
            if mode != "first":
                for step in (1, 2):
                    saver.save(origin / "run", step, size)
            if mode == "torn":
                with (origin / "run" / "metrics.jsonl").open("ab") as file:
                    file.write(saver.lines(3)[len(saver.lines(2)) :] + b'{"step": 4, "los')
            if mode == "damaged":
                model = origin / "run" / "checkpoints" / "step-000000002" / "model.safetensors"
                model.write_bytes(model.read_bytes()[:-1] + b"\0")
            folder = self._copy(origin)
            status, errors, log = self.savers.save(folder, size, *aim(mode), options(None))
            assert (status, errors) == (0, ""), errors
            self.prepared[mode, size] = origin, log
        return self.prepared[mode, size]

    def points(self, mode: str, size: int) -> Iterator[Point]:
        """Every fault at every occurrence of every call that a save makes."""
        counts = Counter(re.findall(r"^(\w+)\(", self.prepare(mode, size)[1], re.MULTILINE))
        for fault, calls in FAULTS.items():
            for call in calls:
                yield from (Point(mode, size, call, fault, number) for number in range(1, counts[call] + 1))

    def try_at(self, point: Point) -> Verdict:
        """Save with the fault, and judge what it left."""
        origin, clean = self.prepare(point.mode, point.size)
        folder = self._copy(origin)
        status, errors, log = self.savers.save(folder, point.size, *aim(point.mode), options(point, clean))
        verdict = Verdict()
        verdict.must("INJECTED" in log or status == -signal.SIGKILL, "exit", f"the fault did not come: {status} {errors}")
        judge_exit(verdict, point, status, errors, folder)
        judge_state(verdict, folder, point, acknowledged=status == 0)
        return verdict

    def _copy(self, origin: Path) -> Path:
        place = self.scratch / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(origin, place)
        return place / "run"


def aim(mode: str) -> tuple[int, int]:
    """Step and version that the save goes to."""
    return {"first": (1, 0), "next": (3, 0), "again": (2, 1), "torn": (3, 0), "damaged": (2, 1)}[mode]


def before(mode: str) -> tuple[int, int] | None:
    """Step and version that the folder holds before the save."""
    return {"first": None, "next": (2, 0), "again": (2, 0), "torn": (2, 0), "damaged": (1, 0)}[mode]


def options(point: Point | None, clean: str = "") -> list[str]:
    """What strace is told; a write that lies writes nothing and claims the size that the honest one took, or half of it."""
    if point is None:
        return ["-e", f"trace={','.join((*CHANGING, *LOOKING))}"]
    what = f"error={point.fault}"
    if point.fault == "KILL":
        what = "signal=KILL"
    if point.fault.endswith("lie"):
        took = int(re.findall(r"^write.* = ([0-9]+)$", clean, re.MULTILINE)[point.number - 1])
        what = f"retval={took // (2 if point.fault == 'half lie' else 1)}"
    return ["-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}:when={point.number}"]


def judge_exit(verdict: Verdict, point: Point, status: int, errors: str, folder: Path) -> None:
    """Done, or one line that names the place; a kill is a kill."""
    if point.fault == "KILL":
        verdict.must((status, errors) == (-signal.SIGKILL, ""), "exit", f"{status} {errors}")
    elif status == 0:
        verdict.must(errors == "", "exit", f"a success that complains: {errors}")
    else:
        one_line = errors.count("\n") == 1 and errors.startswith("error: ") and "Traceback" not in errors
        verdict.must(status == 2 and one_line and str(folder) in errors, "exit", f"{status} {errors}")


def judge_state(verdict: Verdict, folder: Path, point: Point, *, acknowledged: bool) -> None:
    """The folder holds the new state or the one before, whole; and the next save goes on from it."""
    new, old = aim(point.mode), before(point.mode)
    kind = "false success" if acknowledged else "lost"
    allowed = [new] if acknowledged else [new, old]
    run = RunDir(folder)
    try:
        found = checkpoint(run, point.size)
        verdict.must(found in allowed, kind, f"the checkpoint is {found}, not one of {allowed}")
        if found is not None:
            verdict.must(metrics_hold(run, found[0], exact=acknowledged), kind, "the lines of metrics are not those of the checkpoint")
        model = best(run, point.size)
        verdict.must(model in ([new] if acknowledged else [new, (2, 0) if old else None]), kind, f"the best model is {model}")
        if run.run_file.exists() or acknowledged or old:
            record = run.read_run()
            told = (record["steps"], record["version"])
            verdict.must(told in ([new] if acknowledged else [new, (2, 0) if old else (0, 0)]), kind, f"run.json says {told}")
        next_save(verdict, run, point)
    except (UserError, OSError, KeyError, ValueError) as error:
        verdict.must(False, kind, f"{type(error).__name__}: {error}")


def checkpoint(run: RunDir, size: int) -> tuple[int, int] | None:
    """Step and version of what resume would take, equal to the bit to what was saved; nothing where there is none."""
    if not run.has_checkpoint():
        return None
    step, found, _ = run.load_checkpoint()
    version = json.loads(found["state.json"])["version"]
    if found != saver.contents(step, size, version):
        raise ValueError(f"the content of step {step} is mixed")
    return step, version


def metrics_hold(run: RunDir, step: int, *, exact: bool) -> bool:
    """The lines up to the checkpoint's step are there, once, in order; what comes after them resume cuts off."""
    raw = run.metrics_file.read_bytes()
    whole = saver.lines(step)
    return raw == whole if exact else raw.startswith(whole)


def best(run: RunDir, size: int) -> tuple[int, int] | None:
    """Step and version of the best model, equal to the bit to what was saved; nothing where there is none."""
    if not run.best.exists():
        return None
    found, card = modelfile.load(run.best)
    step, version = int(card.metrics["step"] or 0), int(card.metrics["version"] or 0)
    expected = saver.tensors(step, size // 2, version)
    if {name: bytes(one.data) for name, one in found.items()} != {name: one.data for name, one in expected.items()}:
        raise ValueError(f"the best model of step {step} is mixed")
    return step, version


def next_save(verdict: Verdict, run: RunDir, point: Point) -> None:
    """Whoever locks the folder next finds no temporary, and the save after this one is whole."""
    with run.lock():
        left = [str(path) for path in run.path.rglob(f"{TEMPORARY}*")]
        verdict.must(not left, "leftover", f"{left}")
    step = aim(point.mode)[0] + 1
    saver.save(run.path, step, point.size)
    verdict.must(checkpoint(run, point.size) == (step, 0), "lost", "the next save is not there")
    verdict.must(metrics_hold(run, step, exact=True), "lost", "the lines after the next save")
    verdict.must(best(run, point.size) == (step, 0), "lost", "the best model after the next save")
    verdict.must(read_json(run.run_file)["steps"] == step, "lost", "run.json after the next save")
    verdict.must(len(list(run.checkpoints.iterdir())) <= 3, "leftover", f"{sorted(run.checkpoints.iterdir())}")
