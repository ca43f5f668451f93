"""A disk that is really full: one line that names the place, what was there intact, and the run goes on once there is space."""

from __future__ import annotations

import math
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from ranked import environment
from saccade.cli.main import main
from saccade.core import files, modelfile
from saccade.core.errors import UserError
from saccade.core.rundir import RunDir
from saccade.training.saver import Saver
from small_jobs import Outcome, one_thread  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]

PAGE = os.sysconf("SC_PAGE_SIZE")
OLD, NEW = {"model.safetensors": b"\x01" * 9 * PAGE, "state.json": b"{}"}, {"model.safetensors": b"\x02" * 9 * PAGE, "state.json": b"{ }"}
FITS = 9 + 1 + 1  # pages of such a checkpoint: the model, state.json, MANIFEST.json
TRAIN = ["--model", "small_resnet_8px", "--size", "16", "--epochs", "2", "--device", "cpu"]


class SmallDisk:
    """A file system of so many pages, and a file on it that takes what must not be free."""

    def __init__(self, path: Path, pages: int) -> None:
        self.path = path
        path.mkdir()
        self._call("mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "none", str(path))

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system of a test's own can be mounted here: {done.stderr.strip()}")

    def resize(self, pages: int) -> None:
        """More or less room, while everything stays there."""
        self._call("mount", "-o", f"remount,size={pages * PAGE}", str(self.path))

    def used(self) -> int:
        """Pages that are taken."""
        state = os.statvfs(self.path)
        return (state.f_blocks - state.f_bfree) * state.f_frsize // PAGE

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """`disks(pages)` -> a new file system of that size; all are unmounted at the end."""
    made: list[SmallDisk] = []

    def make(pages: int) -> SmallDisk:
        made.append(SmallDisk(tmp_path / f"disk-{len(made)}", pages))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def temporaries(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.startswith(files.TEMPORARY)]


def test_a_checkpoint_fits_or_the_one_before_is_there(disks: Callable[[int], SmallDisk]) -> None:
    disk = disks(2 * FITS)
    run = RunDir(disk.path)
    run.save_checkpoint(1, OLD)
    needed = sum(map(len, NEW.values()))
    for free in range(FITS):
        disk.resize(FITS + free)
        with pytest.raises(UserError) as caught:
            run.save_checkpoint(2, NEW)
        said = str(caught.value)
        assert f"{run.checkpoints / 'step-000000002'}: cannot write {needed:,} bytes: no space left on device (free some space" in said
        assert "\n" not in said
        assert run.load_checkpoint() == (1, OLD, [])
        assert temporaries(disk.path) == [] and disk.used() == FITS
    disk.resize(2 * FITS)
    run.save_checkpoint(2, NEW)
    assert run.load_checkpoint() == (2, NEW, [])


def test_lines_fit_or_the_file_is_as_it_was(disks: Callable[[int], SmallDisk]) -> None:
    disk = disks(4)
    run = RunDir(disk.path)
    run.append_metrics([{"step": 1}])
    rows = [{"step": n, "text": "x" * 1000} for n in range(2, 22)]
    before = run.metrics_file.read_bytes()
    for pages in range(1, 6):
        disk.resize(pages)
        with pytest.raises(UserError, match=r"metrics\.jsonl: cannot append [\d,]+ bytes: no space left on device"):
            run.append_metrics(rows)
        assert run.metrics_file.read_bytes() == before
    disk.resize(6)
    run.append_metrics(rows)
    assert run.metrics() == [{"step": 1}, *rows]


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may become, for the test alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_of_the_shell_is_as_a_full_disk(tmp_path: Path, limited: Callable[[int], None]) -> None:
    run = RunDir(tmp_path)
    run.save_checkpoint(1, OLD)
    for limit in (0, 1, PAGE, 9 * PAGE - 1):
        limited(limit)
        with pytest.raises(UserError, match=r"step-000000002: cannot write [\d,]+ bytes: file too large \(.*ulimit -f"):
            run.save_checkpoint(2, NEW)
        assert run.load_checkpoint() == (1, OLD, [])
        assert temporaries(tmp_path) == []
    limited(9 * PAGE)
    run.save_checkpoint(2, NEW)


def test_what_was_asked_for_after_a_failed_write_is_not_written() -> None:
    """Its lines missing, a later checkpoint would still be taken for whole."""
    saver, go, done = Saver(), threading.Event(), []

    def full() -> None:
        assert go.wait(10)
        raise UserError("no space")

    saver.submit(full)
    saver.submit(lambda: done.append("later"))
    go.set()
    with pytest.raises(UserError, match="no space"):
        saver.wait()
    saver.close()
    assert done == []


@dataclass(frozen=True)
class Stop:
    """Where a run meets the full disk: the pages that there are, what cannot be written, and whether there is then a run to resume."""

    pages: int
    place: str
    resumes: bool = True
    state: str = "failed"


def stops(run: Path) -> dict[str, Stop]:
    """Disks that are too small by a part of one file each, from the sizes of the files of a whole `run`."""
    pages: dict[str, int] = {}
    for path in run.rglob("*"):
        if path.is_file():
            name = path.relative_to(run).parts[0]
            pages[name] = pages.get(name, 0) + math.ceil(path.stat().st_size / PAGE)
    small, best, saved, report = (
        5,
        pages["best.safetensors"],
        pages["checkpoints"],
        pages["report.html"],
    )  # small: who holds it, run.json ...
    everything = sum(pages.values()) + 1  # and who holds it
    return {
        "nothing fits": Stop(0, ".holder.json", resumes=False),
        "no page is left for a word about the failure": Stop(3, "best.safetensors", state="running"),
        "the best model": Stop(small + best // 2, "best.safetensors"),
        "the checkpoint": Stop(small + 2 * best + saved // 2, "checkpoints/step-000000002"),
        "the last model": Stop(small + best + saved + best // 2, "last.safetensors"),
        "the report": Stop(everything - report // 2, "report.html"),
        "that it is done": Stop(everything, "run.json", state="running"),
    }


def start(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`saccade train` as a user starts it."""
    command = [sys.executable, "-m", "saccade", "train", *map(str, arguments)]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=120)


def refusal(said: str) -> str:
    """The one line of an error that ended a run."""
    lines = said.splitlines()
    assert "Traceback" not in said and [line.split(":")[0] for line in lines].count("error") == 1, said
    return lines[-1]


def check_intact(run: RunDir, stop: Stop) -> None:
    """What had been written is whole, and nothing else is there."""
    assert temporaries(run.path) == []
    assert run.run_file.exists() == stop.resumes
    if stop.resumes:
        assert run.read_run()["state"] == stop.state
    if stop.place != "best.safetensors" and stop.resumes:
        modelfile.load(run.best)
    if stop.place in ("last.safetensors", "report.html") or (stop.state == "running" and stop.place == "run.json"):
        assert run.load_checkpoint()[::2] == (2, [])
    else:
        assert not list(run.path.glob("checkpoints/*")) and not run.last.exists()


def test_temporary_files_and_decoded_images_need_no_space(
    disks: Callable[[int], SmallDisk], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = disks(1)
    (disk.path / "somebody's").write_bytes(bytes(PAGE))
    full = {"XDG_CACHE_HOME": str(disk.path / "cache"), "TMPDIR": str(disk.path)}
    done = start(tiny_folder, "--out", tmp_path / "full", *TRAIN, **full)
    assert done.returncode == 0, done.stderr
    assert main(["train", str(tiny_folder), "--out", str(tmp_path / "whole"), *TRAIN]) == 0
    assert Outcome.of(RunDir(tmp_path / "full")).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []
    assert not [path for path in (disk.path / "cache" / "saccade").rglob("*") if path.is_file()]


def test_figures_for_tensorboard_that_do_not_fit_are_one_line(disks: Callable[[int], SmallDisk], tiny_folder: Path) -> None:
    disk = disks(2)  # who holds the run, and run.json
    done = start(tiny_folder, "--out", disk.path / "run", *TRAIN)
    assert done.returncode == 2
    assert str(disk.path / "run") in refusal(done.stderr)


def test_a_limit_of_the_shell_ends_a_run_in_one_line(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No root is needed for this one."""
    train, out = [sys.executable, "-m", "saccade", "train"], tmp_path / "run"
    limited = ["bash", "-c", 'ulimit -f 2000 && exec "$@"', "-", *train]  # KiB: the models fit, the optimizer's state does not
    done = subprocess.run([*limited, str(tiny_folder), "--out", str(out), *TRAIN], env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert f"error: {out / 'checkpoints' / 'step-000000002'}: cannot write 4," in refusal(done.stderr)
    assert "file too large" in refusal(done.stderr) and "ulimit -f" in refusal(done.stderr)
    check_intact(RunDir(out), Stop(0, "checkpoints/step-000000002"))
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert main(["train", str(tiny_folder), "--out", str(tmp_path / "whole"), *TRAIN]) == 0
    assert Outcome.of(RunDir(out)).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []


@pytest.mark.slow  # a dozen runs
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_space(
    disks: Callable[[int], SmallDisk], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tiny_folder, "--out", tmp_path / "whole", *TRAIN).returncode == 0
    whole, places = Outcome.of(RunDir(tmp_path / "whole")), stops(tmp_path / "whole")
    made = {name: disks(max(1, stop.pages)) for name, stop in places.items()}
    (made["nothing fits"].path / "somebody's").write_bytes(bytes(PAGE))
    with ThreadPoolExecutor(2) as pool:
        ends = dict(zip(made, pool.map(lambda disk: start(tiny_folder, "--out", disk.path / "run", *TRAIN), made.values()), strict=True))
    for name, stop in places.items():
        run, again = RunDir(made[name].path / "run"), ["--resume"] if stop.resumes else [str(tiny_folder), *TRAIN]
        expected = (
            rf"error: {re.escape(str(run.path / stop.place))}: cannot write [\d,]+ bytes: no space left on device \(free some space .*\)"
        )
        assert ends[name].returncode == 2 and re.fullmatch(expected, refusal(ends[name].stderr)), (name, ends[name].stderr)
        check_intact(run, stop)
        if name in ("the checkpoint", "the last model"):
            capsys.readouterr()
            assert main(["train", *again, "--out", str(run.path)]) == 2
            assert "step-000000002: cannot write" in refusal(capsys.readouterr().err), name
            check_intact(run, stop)
        made[name].resize(4 * max(place.pages for place in places.values()))
        assert main(["train", *again, "--out", str(run.path)]) == 0, name
        assert Outcome.of(run).differs(whole) == [], name
        assert run.read_run()["state"] == "done" and run.report.is_file()
