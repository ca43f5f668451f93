"""Saving in the background: in order, bounded, and no error is lost; training goes on meanwhile and ends with the same bits."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.rundir import RunDir
from saccade.training import loop
from saccade.training.loop import Trainer
from saccade.training.saver import AHEAD, Saver
from saccade.training.signals import notices_ignored
from small_jobs import STEPS, Stopping, fit, job, one_thread  # noqa: F401


def test_writes_come_in_order_and_training_waits_when_too_many_are_due() -> None:
    saver, gate, done = Saver(), threading.Event(), []

    def write(number: int) -> Callable[[], None]:
        return lambda: (gate.wait(10), done.append(number))[1]

    for number in range(AHEAD):
        saver.submit(write(number))
    assert done == []
    threading.Timer(0.05, gate.set).start()
    saver.submit(write(AHEAD))
    assert done[0] == 0, "the third had to wait for the first"
    saver.wait()
    assert done == list(range(AHEAD + 1))
    saver.close()


def test_an_error_comes_up_at_the_next_call_and_once() -> None:
    saver = Saver()

    def fail() -> None:
        raise UserError("no space")

    saver.submit(fail)
    with pytest.raises(UserError):
        saver.wait()
    saver.check()
    saver.submit(fail)
    saver.close()
    saver.check()


def test_training_goes_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "LOGGED_STEPS", 2)  # so that few saves are due
    whole = fit(job(tmp_path / "whole"))
    free, stuck = threading.Event(), []

    class Slow(files.Disk):
        def fsync(self, fd: int) -> None:
            if not free.is_set():
                stuck.append(trainer.state.step)
                assert free.wait(20)
            super().fsync(fd)

    class Watching(Stopping):
        def advance(self, n: int = 1) -> None:
            super().advance(n)
            if stuck and trainer.state.step > stuck[0] + 1:
                free.set()

    (tmp_path / "slow").mkdir()
    run = RunDir(tmp_path / "slow", disk=Slow())
    trainer = Trainer(job(tmp_path / "slow", run=run, progress=Watching()))
    trainer.fit()
    assert free.is_set(), "steps were taken while the first flush hung"
    from small_jobs import Outcome

    assert Outcome.of(run).differs(whole) == []


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    class Full(files.Disk):
        def write(self, fd: int, data: memoryview) -> int:
            if trainer.state.step >= 6 and len(data) > 10_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(fd, data)

    run = RunDir(tmp_path, disk=Full())
    trainer = Trainer(job(tmp_path, run=run))
    with pytest.raises(UserError, match=r"cannot write [\d,]+ bytes: no space left on device"):
        trainer.fit()
    assert trainer.state.step < STEPS, "it stops soon"
    step, _, passed = RunDir(tmp_path).load_checkpoint()
    assert 3 <= step <= 6 and passed == []
    assert not [thread for thread in threading.enumerate() if "saccade" in thread.name]


def test_a_notice_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    whole = fit(job(tmp_path / "whole"))
    noticed = job(tmp_path / "noticed", progress=Stopping(5, signal.SIGUSR1))
    saved = []
    keep = noticed.run.save_checkpoint
    noticed.run.save_checkpoint = lambda step, kept, also: (saved.append(step), keep(step, kept, also=also))[1]  # type: ignore[method-assign]
    assert fit(noticed).differs(whole) == []
    assert saved == [5, STEPS]


def test_a_notice_before_training_is_no_end() -> None:
    with notices_ignored():
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
