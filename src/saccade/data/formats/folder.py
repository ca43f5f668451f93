"""Class folders: `root/CLASS/*.jpg`, or `root/{train,val|valid,test}/CLASS/*.jpg`. Folders inside a class folder belong to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saccade.core.errors import UserError
from saccade.core.images import SUFFIXES

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One image file: path relative to the root (POSIX), the class and split that its folders name, size in bytes, age in ns."""

    path: str
    label: str
    split: str
    bytes: int
    modified: int


@dataclass(frozen=True)
class Listing:
    """What stands in a folder: entries sorted by path; how many files without an image suffix were passed over; how many of the images
    are links to outside of the folder, or lie behind one."""

    entries: tuple[Entry, ...]
    ignored: int
    outside: int


def read(root: Path) -> Listing:
    """List the images of a class-folder data set; raises UserError when it is none."""
    folders = sorted(_folders(root), key=lambda entry: entry.name)
    if not folders:
        raise UserError("must hold a folder per class, but has no folders", where=str(root), fix=_EXPECTED)
    if all(folder.name in SPLITS for folder in folders):
        places = [(SPLITS[f.name], inner) for f in folders for inner in _folders(f.path)]
        if len({f.name for f in folders} & {"val", "valid"}) == 2:
            raise UserError("has both val/ and valid/", where=str(root), fix="keep one of them")
    else:
        places = [("train", folder) for folder in folders]
    entries: list[Entry] = []
    ignored = outside = 0
    for split, folder in places:
        found, passed, out = _images(root, split, folder)
        entries += found
        ignored, outside = ignored + passed, outside + out
    if not entries:
        raise UserError("holds no images", where=str(root), fix=_EXPECTED)
    return Listing(tuple(sorted(entries, key=lambda entry: entry.path)), ignored, outside)


_EXPECTED = "expected CLASS/*.jpg, or train/CLASS/*.jpg with val/ and test/ beside it"


def _folders(path: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def _images(root: Path, split: str, folder: os.DirEntry[str]) -> tuple[list[Entry], int, int]:
    found, ignored, outside = [], 0, 0
    real, places = os.path.realpath(root), dict[str, bool]()
    prefix = len(str(root).rstrip("/")) + 1
    for entry in _files(folder.path):
        if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
            ignored += 1
            continue
        size, modified = size_and_age(entry)
        found.append(Entry(entry.path[prefix:], folder.name, split, size, modified))
        place = os.path.dirname(entry.path)
        if place not in places:
            places[place] = _leads_out(place, real)
        outside += places[place] or (entry.is_symlink() and _leads_out(entry.path, real))
    return found, ignored, outside


def _leads_out(path: str, root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), root]) != root


def size_and_age(file: os.DirEntry[str] | Path) -> tuple[int, int]:
    """Size in bytes and age in ns; zeros for a link to nothing, which is named with the other bad files when it is read."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _files(path: str) -> Iterator[os.DirEntry[str]]:
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
