"""The loop: what is interrupted and resumed ends as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted, UserError
from saccade.core.files import DamagedError
from saccade.core.rundir import RunDir
from saccade.tasks.classification.task import Classification
from saccade.training import loop
from saccade.training.board import Board
from saccade.training.deadline import Deadline
from saccade.training.loop import Trainer
from saccade.training.schedule import Schedule
from saccade.training.signals import StopSignals
from small_jobs import CONFIG, STEPS, Outcome, Stopping, fit, go_on, job, resolved

CONFIGS: dict[str, TrainConfig] = {
    "default": CONFIG,
    "sgd": replace(CONFIG, optimizer="sgd", lr=0.05),
    "no average, rows": replace(CONFIG, ema=0.0, channels_last=False),
    "micro": replace(CONFIG, micro_batch=2),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """The outcome of an uninterrupted run of CONFIGS[name], made once."""
    made: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        if name not in made:
            made[name] = fit(job(tmp_path_factory.mktemp("whole"), CONFIGS[name]))
        return made[name]

    return outcome


def interrupt(path: Path, after: int, name: str = "default", *, resume: bool = False, number: int = signal.SIGTERM, **changes: Any) -> None:
    trainer = Trainer(job(path, CONFIGS[name], progress=Stopping(after, number), **changes))
    if resume:
        trainer.resume()
    with pytest.raises(Interrupted) as caught:
        trainer.fit()
    assert caught.value.exit_code == 128 + number
    assert str(caught.value) == f"stopped at step {trainer.state.step}"


@pytest.mark.parametrize(
    ("name", "after"),
    [("default", 1), ("default", 4), ("default", 7), ("default", 11), ("sgd", 5), ("no average, rows", 5), ("micro", 3)],
)
def test_resume_is_equal_to_the_bit(whole: Callable[[str], Outcome], tmp_path: Path, name: str, after: int) -> None:
    interrupt(tmp_path, after, name)
    assert RunDir(tmp_path).load_checkpoint()[0] == after
    assert go_on(job(tmp_path, CONFIGS[name])).differs(whole(name)) == []


def test_many_interruptions_and_other_workers(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    interrupt(tmp_path, 2, number=signal.SIGINT)
    interrupt(tmp_path, 3, resume=True, facts=resolved(workers=2))
    interrupt(tmp_path, 1, resume=True)
    assert RunDir(tmp_path).load_checkpoint()[0] == 6
    torch.manual_seed(99)  # nothing may come from the global generator
    assert go_on(job(tmp_path, facts=resolved(workers=3))).differs(whole("default")) == []


def test_workers_change_nothing(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    assert fit(job(tmp_path, facts=resolved(workers=2))).differs(whole("default")) == []


def test_the_seed_changes_everything(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    assert "model.safetensors" in fit(job(tmp_path, replace(CONFIG, seed=1))).differs(whole("default"))


@pytest.mark.parametrize("name", ["default", "no average, rows"])
def test_looking_changes_nothing(whole: Callable[[str], Outcome], tmp_path: Path, name: str) -> None:
    """The evaluation leaves weights, strides and the stream of random numbers as they were."""
    blind = fit(job(tmp_path, CONFIGS[name], evaluate=lambda module: {"accuracy": 0.5}))
    assert set(blind.differs(whole(name))) <= {"best", "last", "loop", "rows"}


def test_a_damaged_checkpoint_is_passed_over_and_said_so(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    interrupt(tmp_path, 5)
    interrupt(tmp_path, 4, resume=True)
    newest = RunDir(tmp_path).checkpoints / "step-000000009"
    (newest / "model.safetensors").write_bytes(b"x")
    heard = Stopping()
    assert go_on(job(tmp_path, progress=heard)).differs(whole("default")) == []
    assert "step-9" in heard.messages[0]
    assert "going on from step 5 of 12" in heard.messages[1]


def test_a_finished_run_resumes_to_the_same(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    fit(job(tmp_path))
    assert go_on(job(tmp_path)).differs(whole("default")) == []


def test_a_signal_in_the_last_step_is_no_interruption(tmp_path: Path) -> None:
    assert fit(job(tmp_path, progress=Stopping(STEPS))).loop["step"] == STEPS


def scripted(*values: float | None) -> Callable[[Any], Any]:
    """An evaluation that answers with these accuracies in turn."""
    left = list(values)
    return lambda module: {"accuracy": left.pop(0)}


class Failing(Classification):
    """A room that takes an accuracy below 0.1 for a collapse."""

    def fault(self, metrics: Any, best: Any) -> str:
        return "collapsed" if metrics["accuracy"] < 0.1 else ""


def test_a_collapse_goes_back_to_the_last_evaluation_without_a_fault(tmp_path: Path) -> None:
    """Evaluations at steps 4, 8 and 12; the second one finds a fault, and is met again with another outcome."""
    config = replace(CONFIG, on_nan="back")
    outcome = fit(job(tmp_path, config, task=Failing(), evaluate=scripted(0.5, 0.0, 0.6, 0.7)))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events == [{"event": "back", "step": 8, "fault": "collapsed", "to": 4}]
    assert (outcome.loop["step"], outcome.loop["good"], outcome.loop["best"]) == (STEPS, 12, 0.7)
    assert [row["step"] for row in outcome.rows if "split" in row] == [4, 8, 12]
    rates = {row["step"]: row["lr"] for row in outcome.rows if "split" not in row}
    assert rates[5] == pytest.approx(0.5 * CONFIG.lr * Schedule(STEPS, CONFIG.warmup).factor(4)), "on at half the rate"


def test_a_collapse_that_comes_again_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone back 5 times already"):
        fit(job(tmp_path, replace(CONFIG, on_nan="back"), task=Failing(), evaluate=scripted(0.5, *[0.0] * 9)))
    with pytest.raises(UserError, match=r"^collapsed, at step 4"):
        fit(job(tmp_path / "stop", task=Failing(), evaluate=scripted(0.0)))
    said = Stopping()
    fit(job(tmp_path / "skip", replace(CONFIG, on_nan="skip"), task=Failing(), evaluate=scripted(0.0, 0.2, 0.3), progress=said))
    assert "collapsed, at step 4" in said.messages


def test_the_best_is_the_first_of_equals(tmp_path: Path) -> None:
    state = fit(job(tmp_path, facts=resolved(every=3), evaluate=scripted(0.5, 0.75, 0.75, 0.25))).loop
    assert (state["best"], state["best_step"], state["best_metrics"]) == (0.75, 6, {"accuracy": 0.75})


def test_what_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    state = fit(job(tmp_path, facts=resolved(every=3), evaluate=scripted(None, math.nan, 0.25, math.nan))).loop
    assert (state["best"], state["best_step"], state["stale"]) == (0.25, 9, 1)


def test_patience(tmp_path: Path) -> None:
    made = job(tmp_path, replace(CONFIG, patience=2), resolved(every=2), evaluate=scripted(0.5, 0.4, 0.6, 0.6, 0.1, 0.9))
    state = fit(made).loop
    assert (state["step"], state["stopped"], state["best_step"]) == (10, True, 6)
    again = job(tmp_path, replace(CONFIG, patience=2), resolved(every=2), evaluate=scripted())
    assert go_on(again).loop == state


def test_rows(whole: Callable[[str], Outcome]) -> None:
    rows = whole("default").rows
    train, val = [r for r in rows if "split" not in r], [r for r in rows if "split" in r]
    assert [row["step"] for row in train] == list(range(1, STEPS + 1))
    assert [row["step"] for row in val] == [4, 8, 12]
    assert [row["epoch"] for row in val] == [1, 2, 3]
    assert train[2]["lr"] == CONFIG.lr
    assert all(row["loss"] > 0 for row in train)
    assert {"accuracy", "nll"} <= val[0]["metrics"].keys()


class Clock(Stopping):
    """A second for each step."""

    now = 0.0

    def advance(self, n: int = 1) -> None:
        self.now += 1
        super().advance(n)

    def monotonic(self) -> float:
        return self.now


def timed(path: Path, monkeypatch: pytest.MonkeyPatch, after: int = 0, deadline: float | None = None, longest: int = 0) -> Any:
    """80 steps, a second each by the loop's own clock, a checkpoint every eight."""
    clock = Clock(after)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 7.5)
    return job(path, facts=resolved(80, every=16), progress=clock, deadline=deadline, longest=longest)


def test_a_shortened_run_is_shortened_again_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(timed(tmp_path / "whole", monkeypatch, deadline=60))
    run = RunDir(tmp_path / "whole")
    assert run.events() == [{"event": "pace", "step": 20, "total_steps": 58, "from": 80}]
    assert whole.loop["step"] == 58
    assert [row["step"] for row in whole.rows if "split" in row] == [16, 32, 48, 58]
    with pytest.raises(Interrupted):
        Trainer(timed(tmp_path / "a", monkeypatch, 22, deadline=60)).fit()
    assert sorted(os.listdir(tmp_path / "a/checkpoints")) == ["step-000000016", "step-000000022"]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b/checkpoints/step-000000022")
    for place in ("a", "b"):  # after the event, and before it; minutes that begin anew change nothing
        assert go_on(timed(tmp_path / place, monkeypatch, deadline=1000)).differs(whole) == []
        assert RunDir(tmp_path / place).events() == run.events()


def test_a_lengthened_run_is_lengthened_again_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(timed(tmp_path / "whole", monkeypatch, deadline=100, longest=160))
    run = RunDir(tmp_path / "whole")
    assert run.events() == [{"event": "pace", "step": 48, "total_steps": 98, "from": 80}]
    assert whole.loop["step"] == 98
    assert [row["step"] for row in whole.rows if "split" in row] == [16, 32, 48, 64, 80, 96, 98]
    with pytest.raises(Interrupted):
        Trainer(timed(tmp_path / "a", monkeypatch, 50, deadline=100, longest=160)).fit()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b/checkpoints/step-000000050")
    for place in ("a", "b"):  # after the event, and before it
        assert go_on(timed(tmp_path / place, monkeypatch)).differs(whole) == []
        assert RunDir(tmp_path / place).events() == run.events()


def test_when_a_run_that_is_too_fast_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is paused, as what is asked of it then is met again after an end that moves at the same step; and with other batches."""
    trainer = Trainer(timed(tmp_path, monkeypatch, deadline=100, longest=160))
    trainer.state.step = trainer.steps_taken = loop.time.now = 48  # type: ignore[attr-defined]

    def end() -> int | None:
        return trainer._affordable(Deadline(100.0, 0.0, 0.0))

    assert end() == 98
    trainer.asking.paused = True
    assert end() is None
    trainer.asking.paused = False
    trainer.state.settings["batch"] = 4
    assert end() is None
    trainer.state.settings.clear()
    assert end() == 98


def test_smaller_batches_are_more_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    run.append_event({"event": "pace", "step": 60, "total_steps": 80 * 5, "from": 80 * 6})
    trainer = Trainer(timed(tmp_path, monkeypatch))
    trainer.plan_again()
    run.append_event({"event": "pace", "step": 70, "total_steps": 1 << 40, "from": 80 * 5})
    with pytest.raises(DamagedError, match="no schedule of this run has more than"):
        trainer.plan_again()


def test_a_run_that_keeps_to_its_time_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit(timed(tmp_path, monkeypatch, deadline=80)).loop["step"] == 80
    assert RunDir(tmp_path).events() == []


def test_the_board_has_every_figure(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path, purge_step=None)
    board.add({"step": 1, "epoch": 0.5, "generator/loss": 2.0, "lr": 0.25, "time": {"images_per_second": 1.0}})
    board.add({"step": 1, "epoch": 0.5, "split": "val", "metrics": {"accuracy": 0.5, "top5_accuracy": None}})
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/generator/loss", "train/lr", "val/accuracy"]
    assert events.Scalars("train/generator/loss")[0].value == 2


def test_signals_are_taken_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    seen: list[int | None] = []

    def elsewhere() -> None:
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [None]


def command(data: Path, out: Path, *more: str) -> list[str]:
    options = ["--epochs", "6", "--device", "cpu", "--seed", "1", "--no-images", "--json", "--quiet"]
    return [sys.executable, "-m", "saccade", "train", *([] if more else [str(data), *options]), "--out", str(out), *more]


def stopped(arguments: list[str], number: int, environment: dict[str, str], ready: Callable[[], bool]) -> None:
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors.decode()
    assert out.count(b"\n") <= 1
    assert b"Traceback" not in errors


@pytest.mark.slow  # tests/faults kills and stops processes too; this is the one with the command's own options and a run of some length
@pytest.mark.processes
def test_processes_stopped_by_signals_end_with_the_same_bytes(digits_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    first, second = tmp_path / "first", tmp_path / "second"
    subprocess.run(command(digits_folder, first), env=environment, check=True, capture_output=True, timeout=300)
    stopped(command(digits_folder, second), signal.SIGTERM, environment, (second / "best.safetensors").exists)
    run = RunDir(second)
    step = run.load_checkpoint()[0]
    assert 0 < step < RunDir(first).load_checkpoint()[0]
    assert run.read_run()["state"] == "interrupted"
    boards = len(list(run.tensorboard.iterdir()))
    stopped(command(digits_folder, second, "--resume"), signal.SIGINT, environment, lambda: len(list(run.tensorboard.iterdir())) > boards)
    assert run.load_checkpoint()[0] >= step
    subprocess.run(command(digits_folder, second, "--resume"), env=environment, check=True, capture_output=True, timeout=300)
    assert run.read_run()["state"] == "done"
    assert run.best.read_bytes() == RunDir(first).best.read_bytes()
    assert Outcome.of(run).differs(Outcome.of(RunDir(first))) == []
