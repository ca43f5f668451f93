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

from saccade.core.files import os_error
from saccade.core.images import SUFFIXES


@dataclass(frozen=True, slots=True)
class Source:
    """One image to come: `content` is what `core.images.read` takes; `name` stands in results."""

    content: Any
    name: str


def expand(inputs: Any) -> Iterator[Source]:
    """Any one input, or a list of inputs, in order; a folder gives its images, sorted, with those of its folders.

    Folders are read as they are come to: no more than the names in one of them are held. Raises UserError for one that may not be read.
    """
    many = inputs if isinstance(inputs, list | tuple | Iterator) else [inputs]
    return (source for number, item in enumerate(many) for source in _one(item, number))


def count(inputs: Any) -> int | None:
    """How many images `expand` will give; None where asking would use them up (an iterator)."""
    return None if isinstance(inputs, Iterator) else sum(1 for _ in expand([_unread(item) for item in _listed(inputs)]))


def _listed(inputs: Any) -> Iterable[Any]:
    return inputs if isinstance(inputs, list | tuple) else [inputs]


def _unread(item: Any) -> Any:
    """Standard input can be read once, and is one image."""
    return b"" if isinstance(item, str) and item == "-" else item


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


def _images(folder: Path) -> Iterator[Path]:
    """Sorted by the parts of their paths. Links to images are followed, links to folders are not; hidden names are passed over."""
    waiting = [_entries(folder)]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry[1]:
            waiting.append(_entries(entry[0]))
        else:
            yield entry[0]


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The folders (True) and images (False) in a folder, by name."""
    try:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder) if entry.name[0] != ".")
    except OSError as error:
        raise os_error(error, folder, "list the folder") from None
    return iter([(folder / name, inner) for name, inner in found if inner or os.path.splitext(name)[1].lower() in SUFFIXES])
