"""Memory that really runs out: the run goes on by smaller parts, and ends as one that was started so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ranked import environment
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

MEGABYTES = (400, 330, 270, 500)  # what suffices for a part but not for the whole differs a little from machine to machine


def run(folder: Path, megabytes: int, micro_batch: int | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).with_name("starved.py")), str(folder), str(megabytes * 10**6), str(micro_batch)]
    return subprocess.run(command, env=environment(MALLOC_ARENA_MAX="1"), capture_output=True, text=True, timeout=120)


def test_a_run_without_enough_memory_is_that_of_a_smaller_micro_batch(tmp_path: Path) -> None:
    for megabytes in MEGABYTES:
        starved = tmp_path / f"starved-{megabytes}"
        done = run(starved, megabytes, 0)
        events = json.loads(done.stdout) if done.returncode == 0 else []
        if events:
            break
    assert events, done.stderr
    assert {event["event"] for event in events} == {"micro_batch"} and events[-1]["to"] < 32
    assert run(tmp_path / "small", 0, events[-1]["to"]).returncode == 0
    differing = Outcome.of(RunDir(starved)).differs(Outcome.of(RunDir(tmp_path / "small")))
    assert differing == ["events"]


def test_an_edit_for_which_there_is_no_memory_changes_nothing(tmp_path: Path) -> None:
    """And the run goes on to the same bits as one that never asked for it."""
    starved, plain = (run(tmp_path / name, megabytes, "edit") for name, megabytes in (("starved", 100), ("plain", 0)))
    assert starved.returncode == plain.returncode == 0, starved.stderr
    told = [event["event"] for event in json.loads(starved.stdout)]
    assert told in (["edit", "refused"], ["edit", "edit", "withdrawn"]), starved.stdout
    assert "there is not enough memory for it" in starved.stdout or told[-1] == "withdrawn"
    differing = Outcome.of(RunDir(tmp_path / "starved")).differs(Outcome.of(RunDir(tmp_path / "plain")))
    assert set(differing) == {"loop", "events"}, "of the changes so far"
