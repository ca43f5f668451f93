"""Folders that a user names for what a verb writes."""

from __future__ import annotations

from pathlib import Path

from saccade.core.files import os_error


def make(path: str | Path) -> Path:
    """The folder, made with those above it where it is not there; raises UserError in one line where that cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, folder, "make the folder") from None
    return folder


def free(name: str) -> Path:
    """`name` in the current folder, or `name`-2, -3 ... where that is taken."""
    number = 1
    while (Path(name) if number == 1 else Path(f"{name}-{number}")).exists():
        number += 1
    return Path(name) if number == 1 else Path(f"{name}-{number}")


def stem(source: str) -> str:
    """The last part of a source's name, with nothing in it that a file system could trip over."""
    name = Path(source).stem[:60]
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "image"
