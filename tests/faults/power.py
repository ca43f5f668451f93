"""Power loss: a disk that notes every call, and what a real one may hold when the power goes after any of them.

What was flushed is there. Of the rest anything may be: content cut, zeros or rubbish by the block, and each new, moved or removed
name as it was or as it should be, for itself (SQLite's crash tests; Pillai et al. 2014). A rename is one step, as POSIX promises.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.core.files import Disk
from saccade.core.rundir import RunDir

BLOCK = 512
Op = tuple[Any, ...]


class Recorder(Disk):
    """Does what it is told below `root`, without waiting for the real disk, and keeps a list of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self._opened: dict[int, tuple[str, int]] = {}

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def open(self, path: Path, flags: int) -> int:
        fresh = not path.exists()
        fd = super().open(path, flags)
        if fresh:
            self.ops.append(("create", self._name(path)))
        self._opened[fd] = (self._name(path), path.stat().st_size if flags & os.O_APPEND else 0)
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        taken = super().write(fd, data)
        name, offset = self._opened[fd]
        self.ops.append(("write", name, offset, bytes(data[:taken])))
        self._opened[fd] = name, offset + taken
        return taken

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self.ops.append(("truncate", self._opened[fd][0], size))

    def fsync(self, fd: int) -> None:
        self.ops.append(("fsync", self._opened[fd][0]))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        assert source.parent == target.parent, "a move between folders is not modelled"
        self.ops.append(("rename", self._name(source), target.name))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self.ops.append(("mkdir", self._name(path)))

    def remove(self, path: Path) -> None:
        gone = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []
        gone += [path] if path.exists() else []
        super().remove(path)
        self.ops += [("remove", self._name(one)) for one in gone]


class Watched(RunDir):
    """A run folder that notes on its recorder what it has acknowledged."""

    def save_checkpoint(self, step: int, files: Any, *, keep: int = 2) -> Path:
        path = super().save_checkpoint(step, files, keep=keep)
        self._note("checkpoint", (step, json.loads(files["state.json"])["version"]))
        return path

    def append_metrics(self, rows: Any) -> None:
        super().append_metrics(rows)
        self._note("metrics", self.metrics_size())

    def truncate_metrics(self, offset: int) -> None:
        self._note("metrics", offset)
        super().truncate_metrics(offset)

    def write_run(self, value: Any) -> None:
        super().write_run(value)
        self._note("record", int(value["steps"]))

    def _note(self, what: str, value: Any) -> None:
        assert isinstance(self._disk, Recorder)
        self._disk.ops.append(("done", what, value))


@dataclass(eq=False)
class File:
    """Content as processes see it, as the disk surely has it, and the calls between the two."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[Op] = field(default_factory=list)

    def change(self, op: Op) -> None:
        """A write or a truncation."""
        self.pending.append(op)
        _apply(self.data, op)

    def flush(self) -> None:
        """All of it is on the disk now."""
        self.durable, self.pending = bytes(self.data), []


@dataclass(eq=False)
class Folder:
    """Names as processes see them, as the disk surely has them, and the calls between the two."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[Op] = field(default_factory=list)

    def change(self, op: Op) -> None:
        """("set", name, node), ("remove", name) or ("rename", old, new, node)."""
        self.pending.append(op)
        _rename(self.names, op)

    def flush(self) -> None:
        """All names are on the disk now."""
        self.durable, self.pending = dict(self.names), []

    def find(self, path: str) -> File | Folder:
        """What stands at a relative path."""
        node: File | Folder = self
        for part in Path(path).parts:
            assert isinstance(node, Folder)
            node = node.names[part]
        return node


def _apply(data: bytearray, op: Op) -> None:
    kind, first, second = op
    if kind == "truncate":
        del data[first:]
    else:
        data.extend(bytes(max(0, first - len(data))))
        data[first : first + len(second)] = second


def _rename(names: dict[str, File | Folder], op: Op) -> None:
    if op[0] == "rename":
        if names.get(op[1]) is op[3]:
            del names[op[1]]
        names[op[2]] = op[3]
    elif op[0] == "set":
        names[op[1]] = op[2]
    else:
        names.pop(op[1], None)


def replay(ops: list[Op]) -> tuple[Folder, dict[str, Any]]:
    """The disk after these calls, and what was acknowledged by then: {"checkpoint", "metrics", "record"}."""
    root, done = Folder(), dict[str, Any]()
    for kind, *rest in ops:
        if kind == "done":
            done[rest[0]] = rest[1]
            continue
        path = Path(rest[0])
        parent = root.find(str(path.parent))
        assert isinstance(parent, Folder)
        if kind in ("create", "mkdir"):
            parent.change(("set", path.name, File() if kind == "create" else Folder()))
        elif kind == "remove":
            parent.change(("remove", path.name))
        elif kind == "rename":
            parent.change(("rename", path.name, rest[1], parent.names[path.name]))
        elif kind == "fsync":
            root.find(rest[0]).flush()
        else:
            root.find(rest[0]).change((kind, *rest[1:], *([None] if kind == "truncate" else [])))
    return root, done


def build(folder: Folder, place: Path, draws: random.Random | bool) -> None:
    """Make a folder as the disk may hold it: True keeps all that was not flushed, False loses it, a generator draws for each call."""
    names = dict(folder.durable)
    for op in folder.pending:
        if draws if isinstance(draws, bool) else draws.random() < 0.5:
            _rename(names, op)
    place.mkdir(exist_ok=True)
    for name, node in names.items():
        if isinstance(node, Folder):
            build(node, place / name, draws)
        else:
            (place / name).write_bytes(_content(node, draws))


def _content(file: File, draws: random.Random | bool) -> bytes:
    data = bytearray(file.durable)
    for op in file.pending:
        if draws is True:
            _apply(data, op)
        elif isinstance(draws, random.Random) and draws.random() < 0.7:
            _apply(data, op if op[0] == "truncate" else ("write", op[1], _torn(op[2], draws)))
    return bytes(data)


def _torn(data: bytes, draws: random.Random) -> bytes:
    """A write of which the disk has kept some: cut, or each block whole, zeros or rubbish."""
    if draws.random() < 0.3:
        return data
    data = data[: draws.choice([len(data), len(data), draws.randint(0, len(data))])]
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    return b"".join(draws.choice([block, block, bytes(len(block)), draws.randbytes(len(block))]) for block in blocks)
