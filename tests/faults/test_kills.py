"""SIGKILL at any moment, then --resume: what a run leaves is equal to the bit to what the undisturbed run leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.kills import ROOMS, VARIANTS, Server, spawn, survive, wait_for
from saccade import tasks
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_as_if_nothing_had_been(server: Server, whole: dict[str, Outcome], tmp_path: Path, variant: str) -> None:
    draws = random.Random(variant)
    came = sum(survive(server, tmp_path / str(n), variant, draws, 7) for n in range(3))
    for n in range(3):
        assert Outcome.of(RunDir(tmp_path / str(n))).differs(whole[variant]) == []
    assert came >= 8, "too few of the kills met a living run"


def test_the_undisturbed_variants_differ(whole: dict[str, Outcome]) -> None:
    """Or the comparison would show nothing."""
    same = {"ema", "workers"}
    assert all(whole[one].differs(whole[other]) for one in VARIANTS for other in VARIANTS if one < other and {one, other} != same)
    assert whole["ema"].differs(whole["workers"]) == [], "workers change nothing"
    assert [[event["event"] for event in whole[name].events] for name in ("skip", "back")] == [["skip", "skip"], ["back"]]


def test_every_room_is_here() -> None:
    assert set(ROOMS) >= set(tasks.ROOMS)


def test_processes_of_two_threads_are_killed_too(tmp_path: Path) -> None:
    """Started anew each time, as a user's are: nothing is shared but the folder."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert spawn(whole, "everything").wait(60) == 0
    draws = random.Random(0)
    for _ in range(3):
        process = spawn(killed, "everything")
        steps = draws.randint(2, 8) + len(list((killed / "checkpoints").glob("step-*")))
        wait_for(lambda steps=steps: RunDir(killed).metrics_file.exists() and len(RunDir(killed).metrics()) >= steps, process)
        process.kill()
        process.wait()
    assert spawn(killed, "everything").wait(60) == 0
    assert Outcome.of(RunDir(killed)).differs(Outcome.of(RunDir(whole))) == []
