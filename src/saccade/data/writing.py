"""A new data set on the disk: what a format's writer is handed. It appears complete or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from saccade.core import images
from saccade.core.errors import UserError
from saccade.core.files import os_error
from saccade.core.progress import Progress
from saccade.data.annotations import Annotations, Item
from saccade.data.tree import is_inside

Part = TypeVar("Part")


class Output:
    """The folder being written, and the pictures that go into it. Paths are relative to it, POSIX."""

    def __init__(self, folder: Path, annotations: Annotations, progress: Progress | None = None) -> None:
        self.folder, self._annotations, self._progress = folder, annotations, progress

    def name(self, item: Item) -> str:
        """A file name for the image that no other image of the set has, on any disk (case counts for nothing); its own where that is so."""
        return self._names[item.path]

    def size(self, item: Item) -> tuple[int, int]:
        """(height, width) of the image as it is shown, from its header; raises UserError where it cannot be read."""
        return images.probe(self._annotations.tree.image(item.path)).size

    def image(self, item: Item, to: str) -> None:
        """Copy the image, byte by byte."""
        self.copy(item.path, to)
        if self._progress:
            self._progress.advance()

    def picture(self, item: Item) -> bytes:
        """The image's file as bytes, for formats that pack images together."""
        source = self._annotations.tree.image(item.path)
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError as error:
            raise os_error(error, Path(str(error.filename or item.path)), "read") from None
        if self._progress:
            self._progress.advance()
        return data

    def copy(self, path: str, to: str) -> None:
        """Copy any file of the source."""
        source = self._annotations.tree.image(path)
        try:
            if isinstance(source, bytes):
                self.place(to).write_bytes(source)
            else:
                shutil.copyfile(source, self.place(to))
        except OSError as error:
            raise os_error(error, Path(str(error.filename or to)), "copy") from None

    def text(self, to: str, text: str) -> None:
        """Write a text file, UTF-8; names that are not valid UTF-8 keep their bytes."""
        self.data(to, text.encode("utf-8", "surrogateescape"))

    def data(self, to: str, data: bytes) -> None:
        """Write a file."""
        try:
            self.place(to).write_bytes(data)
        except OSError as error:
            raise os_error(error, Path(to)) from None

    def place(self, to: str) -> Path:
        """Where a file will be, its folder made; raises UserError for a name that leads out."""
        if not is_inside(to):
            raise UserError("a name must stay inside of the folder that is written", where=to[:200])
        place = self.folder / to
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    @cached_property
    def _names(self) -> dict[str, str]:
        plain = [item.path.rpartition("/")[2] for item in self._annotations.items]
        stems = [os.path.splitext(name)[0].lower() for name in plain]  # annotation files are often named by the stem alone
        many = {stem for stem, count in Counter(stems).items() if count > 1}
        names: dict[str, str] = {}
        taken = set(stems) - many
        for item, name, stem in zip(self._annotations.items, plain, stems, strict=True):
            if stem in many:
                head, suffix = os.path.splitext(item.path.replace("/", "__"))
                name, number = head + suffix, 1
                while os.path.splitext(name)[0].lower() in taken:
                    number += 1
                    name = f"{head}-{number}{suffix}"
                taken.add(os.path.splitext(name)[0].lower())
            names[item.path] = name
        return names


def by_split(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Images by the name of their split, in order."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.split, []).append(item)
    return found


def numbered(parts: Iterator[Part]) -> Iterator[tuple[int, Iterator[Part]]]:
    """Numbers of files, each with the parts that are left for it, which takes as many as it holds; until none is left."""
    for number in itertools.count():
        if (first := next(parts, None)) is None:
            return
        yield number, itertools.chain([first], parts)


def check_new(out: Path) -> None:
    """Raise UserError where a folder could not be written without touching what is there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError("must be a new or an empty folder, but is not", where=str(out), fix="give another one, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name at the end, or goes when anything fails; what is in `out` is never touched."""
    check_new(out)
    temporary = out.with_name(f".{out.name}-{uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, out)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", where=str(out), fix="check the space and the rights there"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
