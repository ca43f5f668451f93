"""SIGKILL at any moment, then --resume: what a run leaves is equal to the bit to what the undisturbed run leaves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = pytest.mark.processes

VARIANTS = ("plain", "ema", "workers", "accumulation", "everything", "bf16")
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


class Server:
    """The fork server, asked and answered in lines of JSON."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each variant leaves when nothing happens."""
    found = {}
    for variant in VARIANTS:
        path = tmp_path_factory.mktemp(variant)
        assert server.run(path, variant) == 0
        found[variant] = Outcome.of(RunDir(path))
    return found


def survive(server: Server, path: Path, variant: str, draws: random.Random, kills: int) -> int:
    """Kill a run up to `kills` times, then let it end; the number of kills that came."""
    came = 0
    for _ in range(kills):
        place = draws.choice([*PLACES, "clock", "clock"])
        if place == "clock":
            request: dict[str, Any] = {"seconds": draws.uniform(0.01, 0.8)}
        else:
            number = draws.randint(1, max(1, PLACES[place] // 3))
            request = {"kill": {"place": place, "number": number, "after": draws.random() < 0.5}}
        status = server.run(path, variant, workers=draws.choice([None, 0, 2]), **request)
        assert status in (0, -9), f"{request} ended with {status}"
        came += status == -9
    assert server.run(path, variant) == 0
    return came


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_as_if_nothing_had_been(server: Server, whole: dict[str, Outcome], tmp_path: Path, variant: str) -> None:
    draws = random.Random(variant)
    came = sum(survive(server, tmp_path / str(n), variant, draws, 5) for n in range(3))
    for n in range(3):
        assert Outcome.of(RunDir(tmp_path / str(n))).differs(whole[variant]) == []
    assert came >= 8, "too few of the kills met a living run"


def test_the_undisturbed_variants_differ(whole: dict[str, Outcome]) -> None:
    """Or the comparison would show nothing."""
    assert all(whole[one].differs(whole[other]) for one in VARIANTS for other in VARIANTS if one < other and {one, other} != {"ema", "workers"})
    assert whole["ema"].differs(whole["workers"]) == [], "workers change nothing"
