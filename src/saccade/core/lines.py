"""Files of JSON lines that grow while others read them: whole lines, their length, cutting back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from saccade.core.files import DamagedError, Disk, os_error, read_lines

_BLOCK = 1 << 16


def rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where there is no file."""
    return read_lines(path) if path.exists() else []


def sizes(path: Path) -> tuple[int, int]:
    """Bytes up to the end of the last whole line, and in all; 0 where there is no file."""
    try:
        with open(path, "rb") as file:
            return _after_last_break(file), file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise os_error(error, path, "read") from error


def _after_last_break(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def truncate(path: Path, size: int, disk: Disk) -> None:
    """Cut a file of lines to its first `size` bytes, durably; raises DamagedError where no line ends there."""
    if size == 0 and not path.exists():
        return
    try:
        fd = disk.open(path, os.O_RDWR)
        try:
            if size and disk.read(fd, 1, size - 1) != b"\n":
                message = f"no line ends at byte {size:,} of {disk.size(fd):,}"
                raise DamagedError(message, where=str(path), fix="restore the file from a copy, or train anew")
            disk.truncate(fd, size)
            disk.fsync(fd)
        finally:
            disk.close(fd)
    except OSError as error:
        raise os_error(error, path, "cut") from error
