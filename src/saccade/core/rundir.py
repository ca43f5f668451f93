"""The run folder: run.json, metrics, events, checkpoints, and the lock that one training process holds."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from saccade.core import lines
from saccade.core.errors import UserError
from saccade.core.files import (
    DISK,
    MANIFEST,
    TEMPORARY,
    DamagedError,
    Disk,
    append_lines,
    discard,
    os_error,
    read_folder,
    read_json,
    set_aside,
    sync_folder,
    write_folder,
    write_json,
)

LOCK = ".lock"
HOLDER = ".holder.json"
_STEP = re.compile(r"step-(\d+)|\.step-(\d+)\.old")  # the second: set aside by a writer that was killed
_HOLDER_WAIT = 2.0  # seconds that a new holder of the lock may take to write who it is


class RunDir:
    """One run's folder. Reading is free for all; whoever writes holds `lock()`. All methods raise UserError."""

    def __init__(self, path: str | Path, *, disk: Disk = DISK) -> None:
        self.path = Path(path)
        self._disk = disk
        self._made = False

    @classmethod
    def create(cls, parent: Path, name: str, *, disk: Disk = DISK) -> RunDir:
        """A new folder `<parent>/<name>-<n>`; any number of processes may do this at once, each gets its own."""
        parent, name = Path(parent), _slug(name)
        try:
            _make(parent, disk)
            number = max((int(match[1]) for entry in os.listdir(parent) if (match := _numbered(name).fullmatch(entry))), default=0)
            while True:
                number += 1
                try:
                    disk.mkdir(parent / f"{name}-{number}")
                    break
                except FileExistsError:
                    continue
            sync_folder(parent, disk=disk)
        except OSError as error:
            raise os_error(error, parent, "make a run folder") from error
        run = cls(parent / f"{name}-{number}", disk=disk)
        run._made = True
        return run

    @classmethod
    def at(cls, path: Path, *, resume: bool, disk: Disk = DISK) -> RunDir:
        """The folder that the user named: to resume it must hold a run, else it must be empty or not be there yet."""
        run = cls(path, disk=disk)
        try:
            exists = run.path.is_dir()
            if resume and not (exists and run.run_file.is_file()):
                raise UserError(
                    "nothing to resume: there is no run.json", where=str(path), fix="start without --resume, or name a run's folder"
                )
            if not resume:
                run.check_free()
            _make(run.path, disk)
            run._made = not exists
        except OSError as error:
            raise os_error(error, run.path, "make the run folder") from error
        return run

    def check_free(self) -> None:
        """Refuse a folder that holds anything; one that is not there, or that a failed start has left, is free."""
        if not all(map(_is_ours, _names(self.path))):
            raise UserError("the folder is not empty", where=str(self.path), fix="go on with --resume, or choose another --out")

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def exports(self) -> Path:
        """What `export` wrote, a folder for each target and precision."""
        return self.path / "exports"

    @property
    def explanations(self) -> Path:
        return self.path / "explanations"

    @property
    def features(self) -> Path:
        """The network that made images are compared to real ones by, a model file."""
        return self.path / "features.safetensors"

    @property
    def samples(self) -> Path:
        """Images made from the same latents as training went on."""
        return self.path / "samples"

    @property
    def not_finite(self) -> Path:
        """Batches whose loss or gradient was no finite number."""
        return self.path / "not-finite"

    @property
    def requests(self) -> Path:
        """What is asked of the process that trains, and its answers."""
        return self.path / "requests"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run until the end or a kill, cleared of what a killed holder left; a second process gets a UserError that names us."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._in_use() from None
        except OSError as error:
            raise os_error(error, self.path, "lock the run folder") from error
        try:
            self._check_links()
            self._clear()
            write_json(self.path / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()}, disk=self._disk)
            yield
        finally:
            discard(self.path / HOLDER, disk=self._disk)
            try:
                lock.release()
            except OSError as error:
                raise os_error(error, self.path, "unlock the run folder") from error

    def abandon(self) -> None:
        """Remove a folder in which no run began, where it was made for it; the holder of the lock calls this."""
        if self._made and not self.run_file.exists():
            for name in (HOLDER, LOCK):
                discard(self.path / name, disk=self._disk)
            with suppress(OSError):  # somebody has put something there
                self.path.rmdir()

    def write_run(self, value: Mapping[str, Any]) -> None:
        """Write run.json whole."""
        write_json(self.run_file, value, disk=self._disk)

    def read_run(self) -> dict[str, Any]:
        """What run.json says."""
        value = read_json(self.run_file)
        if not isinstance(value, dict):
            raise DamagedError(f"must be a JSON object, got {type(value).__name__}", where=str(self.run_file))
        return value

    def update_run(self, changes: Mapping[str, Any]) -> None:
        """Replace some keys of run.json."""
        self.write_run({**self.read_run(), **changes})

    def append_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl, durably, all or none."""
        self._append(self.metrics_file, rows)

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        return lines.rows(self.metrics_file)

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl up to its last whole line: the offset that a checkpoint keeps."""
        return lines.sizes(self.metrics_file)[0]

    def truncate_metrics(self, offset: int) -> None:
        """Cut metrics.jsonl back to `offset`, so that resume writes the lines after it anew."""
        lines.truncate(self.metrics_file, offset, self._disk)

    def append_event(self, row: Mapping[str, Any]) -> None:
        """Add one line to events.jsonl, durably."""
        self._append(self.events_file, [row])

    def events(self) -> list[dict[str, Any]]:
        """The whole lines of events.jsonl."""
        return lines.rows(self.events_file)

    def save_checkpoint(self, step: int, files: Mapping[str, bytes], *, keep: int = 2, also: int | None = None) -> Path:
        """Write checkpoints/step-<step> durably, then remove all but the newest `keep` and the one of step `also`.

        A checkpoint of a later step belongs to a history that was given up (it was damaged, or the run went back), so it goes too.
        """
        if step < 0 or keep < 1:
            raise ValueError(f"step must be at least 0 and keep at least 1, got {step} and {keep}")
        path = self._step_path(step)
        try:
            _make(self.checkpoints, self._disk)
            if path.is_dir() and not (path / MANIFEST).is_file():  # damaged beyond being known as ours
                self._drop(path)
            write_folder(path, files, disk=self._disk)
            steps = self._steps()
            for old in [s for s in steps if s > step] + [s for s in steps if s <= step][keep:]:
                if old != also:
                    self._drop(self._step_path(old))
            if steps[0] > step:  # come back after a power loss, it would be the newest
                sync_folder(self.checkpoints, disk=self._disk)
        except OSError as error:
            raise os_error(error, self.checkpoints) from error
        if (newest := self._steps()[0]) > step:
            raise UserError("a later checkpoint, which was given up, is in the way", where=str(self._step_path(newest)), fix="remove it")
        return path

    def give_up_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        try:
            for later in [s for s in self._steps() if s > step]:
                self._drop(self._step_path(later))
        except OSError as error:
            raise os_error(error, self.checkpoints) from error

    def has_checkpoint(self) -> bool:
        """Whether there is any, sound or not."""
        return bool(self._steps())

    def load_checkpoint(self) -> tuple[int, dict[str, bytes], list[str]]:
        """(step, files, one line for each newer checkpoint that was passed over: it is damaged, not only unreadable for now)."""
        passed_over: list[str] = []
        steps = self._steps()
        while steps:
            for step in steps:
                try:
                    return step, read_folder(self._step_path(step)), passed_over
                except DamagedError as error:  # no other: what comes after an older one is given up, for good
                    passed_over.append(f"passed over checkpoint step-{step}: {error}")
            steps = [step for step in self._steps() if step not in steps]  # a writer beside us may have replaced them all meanwhile
        why = f"; {len(passed_over)} damaged: {passed_over[0]}" if passed_over else ""
        raise UserError(f"no checkpoint to resume from{why}", where=str(self.checkpoints), fix="train anew into another folder")

    def _step_path(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}"

    def _steps(self) -> list[int]:
        """The steps that have a checkpoint, newest first."""
        matches = [_STEP.fullmatch(name) for name in _names(self.checkpoints)]
        return sorted({int(match[1] or match[2]) for match in matches if match}, reverse=True)

    def _drop(self, path: Path) -> None:
        """Rename first, so that a reader never sees half of a checkpoint; what cannot be removed now goes another time."""
        hidden = path.parent / f"{TEMPORARY}{path.name}"
        try:
            discard(hidden, disk=self._disk)
            self._disk.rename(path, hidden)
        except OSError:
            hidden = path
        discard(hidden, disk=self._disk)
        discard(set_aside(path), disk=self._disk)

    def _append(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """What a crash left of a last line was never acknowledged: it is cut off first."""
        whole, size = lines.sizes(path)
        if size > whole:
            lines.truncate(path, whole, self._disk)
        append_lines(path, rows, disk=self._disk)

    def _check_links(self) -> None:
        """What a run writes must stay in its folder, and what it removes is its own."""
        folders = (self.checkpoints, self.tensorboard, self.predictions, self.exports, self.explanations, self.not_finite, self.requests)
        try:
            links = [folder for folder in folders if folder.is_symlink()]
        except OSError as error:
            raise os_error(error, self.path, "read") from error
        if links:
            raise UserError("must be a folder of the run's own, but is a link", where=str(links[0]), fix="remove the link")

    def _clear(self) -> None:
        for leftover in [at / name for at in (self.path, self.checkpoints) for name in _names(at) if name.startswith(TEMPORARY)]:
            discard(leftover, disk=self._disk)

    def _in_use(self) -> UserError:
        """Names the holder, for whom it may take a moment to say who it is."""
        deadline = time.monotonic() + _HOLDER_WAIT
        who = self.holder()
        while who is None and time.monotonic() < deadline:
            time.sleep(0.02)
            who = self.holder()
        fix = "wait for it, stop it, or choose another --out"
        name = "another process" if who is None else f"process {who[0]} on {who[1]}"
        return UserError(f"the run folder is in use by {name}", where=str(self.path), fix=fix)

    def locked_since(self) -> float:
        """The time, by the file system's clock, at which the present holder of the lock has said who it is."""
        try:
            return (self.path / HOLDER).stat().st_mtime
        except OSError as error:
            raise os_error(error, self.path / HOLDER, "read") from error

    def is_locked(self) -> bool:
        """Whether any process holds the lock; asked only where that is in doubt, since a process that starts now would be refused."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError as error:
            raise os_error(error, self.path, "lock the run folder") from error
        lock.release()
        return False

    def holder(self) -> tuple[int, str] | None:
        """(process, host) of who trains the run; None where that is unknown, or left by a process that is gone."""
        try:
            raw = read_json(self.path / HOLDER)
            pid, host = int(raw["pid"]), str(raw["host"])
            if host == socket.gethostname():
                os.kill(pid, 0)
        except PermissionError:
            pass
        except (UserError, OSError, TypeError, KeyError, ValueError):
            return None
        return pid, host


def _is_ours(name: str) -> bool:
    """Whether a folder that holds this alone still counts as empty: somebody locked it, and failed before the run began."""
    return name in (LOCK, HOLDER) or name.startswith(TEMPORARY)


def _make(folder: Path, disk: Disk) -> None:
    """Make a folder and those above it, durably; one that is there is fine."""
    if folder.is_dir():
        return
    _make(folder.parent, disk)
    try:
        disk.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent, disk=disk)


def _names(folder: Path) -> list[str]:
    """What a folder holds, sorted; nothing where there is none."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_error(error, folder, "read") from error


def _slug(name: str) -> str:
    """A file name from a data set's name: letters and digits of any script, short enough for every file system."""
    short = re.sub(r"[^\w.-]+", "-", name).encode("utf-8", "ignore")[:100].decode("utf-8", "ignore")
    return short.strip("-.") or "run"


def _numbered(name: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(name)}-([0-9]{{1,9}})")
