"""The power goes after each call of several saves: the newest acknowledged checkpoint is there, whole, and the run goes on."""

from __future__ import annotations

import functools
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from faults import saver
from faults.power import Op, Recorder, Watched, build, replay
from faults.sweep import FAST, best, checkpoint
from saccade.core import files, modelfile
from saccade.core.rundir import RunDir

SIZE = 24_000
SAVES = ((1, 0), (2, 0), (2, 1), (3, 0), (4, 0))  # step and version: the third replaces the second
DRAWN = 3  # states drawn for each call, beside the two extremes


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def ops(scratch: Path) -> list[Op]:
    """Every call of the saves, in order; each save is a process of its own that takes the run up."""
    disk = Recorder(scratch / "real")
    disk.root.mkdir()
    with mock.patch.object(modelfile, "write_bytes", functools.partial(files.write_bytes, disk=disk)):
        for step, version in SAVES:
            run = Watched.at(disk.root / "runs" / "run", resume=step > 1, disk=disk)
            saver.go_on(run, step > 1, step, SIZE, version)
    return disk.ops


def states(number: int) -> list[random.Random | bool]:
    return [True, False, *(random.Random(f"power {number} {draw}") for draw in range(DRAWN))]


@pytest.mark.long
def test_power_loss_after_any_call_loses_nothing_that_was_acknowledged(ops: list[Op], scratch: Path) -> None:
    tried, place = Counter[bool](), scratch / "after"
    for number in range(len(ops) + 1):
        root, done = replay(ops[:number])
        acknowledged = done.get("checkpoint")
        coming = SAVES[0] if acknowledged is None else (*SAVES, acknowledged)[SAVES.index(acknowledged) + 1]
        for draws in states(number):
            shutil.rmtree(place, ignore_errors=True)
            build(root, place, draws)
            run = RunDir(place / "runs" / "run")
            where = f"call {number} {ops[number - 1 : number]} {draws}"
            found = checkpoint(run, SIZE)
            tried[found == acknowledged] += 1
            assert found in (acknowledged, coming), where
            assert best(run, SIZE) in (acknowledged, coming), where
            lines = run.metrics_file.read_bytes() if run.metrics_file.exists() else b""
            assert lines.startswith(saver.lines(found[0] if found else 0)), where
            assert lines.startswith(saver.lines(4)[: done.get("metrics", 0)]), where
            assert "record" not in done or run.read_run()["steps"] >= done["record"], where
            saver.save(run.path, 5, SIZE)
            assert checkpoint(run, SIZE) == (5, 0), where
            assert run.metrics_file.read_bytes() == saver.lines(5), where
            assert len(os.listdir(run.checkpoints)) <= 3, where
    assert len(ops) > 250
    assert min(tried.values()) > 50, "both the old and the new state must have come up"


def test_a_later_checkpoint_that_was_given_up_never_comes_back(scratch: Path) -> None:
    """Its lines of metrics are cut off by then: a run that went on from it would find them missing, and stop."""
    disk = Recorder(scratch / "real")
    disk.root.mkdir()
    run = Watched.at(disk.root / "run", resume=False, disk=disk)
    run.write_run({"steps": 0, "version": 0})
    for done, step in ((0, 2), (2, 5), (2, 4)):
        run.truncate_metrics(len(saver.lines(done)))
        run.append_metrics([row for number in range(done + 1, step + 1) for row in saver.rows(number)])
        given_up_at = len(disk.ops)
        run.save_checkpoint(step, saver.contents(step, SIZE), keep=2)
    saved = max(number for number, op in enumerate(disk.ops, 1) if op[:2] == ("done", "checkpoint"))
    for number in range(given_up_at, len(disk.ops) + 1):
        for draws in states(number):
            place = scratch / "after"
            shutil.rmtree(place, ignore_errors=True)
            build(replay(disk.ops[:number])[0], place, draws)
            left = RunDir(place / "run")
            assert checkpoint(left, SIZE) in ([(4, 0)] if number >= saved else [(4, 0), (5, 0)]), (number, draws)
            if number >= saved:
                saver.save(left.path, 6, SIZE)
                assert left.metrics_file.read_bytes() == saver.lines(6)


def test_the_modelled_disk_loses_what_was_not_flushed(tmp_path: Path) -> None:
    """Or nothing would be shown: a plain write is lost, torn and kept, a flushed one is there."""
    disk = Recorder(tmp_path / "real")
    disk.root.mkdir()
    fd = disk.open(disk.root / "a", os.O_RDWR | os.O_CREAT)
    disk.write(fd, memoryview(b"x" * 3000))
    unflushed = list(disk.ops)
    disk.fsync(fd)
    no_name = list(disk.ops)
    files.sync_folder(disk.root, disk=disk)
    disk.close(fd)
    found: dict[str, set[bytes | None]] = {"unflushed": set(), "no name": set(), "flushed": set()}
    for name, calls in (("unflushed", unflushed), ("no name", no_name), ("flushed", disk.ops)):
        for number in range(60):
            place = tmp_path / f"{name}-{number}"
            build(replay(calls)[0], place, random.Random(number))
            found[name].add((place / "a").read_bytes() if (place / "a").exists() else None)
    whole = b"x" * 3000
    assert {None, b"", whole} < found["unflushed"]
    assert len(found["unflushed"]) > 10
    assert found["no name"] == {None, whole}
    assert found["flushed"] == {whole}
