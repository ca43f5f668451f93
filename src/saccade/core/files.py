"""The durable writer: a file is there whole, or the old one still is, and whoever asked knows which.

A temporary name in the same folder, flush to the disk, read back and compare hashes, rename, flush the folder
(Pillai et al. 2014, "All file systems are not created equal"). Every touch of the disk goes through `Disk`, where
tests inject faults at each call in turn, the way SQLite tests its own input and output.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

from saccade.core.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"
_BLOCK = 1 << 20
_NAME = re.compile(r"(?!MANIFEST\.json$)[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_FIXES = {
    errno.ENOSPC: "free some space or choose a folder on another disk",
    errno.EDQUOT: "your quota is used up: delete something or choose a folder on another disk",
    errno.EFBIG: "a file may not grow that large here: raise the limit (ulimit -f) or choose another disk",
    errno.EACCES: "choose a folder in which you may write, or change its permissions",
    errno.EPERM: "this is not allowed here: choose another folder",
    errno.EROFS: "the file system is read-only: choose a folder on another disk",
    errno.EMFILE: "too many files are open: raise the limit with ulimit -n 4096",
    errno.ENOENT: "check the path, and that its folder exists",
    errno.ENOTDIR: "a part of the path is a file where a folder must be: choose another path",
    errno.EISDIR: "a folder of that name is in the way: choose another path",
    errno.EEXIST: "something of that name is in the way: choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk may be failing: check it, or choose a folder on another disk",
}


class DamagedError(UserError):
    """A stored file is not what was once written: cut short, changed or missing a part."""


class Disk:
    """The primitive operations; a test's subclass makes any of them fail or lie."""

    def open(self, path: Path, flags: int) -> int:
        """A file descriptor; a new file's mode is 0666 less the umask. No link to a file is followed, one to a folder is."""
        return os.open(path, flags | os.O_CLOEXEC | (0 if flags & os.O_DIRECTORY else os.O_NOFOLLOW), 0o666)

    def write(self, fd: int, data: memoryview) -> int:
        """Bytes taken, perhaps fewer than given."""
        return os.write(fd, data)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        return os.pread(fd, size, offset)

    def size(self, fd: int) -> int:
        """Length of the open file in bytes."""
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size: int) -> None:
        """Cut the open file to `size` bytes."""
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        """Return when the disk has it."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` in one step."""
        os.replace(source, target)

    def mkdir(self, path: Path) -> None:
        """Make one folder; it must not exist."""
        os.mkdir(path)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole folder; what is not there is fine."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


DISK = Disk()


def os_error(error: OSError, path: Path, action: str = "write", needed: int | None = None) -> UserError:
    """The one line for a failed system call: what failed, bytes needed, the cause, the fix."""
    cause = (error.strerror or str(error)).lower()
    size = f" {needed:,} bytes" if needed is not None else ""
    lost = action == "read" and error.errno in (errno.EIO, errno.ENOENT)  # others may pass: too many files are open, say
    kind = DamagedError if lost else UserError
    return kind(f"cannot {action}{size}: {cause}", where=str(path), fix=_FIXES.get(error.errno or 0, ""))


def write_bytes(path: str | Path, chunks: Buffer | Iterable[Buffer], *, disk: Disk = DISK) -> Path:
    """Write `path` whole and durably, or leave what was there and raise UserError; returns the path."""
    path, parts = Path(path), _views(chunks)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        _write_checked(temporary, parts, disk)
        disk.rename(temporary, path)
        sync_folder(path.parent, disk=disk)
    except BaseException as error:
        discard(temporary, disk=disk)
        if isinstance(error, OSError):
            raise os_error(error, path, needed=_size(parts)) from error
        raise
    return path


def write_json(path: str | Path, value: Any, *, disk: Disk = DISK) -> Path:
    """Write `to_plain(value)` as strict, indented JSON with a line break at its end."""
    text = json.dumps(to_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return write_bytes(path, text.encode(), disk=disk)


def write_folder(path: str | Path, files: Mapping[str, Buffer], *, disk: Disk = DISK) -> Path:
    """Write a folder of files and their sums, all or nothing; an earlier folder of that name is replaced.

    File names are letters, digits, `.`, `_` and `-`. Raises UserError, and the earlier folder stays readable.
    """
    path, contents = Path(path), {name: _views(data) for name, data in files.items()}
    if bad := [name for name in contents if not _NAME.fullmatch(name)]:
        raise ValueError(f"a file of a checked folder cannot be named {bad[0]!r}")
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        check_replaceable(path)
        disk.mkdir(temporary)
        _fill(temporary, contents, disk)
        _swap_in(temporary, path, disk)
    except BaseException as error:
        discard(temporary, disk=disk)
        if isinstance(error, OSError):
            raise os_error(error, path, needed=sum(map(_size, contents.values()))) from error
        raise
    discard(set_aside(path), disk=disk)
    return path


def read_folder(path: str | Path) -> dict[str, bytes]:
    """The files of a folder that `write_folder` wrote; raises DamagedError when one differs from its sum."""
    path = Path(path)
    try:
        folder = path if path.exists() or not set_aside(path).is_dir() else set_aside(path)
        return {name: _read_checked(folder / name, entry) for name, entry in _manifest(folder).items()}
    except OSError as error:
        raise os_error(error, path, "read") from error


def append_lines(path: str | Path, rows: Iterable[Mapping[str, Any]], *, disk: Disk = DISK) -> None:
    """Append one line of strict JSON for each row, durably, all or none of them.

    Raises DamagedError where the file ends in the middle of a line: nothing is repaired silently.
    """
    path, data = Path(path), "".join(f"{dumps(row)}\n" for row in rows).encode()
    if not data:
        return
    try:
        fd = disk.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            start = disk.size(fd)
            if start and disk.read(fd, 1, start - 1) != b"\n":
                raise DamagedError("the file ends in the middle of a line", where=str(path), fix="cut that line off")
            _append_checked(fd, data, start, disk)
        finally:
            disk.close(fd)
        if not start:
            sync_folder(path.parent, disk=disk)
    except OSError as error:
        raise os_error(error, path, "append", len(data)) from error


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last line without its line break is what a crash left, and is ignored."""
    whole, _, _ = read_all(path).rpartition(b"\n")
    rows = []
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        row = parse_json(line, where=f"{path}:{number}")
        if not isinstance(row, dict):
            raise DamagedError(f"a line must be a JSON object, got {type(row).__name__}", where=f"{path}:{number}")
        rows.append(row)
    return rows


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; raises DamagedError for what is not strict JSON, UserError for what cannot be read."""
    return parse_json(read_all(path), where=str(path))


def read_all(path: str | Path) -> bytes:
    """The content of an ordinary file; raises UserError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError("must be a file, got a folder or device", where=str(path))
        return Path(path).read_bytes()
    except OSError as error:
        raise os_error(error, Path(path), "read") from error


def parse_json(text: bytes | str, *, where: str) -> Any:
    """Strict JSON: no key twice, no NaN or infinity; raises DamagedError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"not valid JSON: {error}", where=where) from None


def dumps(value: Any) -> str:
    """`to_plain(value)` as strict JSON on one line, by every reader's idea of a line."""
    return json.dumps(to_plain(value), allow_nan=False, ensure_ascii=False).translate(_BREAKS)


def to_plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays, paths and tuples as JSON values; NaN and infinity become None.

    Raises TypeError for what JSON has no word for.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | PurePath):  # a file name need not be Unicode: what is not is spelled out
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(to_plain(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    plain = value.tolist() if hasattr(value, "tolist") else value  # NumPy's, without importing it
    if type(plain) is type(value):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return to_plain(plain)


def discard(path: Path, *, disk: Disk = DISK) -> None:
    """Remove a temporary file or folder; a failure is no reason to fail: the next holder of the run's lock clears it."""
    try:
        disk.remove(path)
    except OSError:
        return


def sync_folder(path: Path, *, disk: Disk = DISK) -> None:
    """Make the names in a folder durable, on file systems that can."""
    fd = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        disk.close(fd)


def set_aside(path: Path) -> Path:
    """Where the earlier folder stands for the moment in which `write_folder` replaces it."""
    return path.parent / f".{path.name}.old"


def _views(chunks: Buffer | Iterable[Buffer]) -> list[memoryview]:
    """Flat views of bytes; what is a buffer itself is one chunk, even where it could be iterated over (an array)."""
    try:
        views = [memoryview(cast("Buffer", chunks))]
    except TypeError:
        views = [memoryview(chunk) for chunk in cast("Iterable[Buffer]", chunks)]
    return [view.cast("B") for view in views if view.nbytes]


def _size(parts: Iterable[memoryview]) -> int:
    return sum(part.nbytes for part in parts)


def _write_checked(path: Path, parts: list[memoryview], disk: Disk) -> str:
    """Write a new file, flush it, read it back; returns its SHA-256."""
    expected = hashlib.sha256()
    fd = disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        for part in parts:
            expected.update(part)
            _write_all(fd, part, disk)
        disk.fsync(fd)
        if _hash(fd, disk) != (_size(parts), expected.hexdigest()):
            raise OSError(errno.EIO, "the disk did not keep what was written")
    finally:
        disk.close(fd)
    return expected.hexdigest()


def _write_all(fd: int, data: memoryview, disk: Disk) -> None:
    while data.nbytes:
        data = data[disk.write(fd, data) :]


def _hash(fd: int, disk: Disk) -> tuple[int, str]:
    digest, offset = hashlib.sha256(), 0
    while block := disk.read(fd, _BLOCK, offset):
        digest.update(block)
        offset += len(block)
    return offset, digest.hexdigest()


def _fill(folder: Path, contents: Mapping[str, list[memoryview]], disk: Disk) -> None:
    entries = {}
    for name, parts in contents.items():
        entries[name] = {"bytes": _size(parts), "sha256": _write_checked(folder / name, parts, disk)}
    manifest = json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n"
    _write_checked(folder / MANIFEST, _views(manifest.encode()), disk)
    sync_folder(folder, disk=disk)


def _swap_in(temporary: Path, path: Path, disk: Disk) -> None:
    aside = set_aside(path)
    if not path.exists():
        disk.rename(temporary, path)
    else:
        discard(aside, disk=disk)
        disk.rename(path, aside)
        try:
            disk.rename(temporary, path)
        except BaseException:
            disk.rename(aside, path)
            raise
    sync_folder(path.parent, disk=disk)


def check_replaceable(path: Path) -> None:
    """Raise UserError but for a folder of our own, or an empty one: no other is ever replaced."""
    ours = path.is_dir() and not path.is_symlink() and ((path / MANIFEST).is_file() or not any(path.iterdir()))
    if os.path.lexists(path) and not ours:
        raise UserError("something else is in the way", where=str(path), fix="move it away or choose another path")


def _append_checked(fd: int, data: bytes, start: int, disk: Disk) -> None:
    try:
        _write_all(fd, memoryview(data), disk)
        disk.fsync(fd)
        if disk.size(fd) != start + len(data) or disk.read(fd, len(data), start) != data:
            raise OSError(errno.EIO, "the disk did not keep what was written")
    except BaseException:
        disk.truncate(fd, start)
        raise


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """{file name: {"bytes", "sha256"}}, checked: a name can only mean a file of this folder."""
    where = str(folder / MANIFEST)
    if not (folder / MANIFEST).is_file():
        raise DamagedError("there is no such file, so the folder is not whole", where=where)
    raw = parse_json(read_all(folder / MANIFEST), where=where)
    files = raw.get("files") if isinstance(raw, dict) else None
    if not isinstance(files, dict) or not all(
        _NAME.fullmatch(name) and isinstance(entry, dict) and type(entry.get("bytes")) is int for name, entry in files.items()
    ):
        raise DamagedError("not a list of files with their sums", where=where)
    return files


def _read_checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    if not path.is_file():
        raise DamagedError("the file is missing", where=str(path))
    if path.stat().st_size != entry["bytes"]:
        raise DamagedError(f"the file must have {entry['bytes']:,} bytes, got {path.stat().st_size:,}", where=str(path))
    data = read_all(path)
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise DamagedError("the content does not match its SHA-256 sum", where=str(path))
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key[:64]!r} stands there twice")
    return value


def _finite(word: str) -> float:
    if abs(number := float(word)) < float("inf"):
        return number
    raise ValueError(f"{word[:64]} is not a number of JSON")
