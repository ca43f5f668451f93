"""The run folder: real processes that race and are killed, torn lines, damaged checkpoints, bad places."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.files import DamagedError, Disk
from saccade.core.rundir import RunDir

CREATE = """
import sys, time
from pathlib import Path
from saccade.core.rundir import RunDir
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
for _ in range(5):
    print(RunDir.create(Path(sys.argv[1]), "pets").path.name)
"""

HOLD = """
import os, sys, time
from pathlib import Path
from saccade.core.errors import UserError
from saccade.core.rundir import RunDir
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    with RunDir(sys.argv[1]).lock():
        print("holder", os.getpid(), flush=True)
        sys.stdin.read()
except UserError as error:
    print("refused", error, flush=True)
"""


def start(code: str, *args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child: subprocess.Popen[str]) -> str:
    out, err = child.communicate(timeout=30)
    assert err == ""
    return out


def checkpoint(step: int) -> dict[str, bytes]:
    return {"model.safetensors": bytes([step % 251]) * 1000, "state.json": b'{"step": %d}' % step}


def steps(run: RunDir) -> list[str]:
    return sorted(os.listdir(run.checkpoints))


@pytest.mark.processes
def test_racing_processes_get_folders_of_their_own(tmp_path: Path) -> None:
    children = [start(CREATE, tmp_path / "new" / "runs", tmp_path / "go") for _ in range(6)]
    (tmp_path / "go").touch()
    names = [name for child in children for name in end(child).split()]
    assert sorted(names) == sorted(f"pets-{n}" for n in range(1, 31))
    assert sorted(os.listdir(tmp_path / "new" / "runs")) == sorted(names)


class OvertakenDisk(Disk):
    """Somebody else makes the folder just before we do, three times."""

    overtaken = 0

    def mkdir(self, path: Path) -> None:
        if self.overtaken < 3:
            self.overtaken += 1
            path.mkdir()
        super().mkdir(path)


def test_a_number_that_somebody_else_took_is_left_to_them(tmp_path: Path) -> None:
    assert RunDir.create(tmp_path, "pets", disk=OvertakenDisk()).path.name == "pets-4"


def test_names_of_runs(tmp_path: Path) -> None:
    assert RunDir.create(tmp_path, "pets").path.name == "pets-1"
    assert RunDir.create(tmp_path, "pets").path.name == "pets-2"
    (tmp_path / "pets-9").write_text("a file")
    (tmp_path / "pets-x").mkdir()
    assert RunDir.create(tmp_path, "pets").path.name == "pets-10"
    assert RunDir.create(tmp_path, "pets-9").path.name == "pets-9-1"
    for name, expected in {"../up": "up-1", "": "run-1", "...": "run-2", "rot & weiß": "rot-weiß-1", "a/b\0c": "a-b-c-1"}.items():
        run = RunDir.create(tmp_path, name)
        assert run.path == tmp_path / expected
    assert len(RunDir.create(tmp_path, "ß" * 500).path.name.encode()) < 110


@pytest.mark.processes
def test_one_of_many_starters_wins_and_the_others_name_it(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    children = [start(HOLD, run.path, tmp_path / "go") for _ in range(8)]
    (tmp_path / "go").touch()
    lines = [child.stdout.readline() for child in children if child.stdout]
    winners = [line for line in lines if line.startswith("holder")]
    assert len(winners) == 1, lines
    pid = winners[0].split()[1]
    assert sum(f"process {pid} on {socket.gethostname()}" in line and str(run.path) in line for line in lines) == 7, lines
    with pytest.raises(UserError, match=f"in use by process {pid} on"), run.lock():
        pass
    for child in children:
        assert end(child) == ""
    with run.lock():
        assert RunDir(run.path).holder() == (os.getpid(), socket.gethostname())
    assert os.listdir(run.path) == [".lock"]


@pytest.mark.processes
def test_kill_9_frees_the_lock_and_the_next_holder_clears_up(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    (tmp_path / "go").touch()
    for _ in range(2):
        child = start(HOLD, run.path, tmp_path / "go")
        assert child.stdout
        assert child.stdout.readline().startswith("holder")
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    run.checkpoints.mkdir()
    for folder in (run.path, run.checkpoints):
        (folder / ".tmp-0123").mkdir()
        (folder / ".tmp-0123" / "model").write_bytes(b"half")
        (folder / ".tmp-4567").write_bytes(b"half")
    with run.lock():
        assert sorted(os.listdir(run.path)) == [".holder.json", ".lock", "checkpoints"]
        assert os.listdir(run.checkpoints) == []


def test_a_second_lock_in_one_process_is_refused_and_freed_after_an_error(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    for _ in range(2):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), run.lock(), RunDir(run.path).lock():
            pass
    with run.lock():
        pass


def test_a_stale_holder_is_not_named(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    for raw in (b"", b"{}", b'{"pid": 999999999, "host": "%s"}' % socket.gethostname().encode(), b'{"pid": "x", "host": 1}', b"[]"):
        (run.path / ".holder.json").write_bytes(raw)
        assert run.holder() is None
    files.write_json(run.path / ".holder.json", {"pid": 7, "host": "elsewhere"})
    assert run.holder() == (7, "elsewhere")


def test_a_given_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        RunDir.at(tmp_path / "a" / "b", resume=True)
    assert os.listdir(tmp_path) == []
    run = RunDir.at(tmp_path / "a" / "b", resume=False)
    with pytest.raises(UserError, match="nothing to resume"):
        RunDir.at(run.path, resume=True)
    with run.lock():
        pass
    assert RunDir.at(run.path, resume=False).path == run.path  # locked and left again: still empty
    run.write_run({"state": "running"})
    assert RunDir.at(run.path, resume=True).read_run() == {"state": "running"}
    with pytest.raises(UserError, match="not empty") as caught:
        RunDir.at(run.path, resume=False)
    assert "--resume" in caught.value.fix
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError):
            RunDir.at(path, resume=False)
        with pytest.raises(UserError, match="nothing to resume"):
            RunDir.at(path, resume=True)
        with pytest.raises(UserError):
            RunDir.create(path, "run")
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]


@pytest.mark.processes
@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "place"
    RunDir.at(place / "old", resume=False).write_run({})
    code = f"""if True:
        import os, sys
        from pathlib import Path
        from saccade.core.errors import UserError
        from saccade.core.rundir import RunDir
        import filelock
        place = Path({str(place)!r})
        if os.getuid() == 0:
            os.setuid(65534)
        for attempt in (
            lambda: RunDir.create(place, "x"),
            lambda: RunDir.create(place / "runs", "x"),
            lambda: RunDir.at(place / "new", resume=False),
            lambda: RunDir.at(place / "old", resume=True).lock().__enter__(),
            lambda: RunDir.at(place / "old", resume=True).update_run({{"a": 1}}),
            lambda: RunDir.at(place / "old", resume=True).append_event({{"a": 1}}),
            lambda: RunDir.at(place / "old", resume=True).save_checkpoint(1, {{"a": b""}}),
        ):
            try:
                attempt()
            except UserError as error:
                print(error)
    """
    for folder in (place / "old", place):
        folder.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own folders are 0700
        folder.chmod(0o755)
    lines = end(start(code)).splitlines()
    for folder in (place, place / "old"):
        folder.chmod(0o755)
    assert len(lines) == 7, lines
    assert all("permission denied" in line and str(place) in line and "choose a folder" in line for line in lines), lines
    assert os.listdir(place) == ["old"]
    assert os.listdir(place / "old") == ["run.json"]


class FailingDisk(Disk):
    def __init__(self, code: int) -> None:
        self.code = code

    def fail(self, *args: Any) -> Any:
        raise OSError(self.code, os.strerror(self.code))

    mkdir = write = fail


@pytest.mark.parametrize(("code", "words"), [(errno.EROFS, "read-only"), (errno.ENOSPC, "free some space"), (errno.EDQUOT, "quota")])
def test_a_disk_that_refuses_is_one_line(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        RunDir.create(tmp_path, "run", disk=FailingDisk(code))
    assert os.listdir(tmp_path) == []
    good = RunDir.create(tmp_path, "run")
    good.write_run({"a": 1})
    good.append_metrics([{"step": 1}])
    good.save_checkpoint(1, checkpoint(1))
    before = good.metrics_file.read_bytes()
    bad = RunDir(good.path, disk=FailingDisk(code))
    for attempt in (
        lambda: bad.update_run({"a": 2}),
        lambda: bad.append_metrics([{"step": 2}]),
        lambda: bad.save_checkpoint(2, checkpoint(2)),
        lambda: bad.lock().__enter__(),
    ):
        with pytest.raises(UserError, match=words):
            attempt()
    assert good.read_run() == {"a": 1}
    assert good.metrics_file.read_bytes() == before
    assert good.load_checkpoint() == (1, checkpoint(1), [])
    with good.lock():  # the failed one did not keep it
        assert sorted(os.listdir(good.path)) == [".holder.json", ".lock", "checkpoints", "metrics.jsonl", "run.json"]


def test_run_json(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    with pytest.raises(UserError, match=r"run\.json"):
        run.read_run()
    run.write_run({"a": float("nan"), "b": (1, 2), "path": tmp_path})
    assert run.read_run() == {"a": None, "b": [1, 2], "path": str(tmp_path)}
    run.update_run({"b": 3, "c": 4})
    assert run.read_run() == {"a": None, "b": 3, "path": str(tmp_path), "c": 4}
    for text in ("[]", "{", '{"a": 1, "a": 2}'):
        run.run_file.write_text(text)
        with pytest.raises(DamagedError):
            run.read_run()


def test_metrics_are_cut_at_the_offset_of_a_checkpoint(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    assert run.metrics() == run.events() == []
    assert run.metrics_size() == 0
    run.truncate_metrics(0)
    run.append_metrics([{"step": 1, "loss": float("nan")}])
    offset = run.metrics_size()
    assert offset == run.metrics_file.stat().st_size > 0
    run.append_metrics([{"step": n, "name": "ü\u2028"} for n in (2, 3)])
    run.append_metrics([])
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    for wrong in (offset - 1, offset + 1, 10_000):
        with pytest.raises(DamagedError):
            run.truncate_metrics(wrong)
    run.truncate_metrics(offset)
    assert run.metrics() == [{"step": 1, "loss": None}]
    run.truncate_metrics(0)
    assert run.metrics() == []


@pytest.mark.parametrize("torn", [b"{", b'{"step": 2}', b'{"step": 2, "x": "' + b"y" * 200_000, b"\x00" * 4096])
def test_a_torn_last_line_is_ignored_and_cut(tmp_path: Path, torn: bytes) -> None:
    run = RunDir.create(tmp_path, "run")
    for path, append in ((run.metrics_file, run.append_metrics), (run.events_file, lambda rows: run.append_event(rows[0]))):
        append([{"step": 1}])
        whole = path.read_bytes()
        with path.open("ab") as file:
            file.write(torn)
        assert files.read_lines(path) == [{"step": 1}]
        append([{"step": 3}])
        assert path.read_bytes() == whole + b'{"step": 3}\n'
    with run.metrics_file.open("ab") as file:
        file.write(torn)
    size = run.metrics_size()
    run.truncate_metrics(size)
    assert run.metrics() == [{"step": 1}, {"step": 3}]
    assert run.metrics_file.stat().st_size == size
    run.metrics_file.write_bytes(torn)
    assert run.metrics() == []
    assert run.metrics_size() == 0


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    with pytest.raises(UserError, match="no checkpoint"):
        run.load_checkpoint()
    for step in (0, 9, 10, 100, 1_000_000_000):
        run.save_checkpoint(step, checkpoint(step))
        assert run.load_checkpoint() == (step, checkpoint(step), [])
    assert steps(run) == ["step-000000100", "step-1000000000"]
    run.save_checkpoint(10**9, {"other": b""})  # the same step again
    assert run.load_checkpoint() == (10**9, {"other": b""}, [])
    run.save_checkpoint(10**9 + 1, checkpoint(1), keep=3)
    assert len(steps(run)) == 3
    for step, keep in ((-1, 2), (1, 0)):
        with pytest.raises(ValueError):
            run.save_checkpoint(step, {}, keep=keep)


def test_a_checkpoint_after_going_back_is_the_newest(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    for step in (100, 200, 300):
        run.save_checkpoint(step, checkpoint(step), keep=3)
    run.save_checkpoint(250, checkpoint(250))
    assert run.load_checkpoint() == (250, checkpoint(250), [])
    assert steps(run) == ["step-000000200", "step-000000250"]


def test_damaged_checkpoints_are_passed_over_with_a_reason_each(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    for step in (1, 2, 3, 4):
        run.save_checkpoint(step, checkpoint(step), keep=4)
    newest = run.checkpoints / "step-000000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    third = run.checkpoints / "step-000000003" / "model.safetensors"
    third.write_bytes(b"\x03" * 500 + b"\x07" + b"\x03" * 499)
    (run.checkpoints / "step-000000002" / "MANIFEST.json").unlink()
    (run.checkpoints / ".tmp-1").mkdir()
    (run.checkpoints / "notes.txt").write_text("mine")
    step, found, reasons = run.load_checkpoint()
    assert (step, found) == (1, checkpoint(1))
    assert [reason.split(":")[0] for reason in reasons] == [f"passed over checkpoint step-{n}" for n in (4, 3, 2)]
    assert "1,000 bytes, got 999" in reasons[0]
    assert "SHA-256" in reasons[1]
    assert "not whole" in reasons[2]
    (run.checkpoints / "step-000000001" / "state.json").unlink()
    with pytest.raises(UserError, match="4 damaged") as caught:
        run.load_checkpoint()
    assert "\n" not in str(caught.value)
    run.save_checkpoint(2, checkpoint(2), keep=2)  # trained on from somewhere: the damaged later ones go
    assert run.load_checkpoint() == (2, checkpoint(2), [])
    assert "step-000000004" not in steps(run)


def test_a_checkpoint_set_aside_by_a_killed_writer_is_found(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    path = run.save_checkpoint(5, checkpoint(5))
    path.rename(files.set_aside(path))
    assert run.load_checkpoint() == (5, checkpoint(5), [])
    run.save_checkpoint(5, checkpoint(6))
    assert run.load_checkpoint() == (5, checkpoint(6), [])
    assert steps(run) == ["step-000000005"]
    path.rename(files.set_aside(path))
    run.save_checkpoint(6, checkpoint(6), keep=1)
    assert steps(run) == ["step-000000006"]


def test_a_reader_beside_a_writer_sees_whole_checkpoints(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "run")
    run.save_checkpoint(0, checkpoint(0))
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(lambda: [run.save_checkpoint(step, checkpoint(step), keep=2) for step in range(1, 60)])
        reads, stop = 0, time.monotonic() + 30
        while not writer.done() and time.monotonic() < stop:
            step, found, _ = run.load_checkpoint()
            assert found == checkpoint(step)
            reads += 1
        writer.result()
    assert reads > 0
    assert run.load_checkpoint()[0] == 59
