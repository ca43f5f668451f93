"""SIGKILL at any moment, then --resume: what a run leaves is equal to the bit to what the undisturbed run leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.kills import VARIANTS, Server, survive
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
    came = sum(survive(server, tmp_path / str(n), variant, draws, 5) for n in range(3))
    for n in range(3):
        assert Outcome.of(RunDir(tmp_path / str(n))).differs(whole[variant]) == []
    assert came >= 8, "too few of the kills met a living run"


def test_the_undisturbed_variants_differ(whole: dict[str, Outcome]) -> None:
    """Or the comparison would show nothing."""
    assert all(
        whole[one].differs(whole[other]) for one in VARIANTS for other in VARIANTS if one < other and {one, other} != {"ema", "workers"}
    )
    assert whole["ema"].differs(whole["workers"]) == [], "workers change nothing"
