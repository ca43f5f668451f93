"""Commands of saccade as processes that tests harm: forked from a server that has imported everything, so that each costs a second.

A child runs `saccade.cli.main.main` with its arguments, in a session, a folder and an environment of its own.
`hooks` (functions of `faults.hooks`, by name) run in it first: they break its world, or stop it at a moment that a test can meet.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 100.0  # seconds after which a process that has not ended is a failure
TINY = ("--model", "small_resnet_8px", "--size", "16", "--batch", "8", "--device", "cpu", "--seed", "1")
NOT_ALLOWED = 77  # exit code of a child whose hook this machine does not permit

Hook = tuple[str, Mapping[str, Any]]


@dataclass
class Child:
    """A process that was started; its output goes to files."""

    pid: int
    place: Path

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    @property
    def errors(self) -> str:
        return (self.place / "err").read_text()

    @property
    def last(self) -> str:
        """The last line of standard error."""
        return (self.errors.splitlines() or [""])[-1]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def running(self) -> bool:
        return _server().ask(wait=self.pid, seconds=0.0)["status"] is None

    def wait(self, seconds: float = LIMIT) -> int:
        """The exit code, negative for a signal; a child that does not end is killed and fails the test."""
        status: int | None = _server().ask(wait=self.pid, seconds=seconds)["status"]
        if status is None:
            self.send(signal.SIGKILL)
            _server().ask(wait=self.pid, seconds=LIMIT)
            raise AssertionError(f"process {self.pid} did not end in {seconds} s; it said:\n{self.errors}")
        return status

    def others(self) -> list[int]:
        """The processes of its session but itself: what it has started and not ended."""
        return [pid for pid in _processes() if pid != self.pid and _session(pid) == self.pid]

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something has happened, or the process has ended without it."""
        wait_for(lambda: ready() or not self.running())
        assert ready(), f"it ended before that moment and said:\n{self.errors}"


def wait_for(ready: Callable[[], bool], seconds: float = LIMIT) -> None:
    """Ask again and again, up to a deadline."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited for {seconds} s"
        time.sleep(0.005)


def start(place: Path, *argv: str | Path, hooks: Sequence[Hook] = (), env: Mapping[str, str | None] | None = None) -> Child:
    """Start `saccade ARGV...` in the folder `place`; decoded images are kept in `place`/cache unless `env` says otherwise."""
    number = next(n for n in range(10_000) if not (place / f"process-{n}").exists())
    files = place / f"process-{number}"
    files.mkdir(parents=True)
    environment = {"XDG_CACHE_HOME": str(place / "cache"), **(env or {})}
    answer = _server().ask(
        argv=list(map(str, argv)), cwd=str(place), files=str(files), hooks=[list(hook) for hook in hooks], env=environment
    )
    return Child(answer["pid"], files)


def run(place: Path, *argv: str | Path, hooks: Sequence[Hook] = (), env: Mapping[str, str | None] | None = None) -> tuple[int, Child]:
    """Start it and wait for its end."""
    child = start(place, *argv, hooks=hooks, env=env)
    return child.wait(), child


def paused(place: Path, *argv: str | Path, at: tuple[str, str, int], hooks: Sequence[Hook] = (), **options: Any) -> tuple[Child, Path]:
    """Start it and wait until it stands before a call (`faults.hooks.pause`); it goes on when the file given back is made."""
    reached, go = (place / f"{name}-{time.monotonic_ns()}" for name in ("reached", "go"))
    owner, name, call = at
    hook: Hook = ("pause", {"owner": owner, "name": name, "call": call, "reached": str(reached), "go": str(go)})
    child = start(place, *argv, hooks=[*hooks, hook], **options)
    child.until(reached.exists)
    return child, go


def refused(code: int, child: Child, *words: str) -> str:
    """Assert a refusal as law 8 wants it: code 2, one line of error that has these words, no traceback; returns the line."""
    assert code == 2, f"exit code {code}:\n{child.errors}"
    errors = [line for line in child.errors.splitlines() if line.startswith("error: ")]
    assert errors == [child.last], child.errors
    assert "Traceback" not in child.errors
    for word in words:
        assert word in child.last, f"{word!r} is not in: {child.last}"
    return child.last


def make_data(folder: Path, count: int = 8, side: int = 18, kind: str = "png") -> Path:
    """Three classes of noisy colours that are learned at once; every file has its own content."""
    generator = np.random.Generator(np.random.Philox(0))
    for shade, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 60, (side, side, 3)).astype(np.uint8)
            pixels[:, :, 2 - shade] += np.uint8(150)
            Image.fromarray(pixels).save(folder / name / f"{number}.{kind}")
    return folder


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: bytes of files, targets of links, nothing of folders."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
    return found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


class _Server:
    """The parent of all children, asked and answered in lines of JSON."""

    def __init__(self) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, str(Path(__file__).with_name("command_server.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **one})
        assert self._answer() == {"threads": 1}, "a process with several threads must not be forked"

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=10)


@functools.cache
def _server() -> _Server:
    """One for all modules of tests; it ends when its standard input does."""
    server = _Server()
    atexit.register(server.close)
    return server
