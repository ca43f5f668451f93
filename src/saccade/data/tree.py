"""The files of a data set, wherever they lie: a folder, or an archive that is read in place. Paths are relative and POSIX."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from saccade.core.errors import UserError
from saccade.core.files import os_error, read_all
from saccade.core.images import MAX_PIXELS, SUFFIXES

TEXT_BYTES = 2 << 30  # of an annotation file


@dataclass(frozen=True, slots=True)
class File:
    """One file: path relative to the root, size in bytes, age in ns; outside: a link to outside of the root, or behind one."""

    path: str
    bytes: int
    modified: int
    outside: bool = False

    @property
    def is_image(self) -> bool:
        """Whether its suffix says so."""
        return self.path[self.path.rfind(".") :].lower() in SUFFIXES


class Tree(Protocol):
    """What a format's reader sees of a data set. `root` is the folder or the archive; hidden files and folders are left out. `max_pixels`:
    of an image or mask that is read."""

    root: Path
    max_pixels: int

    def folders(self, path: str = "") -> list[str]:
        """The names of the folders directly in `path`, sorted."""
        ...

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        """The files in `path`, or also in all folders below it, sorted by path; [] where there is no such folder."""
        ...

    def find(self, path: str) -> File | None:
        """The file at `path`, None where there is none; a path that leads out of the root is none."""
        ...

    def state(self, path: str) -> tuple[int, int]:
        """Size and age of a file as they are now, in bytes and ns; zeros where it is not there."""
        ...

    def read(self, path: str) -> bytes:
        """A whole file; raises UserError where it is missing, may not be read or is beyond TEXT_BYTES."""
        ...

    def image(self, path: str) -> str | bytes:
        """A path of the disk, or the file's content: what `core.images.read` takes."""
        ...


class HeldTree:
    """Files that are held by name, as their content or as paths of the disk: for what is written or shown, not for readers."""

    max_pixels = MAX_PIXELS

    def __init__(self, name: str, held: Mapping[str, str | bytes]) -> None:
        self.root, self._held = Path(name), held

    def folders(self, path: str = "") -> list[str]:
        return []

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        return []

    def find(self, path: str) -> File | None:
        return File(path, 0, 0) if path in self._held else None

    def state(self, path: str) -> tuple[int, int]:
        return 0, 0

    def read(self, path: str) -> bytes:
        held = self._held[path]
        return held if isinstance(held, bytes) else read_all(held)

    def image(self, path: str) -> str | bytes:
        return self._held[path]


class FolderTree:
    """A folder of the disk."""

    max_pixels = MAX_PIXELS

    def __init__(self, root: Path) -> None:
        self.root = root
        self._place = str(root)  # joined as text: a Path for each image of a large set takes as long as reading a small one
        self._real = os.path.realpath(root)
        self._places: dict[str, bool] = {}
        self._listed: dict[tuple[str, bool], list[File]] = {}  # every format looks at the same listing

    def folders(self, path: str = "") -> list[str]:
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        if (path, deep) not in self._listed:
            self._listed[path, deep] = self._list(path, deep)
        return list(self._listed[path, deep])

    def _list(self, path: str, deep: bool) -> list[File]:
        prefix = len(str(self.root).rstrip("/")) + 1
        try:
            entries = _all_files(str(self.root / path)) if deep else _own_files(str(self.root / path))
            return sorted((self._file(entry, entry.path[prefix:]) for entry in entries), key=lambda file: file.path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, path: str) -> File | None:
        if not is_inside(path):
            return None
        place = self.root / path
        try:
            stat = place.stat()
        except (OSError, ValueError):
            return None
        return File(path, stat.st_size, stat.st_mtime_ns, self._leads_out(str(place))) if place.is_file() else None

    def state(self, path: str) -> tuple[int, int]:
        return size_and_age(f"{self._place}/{path}")

    def read(self, path: str) -> bytes:
        place = self.root / path
        if not is_inside(path):
            raise UserError("must lie inside of the data set", where=path[:200])
        try:
            if place.stat().st_size > TEXT_BYTES:
                raise UserError(f"must be at most {TEXT_BYTES >> 30} GiB, was {place.stat().st_size / 2**30:.1f} GiB", where=str(place))
            return place.read_bytes()
        except OSError as error:
            raise os_error(error, place, "read") from None

    def image(self, path: str) -> str | bytes:
        return f"{self._place}/{path}"

    def _file(self, entry: os.DirEntry[str], path: str) -> File:
        size, modified = size_and_age(entry)
        place = os.path.dirname(entry.path)
        if place not in self._places:
            self._places[place] = self._leads_out(place)
        return File(path, size, modified, self._places[place] or (entry.is_symlink() and self._leads_out(entry.path)))

    def _leads_out(self, path: str) -> bool:
        return os.path.commonpath([os.path.realpath(path), self._real]) != self._real


def is_inside(path: str) -> bool:
    """Whether a relative path stays below where it starts."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def size_and_age(file: os.DirEntry[str] | str) -> tuple[int, int]:
    """Size in bytes and age in ns; zeros for a link to nothing, which is named with the other bad files when it is read."""
    try:
        stat = os.stat(file) if isinstance(file, str) else file.stat()
    except (OSError, ValueError):
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _own_files(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not entry.name.startswith(".") and not _is_folder(entry))


def _all_files(path: str) -> Iterator[os.DirEntry[str]]:
    """All files below a folder but hidden ones, which systems leave behind.

    Links to folders are followed after all that is no link, and no folder is read twice, nor one that this one stands in: links may
    go round in circles, each through others.
    """
    around = (Path(path).parent.resolve(), Path(path).resolve().parent)  # of the name, and of what it leads to
    seen = {_identity(folder) for place in around for folder in (place, *place.parents)}
    links = [path]
    while links:
        further: list[str] = []
        for link in sorted(links):
            yield from _tree(link, seen, further)
        links = further


def _tree(path: str, seen: set[tuple[int, int]], links: list[str]) -> Iterator[os.DirEntry[str]]:
    """The files of a folder and of those in it; links to folders are put aside. Nothing of a folder that was seen before."""
    if (identity := _identity(path)) in seen:
        return
    seen.add(identity)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield entry
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                yield from _tree(entry.path, seen, links)


def _identity(path: str | Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
