"""SIGTERM and SIGINT at any moment of a run: the code, one line with the command that goes on, no orphan, and the same bits after it."""

from __future__ import annotations

import json
import random
import shlex
import signal
import time
from pathlib import Path

import pytest

import guard
from faults.commands import TINY, Child, make_data, paused, run, start
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

QUICK = ("no_report", {})
OFTEN = ("checkpoint_each_step", {})
TRAIN = ("train", "data", *TINY, "--epochs", "4", "--out", "a run")
LONGER = ("train", "data", *TINY, "--epochs", "7", "--out", "a run")  # 21 steps
SOON = 10.0  # seconds within which a run must end after a signal
STEP = ("saccade.training.loop:Trainer", "_step")
# Owner, name, and how many calls of it a run of 21 steps makes at least before its last steps, when it saves after each: training
# may be two saves ahead of what is being written, and a signal in the last step is no interruption.
MOMENTS = {
    "reading": ("saccade.data.cache", "_decode", 24),
    "first steps": (*STEP, 3),
    "steps": (*STEP, 11),
    "evaluation": ("saccade.evaluation.evaluate", "measure", 2),
    "writing": ("saccade.core.files:Disk", "write", 100),
    "flushing": ("saccade.core.files:Disk", "fsync", 100),
    "renaming": ("saccade.core.files:Disk", "rename", 20),
    "the end": ("saccade.training.loop:Trainer", "_save", 1),
}


def undisturbed(place: Path, command: tuple[str, ...]) -> Outcome:
    make_data(place / "data")
    with guard.GUARD.allow("processes"):
        code, child = run(place, *command, hooks=[QUICK])
    assert code == 0, child.errors
    return Outcome.of(RunDir(place / "a run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What an undisturbed run leaves."""
    return undisturbed(tmp_path_factory.mktemp("whole"), TRAIN)


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What a longer one leaves."""
    return undisturbed(tmp_path_factory.mktemp("longer"), LONGER)


def state(place: Path) -> str:
    return str(json.loads((place / "a run" / "run.json").read_text())["state"])


def stopped(child: Child, number: int) -> str:
    """Send the signal; the child must end soon, with its code, in one line, with nothing left running. Returns the line."""
    begin = time.monotonic()
    child.send(number)
    code = child.wait(SOON)
    assert time.monotonic() - begin < SOON
    assert code == 128 + number, child.errors
    assert "Traceback" not in child.errors and child.last.startswith("interrupted"), child.errors
    assert child.others() == [], "orphans"
    return child.last


def goes_on(place: Path, whole: Outcome, command: tuple[str, ...] = TRAIN) -> None:
    """Resume, where there is something, or start; the end is that of the undisturbed run."""
    begun = (place / "a run" / "run.json").exists()
    code, child = run(place, *(("train", "--resume", "--out", "a run") if begun else command), hooks=[QUICK])
    assert code == 0, child.errors
    assert state(place) == "done"
    assert Outcome.of(RunDir(place / "a run")).differs(whole) == []
    assert not list((place / "a run").rglob(".tmp-*"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_call(tmp_path: Path, longer: Outcome, moment: str) -> None:
    """One call of each place, and the signal, drawn by the place's name."""
    draws = random.Random(moment)
    owner, name, calls = MOMENTS[moment]
    number = draws.choice([signal.SIGTERM, signal.SIGINT])
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *LONGER, at=(owner, name, draws.randrange(calls)), hooks=[QUICK, OFTEN])
    child.send(number)
    go.touch()
    code = child.wait(SOON)
    assert code == 128 + number, child.errors
    assert child.last.startswith("interrupted") and "Traceback" not in child.errors, child.errors
    if (tmp_path / "a run" / "checkpoints").exists():
        assert state(tmp_path) == "interrupted"
    goes_on(tmp_path, longer, LONGER)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_at_random_times(tmp_path: Path, whole: Outcome, number: signal.Signals) -> None:
    """By the clock: the run is stopped again and again at whatever it does, until it is done."""
    make_data(tmp_path / "data")
    draws, codes = random.Random(number.name), []
    for _ in range(6):
        begun = (tmp_path / "a run" / "run.json").exists()
        child = start(tmp_path, *(("train", "--resume", "--out", "a run") if begun else TRAIN), hooks=[QUICK, OFTEN])
        end = time.monotonic() + draws.uniform(0.1, 0.6)
        while time.monotonic() < end and child.running():
            time.sleep(0.002)
        if child.running():
            child.send(number)
        codes.append(child.wait(SOON))
        assert codes[-1] in (0, 128 + number), child.errors
        assert "Traceback" not in child.errors
        assert child.others() == []
    assert 128 + number in codes
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_line_has_the_command_that_goes_on(tmp_path: Path, whole: Outcome, number: signal.Signals) -> None:
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 5), hooks=[QUICK])
    child.send(number)
    go.touch()
    assert child.wait(SOON) == 128 + number
    assert child.last == "interrupted: stopped at step 6; go on with: saccade train --resume --out 'a run'", "the step in progress is done"
    assert state(tmp_path) == "interrupted"
    assert RunDir(tmp_path / "a run").load_checkpoint()[0] == 6
    command = shlex.split(child.last.partition("go on with: ")[2])
    code, again = run(tmp_path, *command[1:], hooks=[QUICK])
    assert code == 0 and "going on from step 6 of 12" in again.errors
    assert Outcome.of(RunDir(tmp_path / "a run")).differs(whole) == []


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_second_signal_ends_at_once(tmp_path: Path, whole: Outcome, first: signal.Signals, workers: str) -> None:
    """The step in progress never ends here: the first signal waits for it, the second does not."""
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, "--workers", workers, at=(*STEP, 5), hooks=[QUICK, OFTEN])
    child.send(first)
    time.sleep(0.1)  # signals of one kind that wait are one
    assert child.running()
    child.send(signal.SIGINT)
    assert child.wait(2.0) == 128 + signal.SIGINT
    assert child.others() == []
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_before_there_is_a_run_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    make_data(tmp_path / "data")
    for owner, name in (("saccade.api.training", "open_dataset"), MOMENTS["reading"][:2], ("saccade.api.training", "fresh_model")):
        child, go = paused(tmp_path, *TRAIN, at=(owner, name, 0))
        child.send(number)
        if name == "_decode":  # the threads that read are waited for
            go.touch()
        assert child.wait(SOON) == 128 + number, child.errors
        assert child.last == f"interrupted{': terminated' if number == signal.SIGTERM else ''}"
        assert not (tmp_path / "a run").exists()
        left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix not in (".u8", ".npy")]
        assert left == [], "no half file of pixels"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_between_the_record_and_the_first_step(tmp_path: Path, number: signal.Signals) -> None:
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, at=("saccade.training.loop:Trainer", "__init__", 0), hooks=[QUICK])
    line = stopped(child, number)
    assert state(tmp_path) == "interrupted"
    assert "saccade train --resume --out 'a run'" in line


def test_between_the_lock_and_the_record(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, at=("saccade.core.rundir:RunDir", "write_run", 0), hooks=[QUICK])
    stopped(child, signal.SIGTERM)
    assert not (tmp_path / "a run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_while_the_report_is_written_the_run_goes_on_from_its_end(tmp_path: Path, whole: Outcome, number: signal.Signals) -> None:
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, at=("saccade.api.reporting", "write_report", 0))
    stopped(child, number)
    assert state(tmp_path) == "interrupted"
    goes_on(tmp_path, whole)


def test_while_the_report_is_written_the_line_has_the_command(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, at=("saccade.api.reporting", "write_report", 0))
    assert "saccade train --resume --out 'a run'" in stopped(child, signal.SIGTERM)


def test_a_library_that_hides_the_interrupt(tmp_path: Path) -> None:
    """Seen in one of a hundred signals: the handler's exception arose inside of matplotlib's compiled code and came out as a ValueError."""
    make_data(tmp_path / "data")
    hide = ("hide_interrupts", {"owner": "saccade.report.page", "name": "write"})
    child, _ = paused(tmp_path, *TRAIN, at=("saccade.report.page", "render", 0), hooks=[hide])
    stopped(child, signal.SIGTERM)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_notice_of_preemption_saves_and_goes_on(tmp_path: Path, whole: Outcome, workers: str) -> None:
    """SIGUSR1: a checkpoint after the step in progress, in a run that would not save before its end; nothing else changes."""
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, "--workers", workers, at=(*STEP, 5), hooks=[QUICK])
    child.send(signal.SIGUSR1)
    go.touch()
    assert child.wait() == 0, child.errors
    assert (tmp_path / "a run" / "checkpoints" / "step-000000006").is_dir()
    assert state(tmp_path) == "done"
    assert Outcome.of(RunDir(tmp_path / "a run")).differs(whole) == []
