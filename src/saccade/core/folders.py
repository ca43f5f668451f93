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
