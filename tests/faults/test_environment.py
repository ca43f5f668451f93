"""A place to live that lacks something: a run works all the same, or refuses before it trains, in one line that names the cause.

Real processes in mount namespaces of their own: read-only file systems stop root too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults.commands import TINY, contents, make_data, paused, refused, run
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

SOURCE = Path(__file__).resolve().parents[2] / "src"
QUICK = ("no_report", {})
TRAIN = ("train", "data", *TINY, "--epochs", "1", "--out", "r")


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Whether this machine lets us mount."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_data(tmp_path / "data")
    for name in ("home", "full", "shut"):
        (tmp_path / name).mkdir()
    return tmp_path


def begin(place: Path, before: str, *argv: str, **env: str | None) -> subprocess.Popen[str]:
    """Start `saccade ARGV...` in a namespace where the shell's commands `before` were done."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    world: dict[str, str | None] = {**os.environ, **one, "PYTHONPATH": str(SOURCE), "XDG_CACHE_HOME": str(place / "cache"), **env}
    shell = f'set -e; cd {place}; {before}\nexec "$@"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", shell, "sh", sys.executable, "-m", "saccade", *argv]
    given = {name: value for name, value in world.items() if value is not None}
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shut(*places: str | Path) -> str:
    """An empty file system, read-only, over each place."""
    return "".join(f"mount -t tmpfs none {place}; mount -o remount,ro {place};" for place in places)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=100)
    if "mount:" in errors or "unshare:" in errors:
        pytest.skip(f"may not mount here: {errors}")
    return process.returncode, errors


def one_line(code: int, errors: str, *words: str) -> str:
    """A refusal as law 8 wants it."""
    assert code == 2, errors
    last = errors.splitlines()[-1]
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [last], errors
    assert "Traceback" not in errors and "training:" not in errors, "before it trains"
    for word in words:
        assert word in last, errors
    return last


@pytest.mark.usefixtures("namespaces")
def test_what_is_not_needed_may_lack(place: Path) -> None:
    """No home at all, one that cannot be, a read-only one; few descriptors, hardly any shared memory, a temporary folder that is full,
    is not there: each run ends well, two lacks or three at a time, and with the same bits."""
    no_cache = {"XDG_CACHE_HOME": None}
    processes = [
        begin(place, "ulimit -n 32; mount -t tmpfs -o size=4k none /dev/shm;", *TRAIN[:-1], "1", HOME=None),
        begin(place, shut("home"), *TRAIN[:-1], "2", HOME=str(place / "home"), TMPDIR="/proc/nowhere", **no_cache),
        begin(
            place,
            "mount -t tmpfs -o size=4k none full; head -c 9000 /dev/zero > full/x 2>/dev/null || true;",
            *TRAIN[:-1],
            "3",
            HOME="/proc/nowhere",
            TMPDIR=str(place / "full"),
            **no_cache,
        ),
    ]
    for code, errors in map(ended, processes):
        assert code == 0, errors
        assert "Traceback" not in errors
    first, *others = (Outcome.of(RunDir(place / name)) for name in "123")
    assert [first.differs(other) for other in others] == [[], []]
    assert not Path("/proc/nowhere").exists()


@pytest.mark.usefixtures("namespaces")
def test_a_read_only_place_for_the_run(place: Path) -> None:
    """Named by --out, by what stands above it, as the place of runs/; and a run that is to go on there."""
    before = contents(place)
    one_line(*ended(begin(place, shut("shut"), *TRAIN[:-1], "shut")), "shut: may not be written", "--out")
    one_line(*ended(begin(place, shut("shut"), *TRAIN[:-1], "shut/a/b")), "shut: may not be written", "--out")
    frozen = "mount --bind . .; mount -o remount,bind,ro .; cd .; cd $PWD;"
    one_line(*ended(begin(place, frozen, "train", "data", *TINY, "--epochs", "1")), "may not be written", "--out")
    assert contents(place) == before
    assert run(place, *TRAIN, hooks=[QUICK])[0] == 0
    before = contents(place / "r")
    one_line(*ended(begin(place, frozen, "train", "--resume", "--out", "r")), "r: ", "read-only file system")
    assert contents(place / "r") == before


@pytest.mark.usefixtures("namespaces")
def test_predicting_from_a_read_only_run(place: Path) -> None:
    """A run on a disk that nobody may write is as good as any to read from."""
    assert run(place, *TRAIN, hooks=[QUICK])[0] == 0
    frozen = "mount --bind . .; mount -o remount,bind,ro .; cd $PWD;"
    code, errors = ended(begin(place, frozen, "predict", "r", "data/red/1.png", HOME="/proc/nowhere", XDG_CACHE_HOME=None))
    assert code == 0, errors


@pytest.mark.usefixtures("namespaces")
def test_nowhere_to_put_temporary_files(place: Path) -> None:
    here = "mount -t tmpfs none /mnt; cp -r data /mnt; mkdir /mnt/o; mount -t tmpfs none /mnt/o;"
    # As they are, but read-only: the checkout may stand there.
    temporary = "".join(f"mount --bind {place} {place}; mount -o remount,bind,ro {place};" for place in ("/tmp", "/var/tmp"))
    frozen = f"{here} {temporary} cd /mnt; mount -o remount,ro,bind /; mount -o remount,ro /mnt;"
    one_line(*ended(begin(place, frozen, *TRAIN[:-1], "o/r", HOME="/proc/nowhere", TMPDIR=None, XDG_CACHE_HOME=None)), "temporary")


@pytest.mark.usefixtures("namespaces")
def test_hardly_a_descriptor(place: Path) -> None:
    """Six: less than any system gives, and the line must still be ours."""
    one_line(*ended(begin(place, "ulimit -n 6;", *TRAIN)), "too many open files", "ulimit -n")


def test_a_disk_that_becomes_read_only_in_mid_run(place: Path) -> None:
    """The folder of checkpoints is made unchangeable while the run trains: one line, and what was saved is whole."""
    if shutil.which("chattr") is None:
        pytest.skip("no chattr")
    train = (*TRAIN[:-4], "--epochs", "4", "--out", "r")
    assert run(place, *train[:-1], "whole", hooks=[QUICK])[0] == 0
    child, go = paused(place, *train, at=("saccade.training.loop:Trainer", "_step", 5), hooks=[QUICK, ("checkpoint_each_step", {})])
    folder = place / "r" / "checkpoints"
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
        child.send(9)
        child.wait()
        pytest.skip("this file system has no immutable flag")
    try:
        go.touch()
        refused(child.wait(), child, "checkpoints", "not permitted")
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    assert RunDir(place / "r").read_run()["state"] == "failed"
    assert RunDir(place / "r").load_checkpoint()[0] in (3, 4, 5), "two saves may be under way"
    assert run(place, "train", "--resume", "--out", "r", hooks=[QUICK])[0] == 0
    assert Outcome.of(RunDir(place / "r")).differs(Outcome.of(RunDir(place / "whole"))) == []
