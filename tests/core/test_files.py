"""The durable writer under faults: every call of every write fails, lies or is the last one before the process dies."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.files import DamagedError, Disk

OLD, NEW = b"the old content" * 70, b"something new, and longer" * 1000
OLD_FOLDER = {"model.safetensors": OLD, "state.json": b"{}"}
NEW_FOLDER = {"model.safetensors": NEW, "state.json": b'{"step": 2}', "empty": b""}
OLD_ROWS, NEW_ROWS = [{"step": 1}], [{"step": 2, "loss": 0.5}, {"step": 3, "loss": None}]


class Killed(BaseException):
    """The process died here: nothing after it reaches the disk."""


class FaultyDisk(Disk):
    """Does something else at the `when`-th call (from 1); counts and names the calls."""

    def __init__(self, when: int = 0, fault: Callable[[FaultyDisk, str, tuple[Any, ...]], Any] | None = None) -> None:
        self.calls: list[str] = []
        self.when, self.fault = when, fault

    def call(self, name: str, *args: Any) -> Any:
        self.calls.append(name)
        if self.fault is not None and len(self.calls) == self.when:
            return self.fault(self, name, args)
        return None if name == "fsync" else getattr(Disk, name)(self, *args)  # no need to wait for the real disk


def _through(name: str) -> Callable[..., Any]:
    return lambda self, *args: self.call(name, *args)


for _name in ("open", "write", "read", "size", "truncate", "fsync", "rename", "mkdir", "remove"):
    setattr(FaultyDisk, _name, _through(_name))


def fails(code: int) -> Callable[[FaultyDisk, str, tuple[Any, ...]], Any]:
    def fault(disk: FaultyDisk, name: str, args: tuple[Any, ...]) -> Any:
        raise OSError(code, os.strerror(code))

    return fault


def lies(disk: FaultyDisk, name: str, args: tuple[Any, ...]) -> Any:
    """A write that says it took all, and dropped the second half."""
    if name != "write":
        return getattr(Disk, name)(disk, *args)
    os.write(args[0], args[1][: len(args[1]) // 2])
    return len(args[1])


def flips(disk: FaultyDisk, name: str, args: tuple[Any, ...]) -> Any:
    """A write that puts one other bit on the disk."""
    if name != "write":
        return getattr(Disk, name)(disk, *args)
    changed = bytearray(args[1])
    changed[len(changed) // 3] ^= 4
    return os.write(args[0], changed)


def falls_short(disk: FaultyDisk, name: str, args: tuple[Any, ...]) -> Any:
    """An honest short write, as a signal or a nearly full disk makes one."""
    return os.write(args[0], args[1][:7]) if name == "write" else getattr(Disk, name)(disk, *args)


def dies(disk: FaultyDisk, name: str, args: tuple[Any, ...]) -> Any:
    disk.when += 1  # every later call dies as well
    raise Killed


class Case:
    """One way to write, with how to read it back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "target"

    def write(self, disk: Disk, new: bool) -> None: ...
    def read(self) -> Any: ...
    def value(self, new: bool) -> Any: ...


class FileCase(Case):
    def write(self, disk: Disk, new: bool) -> None:
        files.write_bytes(self.path, [NEW[:500], NEW[500:]] if new else OLD, disk=disk)

    def read(self) -> Any:
        return self.path.read_bytes()

    def value(self, new: bool) -> Any:
        return NEW if new else OLD


class FolderCase(Case):
    def write(self, disk: Disk, new: bool) -> None:
        files.write_folder(self.path, self.value(new), disk=disk)

    def read(self) -> Any:
        return files.read_folder(self.path)

    def value(self, new: bool) -> Any:
        return NEW_FOLDER if new else OLD_FOLDER


class LinesCase(Case):
    def write(self, disk: Disk, new: bool) -> None:
        files.append_lines(self.path, NEW_ROWS if new else OLD_ROWS, disk=disk)

    def read(self) -> Any:
        return files.read_lines(self.path)

    def value(self, new: bool) -> Any:
        return OLD_ROWS + NEW_ROWS if new else OLD_ROWS


CASES = {"file": FileCase, "folder": FolderCase, "lines": LinesCase}


def sweep(folder: Path, kind: str, fault: Callable[..., Any], old: bool) -> Iterator[tuple[Case, FaultyDisk, BaseException | None]]:
    """Write with the fault at call 1, 2, 3 ... until a run has no such call any more; the folder is fresh each time."""
    for when in range(1, 200):
        place = folder / f"{kind}-{when}-{old}"
        place.mkdir()
        case = CASES[kind](place)
        if old:
            case.write(FaultyDisk(), new=False)
        disk, caught = FaultyDisk(when, fault), None
        try:
            case.write(disk, new=True)
        except (Exception, Killed) as error:
            caught = error
        if len(disk.calls) < when:
            assert when > 3, "the sweep made no call through the seam"
            return
        yield case, disk, caught
    raise AssertionError("the sweep never ended")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "target")


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
def test_each_failing_call_keeps_the_old_content(tmp_path: Path, kind: str, code: int) -> None:
    seen: Counter[str] = Counter()
    for case, disk, error in sweep(tmp_path, kind, fails(code), old=True):
        failed = disk.calls[disk.when - 1]
        seen[failed] += 1
        if failed == "remove":  # what could not be removed after a success is no failure
            assert error is None
            assert case.read() == case.value(True)
            continue
        assert isinstance(error, UserError), (failed, error)
        assert str(case.path) in str(error)
        assert "bytes" in str(error)
        assert "\n" not in str(error)
        # Only a folder that cannot be flushed fails after the new content is in its place, complete.
        after_rename = "rename" in disk.calls[: disk.when - 1] and failed in ("open", "fsync")
        assert case.read() == case.value(after_rename)
        assert leftovers(case.path.parent) == ([] if kind != "folder" or not after_rename else [".target.old"])
    assert seen["write"] >= 1
    assert seen["fsync"] >= 1
    assert seen["rename"] == {"file": 1, "folder": 2, "lines": 0}[kind]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_each_failing_call_leaves_nothing_where_nothing_was(tmp_path: Path, kind: str) -> None:
    for case, disk, error in sweep(tmp_path, kind, fails(errno.ENOSPC), old=False):
        failed = disk.calls[disk.when - 1]
        if failed == "remove":
            continue
        assert isinstance(error, UserError)
        assert leftovers(case.path.parent) == []
        if not case.path.exists():
            continue
        assert failed in ("open", "fsync")
        assert case.read() == case.value(True)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("fault", [lies, flips])
def test_a_lying_write_is_never_a_success(tmp_path: Path, kind: str, fault: Callable[..., Any]) -> None:
    lied = 0
    for case, disk, error in sweep(tmp_path, kind, fault, old=True):
        told_a_lie = disk.calls[disk.when - 1] == "write"
        lied += told_a_lie
        assert isinstance(error, UserError) == told_a_lie, error
        assert case.read() == case.value(not told_a_lie)
        assert leftovers(case.path.parent) == []
        if error:
            assert "did not keep what was written" in str(error)
    assert lied == {"file": 2, "folder": 3, "lines": 1}[kind]


@pytest.mark.parametrize("kind", CASES)
def test_short_writes_are_completed(tmp_path: Path, kind: str) -> None:
    for case, _, error in sweep(tmp_path, kind, falls_short, old=True):
        assert error is None
        assert case.read() == case.value(True)


@pytest.mark.parametrize("kind", CASES)
def test_death_at_each_call_leaves_old_or_new_and_the_next_write_works(tmp_path: Path, kind: str) -> None:
    results: Counter[bool] = Counter()
    for case, _, error in sweep(tmp_path, kind, dies, old=True):
        assert isinstance(error, Killed)
        is_new = case.read() == case.value(True)
        results[is_new] += 1
        assert is_new or case.read() == case.value(False)
        if kind != "lines":
            case.write(FaultyDisk(), new=True)
            assert case.read() == case.value(True)
            assert all(name.startswith(files.TEMPORARY) for name in leftovers(case.path.parent))
    assert results[False] > 3


@pytest.mark.processes
def test_a_real_full_file_is_one_line_and_leaves_the_old(tmp_path: Path) -> None:
    target = files.write_bytes(tmp_path / "model", OLD)
    code = """if True:
        import resource, sys
        from saccade.core import files
        from saccade.core.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            files.write_bytes(sys.argv[1], bytes(100_000))
        except UserError as error:
            print(error)
    """
    with_child = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert "cannot write 100,000 bytes: file too large" in with_child.stdout
    assert with_child.stderr == ""
    assert target.read_bytes() == OLD
    assert leftovers(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "no" / "such", "no such file or directory"),
        (lambda p: p / ("n" * 300), "file name too long"),
        (lambda p: p / "file" / "below", "not a directory"),
        (lambda p: p / "folder", "is a directory"),
    ],
)
def test_a_bad_place_is_one_line(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as caught:
        files.write_bytes(make(tmp_path), b"content")
    assert words in caught.value.message
    assert caught.value.fix
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_mode_follows_the_umask_and_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to(tmp_path / "a")
    files.write_bytes(tmp_path / "link", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (b"", b""),
        (bytearray(b"ab"), b"ab"),
        ([], b""),
        ((part for part in (b"a", b"", memoryview(b"bc"))), b"abc"),
        (np.arange(6, dtype="<u2").reshape(2, 3), np.arange(6, dtype="<u2").tobytes()),
        ([np.zeros((0, 3)), np.ones(1, np.uint8)], b"\x01"),
    ],
)
def test_any_buffer_or_chunks(tmp_path: Path, chunks: Any, expected: bytes) -> None:
    assert files.write_bytes(tmp_path / "x", chunks) == tmp_path / "x"
    assert (tmp_path / "x").read_bytes() == expected


def test_a_generator_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "x", chunks())
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_and_every_cut_of_a_folder_is_found(tmp_path: Path) -> None:
    folder = files.write_folder(tmp_path / "target", {"a.bin": bytes(range(17)), "b": b""}, disk=FaultyDisk())
    for name in ("a.bin", files.MANIFEST):
        content = (folder / name).read_bytes()
        for position in range(len(content) * 8):
            changed = bytearray(content)
            changed[position // 8] ^= 1 << position % 8
            (folder / name).write_bytes(changed)
            with pytest.raises(DamagedError):
                files.read_folder(folder)
        for size in range(len(content) - 1):
            (folder / name).write_bytes(content[:size])
            with pytest.raises(DamagedError):
                files.read_folder(folder)
        (folder / name).write_bytes(content)
    (folder / "stray").write_bytes(b"somebody's")
    assert files.read_folder(folder) == {"a.bin": bytes(range(17)), "b": b""}
    (folder / "b").unlink()
    with pytest.raises(DamagedError, match="missing"):
        files.read_folder(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "MANIFEST.json", "", ".hidden", "a\0b", "a\n", "x" * 65])
def test_a_hostile_name_in_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        files.write_folder(tmp_path / "target", {name: b""})
    folder = files.write_folder(tmp_path / "target", {"a": b""})
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"][name] = manifest["files"].pop("a")
    (folder / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedError):
        files.read_folder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"bytes": true}}}', "[" * 10**5])
def test_a_hostile_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = files.write_folder(tmp_path / "target", {"a": b""})
    (folder / files.MANIFEST).write_text(text)
    with pytest.raises(DamagedError):
        files.read_folder(folder)


def test_a_users_own_folder_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "cat.jpg").write_bytes(b"1")
    (tmp_path / "file").write_bytes(b"2")
    for path in (mine, tmp_path / "file"):
        with pytest.raises(UserError, match="in the way"):
            files.write_folder(path, {"a": b""})
    assert (mine / "cat.jpg").read_bytes() == b"1"
    assert (tmp_path / "file").read_bytes() == b"2"
    assert leftovers(tmp_path) == ["file", "photos"]


def test_append_refuses_a_torn_end_and_repairs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    files.append_lines(path, [])
    assert not path.exists()
    files.append_lines(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(b'{"a": 2')
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="middle of a line"):
        files.append_lines(path, [{"a": 3}])
    assert path.read_bytes() == before
    assert files.read_lines(path) == [{"a": 1}]


@pytest.mark.parametrize("line", [b"{]", b"[1]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a": 1e999}', b"\x00\x00", b"", b'{"a": "\xff"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(DamagedError) as caught:
        files.read_lines(path)
    assert caught.value.where == f"{path}:2"


def test_plain_values() -> None:
    value = {
        "i": np.int64(3), "f": np.float32(0.5), "nan": float("nan"), "inf": -np.inf, "b": np.bool_(True), "t": (1, 2.5, None),
        "a": np.array([[1.0, np.nan]]), "p": Path("a/b"), 7: "key", "d64": np.float64("inf"), "zero": np.array(4), "e": np.empty((0, 3)),
        "s": "caf\udce9",
    }  # fmt: skip
    expected = {
        "i": 3, "f": 0.5, "nan": None, "inf": None, "b": True, "t": [1, 2.5, None], "a": [[1.0, None]], "p": "a/b", "7": "key",
        "d64": None, "zero": 4, "e": [], "s": "caf\\udce9",
    }  # fmt: skip
    assert files.to_plain(value) == expected
    for impossible in (object(), 1j, b"x", {1}, np.datetime64("2020-01-01"), np.longdouble(1), np.complex64(1j)):
        with pytest.raises(TypeError, match="no JSON form"):
            files.to_plain(impossible)


def test_dumps_is_one_line_for_every_reader() -> None:
    text = files.dumps({"name": "a\nb\u2028c\u2029d\x85e\x1cf ü"})
    assert len(text.splitlines()) == 1
    assert "ü" in text
    assert json.loads(text) == {"name": "a\nb\u2028c\u2029d\x85e\x1cf ü"}


def test_json_files(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "run.json", {"a": np.float64("nan"), "b": "ß"})
    assert path.read_text(encoding="utf-8") == '{\n "a": null,\n "b": "ß"\n}\n'
    assert files.read_json(path) == {"a": None, "b": "ß"}
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError):
            files.read_json(missing)
