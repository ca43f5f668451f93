"""From what a user gives (paths, folders, globs, standard input, arrays, pictures) to a list of single images."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.core.images import SUFFIXES


@dataclass(frozen=True, slots=True)
class Source:
    """One image to come: `content` is what `core.images.read` takes; `name` stands in results."""

    content: Any
    name: str


def expand(inputs: Any) -> list[Source]:
    """Any one input, or a list of inputs, in order; a folder gives its images, sorted, with those of its folders."""
    many = inputs if isinstance(inputs, list | tuple | Iterator) else [inputs]
    return [source for number, item in enumerate(many) for source in _one(item, number)]


def _one(item: Any, number: int) -> Iterable[Source]:
    if isinstance(item, str | os.PathLike):
        yield from _path(os.fspath(item))
    elif getattr(item, "ndim", 0) == 4:
        yield from (Source(image, f"input {number}[{i}]") for i, image in enumerate(item))
    else:
        name = getattr(item, "filename", "") if not isinstance(item, np.ndarray) else ""
        yield Source(item, os.fsdecode(name) if name else f"input {number}")


def _path(text: str) -> Iterable[Source]:
    if text == "-":
        yield Source(sys.stdin.buffer.read(), "-")
    elif os.path.isdir(text):
        yield from (Source(path, str(path)) for path in _images(Path(text)))
    elif not os.path.exists(text) and glob.has_magic(text) and (found := sorted(glob.glob(text, recursive=True))):
        for path in found:
            yield from _path(path)
    else:
        yield Source(text, text)


def _images(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
    return sorted(found)
