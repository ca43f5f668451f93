"""Runs that are killed and go on, over and over: what tests/faults/test_kills.py and benchmarks/kills.py share."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIANTS = (
    "plain",
    "ema",
    "workers",
    "accumulation",
    "everything",
    "bf16",
    "skip",
    "back",
    "edits",
    "gan",
    "r3gan",
    "vqvae",
    "detector",
    "masks",
    "classes",
    "segments",
)
ROOMS = {
    "classify": VARIANTS[:-7],
    "toy": ("gan",),
    "generate": ("r3gan", "vqvae"),
    "detect": ("detector",),
    "instances": ("masks",),
    "segment": ("classes",),
    "panoptic": ("segments",),
}  # task -> its variants; a new room joins here
# Place, and about how many calls of it a whole run makes.
PLACES = {
    "load": 12,
    "forward": 14,
    "backward": 12,
    "average": 12,
    "evaluate": 3,
    "disk.open": 100,
    "disk.write": 100,
    "disk.fsync": 100,
    "disk.rename": 40,
    "disk.mkdir": 12,
    "disk.remove": 40,
    "disk.close": 100,
}
EDITED = {**PLACES, "edit": 3}


class Server:
    """The fork server, asked and answered in lines of JSON."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **one})
        assert self.answer()["threads"] == 1, "a process with several threads must not be forked"

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def run(self, path: Path, variant: str, **request: Any) -> int:
        """The exit status of a child that trains in `path` to the end, or until it is killed."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"path": str(path), "variant": variant, **request}) + "\n")
        self.process.stdin.flush()
        status: int = self.answer()["status"]
        return status

    def close(self) -> None:
        self.process.communicate()


def spawn(path: Path, variant: str) -> subprocess.Popen[bytes]:
    """A process of its own, of two threads, that trains in `path` to the end."""
    path.mkdir(exist_ok=True)
    request = json.dumps({"path": str(path), "variant": variant})
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("fork_server.py")), request])


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return when `what` holds, or the process has ended."""
    end = time.monotonic() + 60
    while process.poll() is None and not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def survive(server: Server, path: Path, variant: str, draws: random.Random, kills: int) -> int:
    """Kill a run up to `kills` times, then let it end; the number of kills that came."""
    came = 0
    for _ in range(kills):
        places = EDITED if variant == "edits" else PLACES
        place = draws.choice([*places, "clock", "clock"])
        if place == "clock":
            request: dict[str, Any] = {"seconds": draws.uniform(0.01, 0.5)}
        else:
            number = draws.randint(1, max(1, places[place] // 6))
            request = {"kill": {"place": place, "number": number, "after": draws.random() < 0.5}}
        status = server.run(path, variant, workers=draws.choice([None, 0, 2]), **request)
        assert status in (0, -9), f"{request} ended with {status}"
        came += status == -9
    assert server.run(path, variant) == 0
    return came
