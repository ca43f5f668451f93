"""Folders that a user names for what a verb writes."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from saccade.core.files import os_error

NUMBERED = re.compile(r"\d{6,}-.")


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


def numbered(number: int, source: str) -> str:
    """What the file of an input is called: its number, and the `stem` of its name."""
    return f"{number:06d}-{stem(source)}"


def clear(folder: Path, kept: Container[Path]) -> None:
    """Take away the pictures of a folder that are called as `numbered` says, and folders of pictures that are, but for those `kept`. What
    has another name, or is a link, stays; raises UserError where the disk refuses."""
    try:
        old = [one for one in folder.iterdir() if NUMBERED.match(one.name) and one not in kept and not one.is_symlink()]
        for one in old if not folder.is_symlink() else ():
            for picture in one.glob("*.png") if one.is_dir() else [one] if one.suffix == ".png" else ():
                picture.unlink()
            if one.is_dir() and not any(one.iterdir()):
                one.rmdir()
    except FileNotFoundError:
        return  # the folder, where there is none
    except OSError as error:
        raise os_error(error, folder, "take away earlier pictures") from None


def stem(source: str) -> str:
    """The last part of a source's name, with nothing in it that a file system could trip over."""
    name = Path(source).stem[:60]
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "image"
