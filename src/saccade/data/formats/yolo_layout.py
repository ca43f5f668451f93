"""Where the images, labels and names of a YOLO set are: its data.yaml, or what can be told without one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saccade.core.errors import UserError
from saccade.data import reading
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree

CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
MOST_CLASSES = 100_000
_USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_KEYS = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NONE = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Layout:
    """images: (split, image), sorted by path, each once; names: by class id, empty where nothing says them; where: the file that does."""

    images: tuple[tuple[str, File], ...]
    names: Mapping[int, str]
    where: str
    keypoints: bool = False
    problems: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def sheet_path(image: str) -> str:
    """Where the labels of an image lie: as it, but in `labels` for the last `images` of its folders."""
    head, found, tail = f"/{image}".rpartition("/images/")
    return f"{stem(f'{head}/labels/{tail}' if found else f'/{image}').lstrip('/')}.txt"


def sheet_of(image: str, pictures: Pictures) -> str:
    """The label file of an image that is there, in `labels` or beside it, or ""."""
    return next((path for path in (sheet_path(image), f"{stem(image)}.txt") if path in pictures.paths), "")


def description(tree: Tree, pictures: Pictures) -> tuple[str, dict[str, Any]] | None:
    """The path and content of the data.yaml, by whatever name: usual names first, only at the root or in a folder of it.

    A file of a usual name that is no YAML has no content: whoever reads it says what is wrong.
    """
    paths = [file.path for file in pictures.files if file.path.lower().endswith((".yaml", ".yml")) and file.path.count("/") <= 1]
    paths.sort(key=lambda path: (posixpath.basename(path).lower() not in _USUAL, path.count("/"), path))
    for path in paths:
        try:
            content = reading.parse_yaml(tree.read(path), path)
        except UserError:
            if posixpath.basename(path).lower() in _USUAL:
                return path, {}
            continue
        if isinstance(content, dict) and {"names", "nc"} & content.keys() and any(_entries(content.get(key)) for key, _ in _KEYS):
            return path, content
    return None


def layout(tree: Tree, pictures: Pictures) -> Layout:
    """Raises UserError where the data.yaml cannot be understood."""
    told = description(tree, pictures)
    if told is None:
        return _untold(tree, pictures)
    path, content = told
    where = f"{tree.root}: {path}"
    if not content:
        reading.parse_yaml(tree.read(path), where)
    names, notes = _names(content, where)
    found: dict[str, tuple[str, File]] = {}
    problems: list[Finding] = []
    twice = 0
    for split, entry in ((split, entry) for key, split in _KEYS for entry in _entries(content.get(key))):
        place = _place(entry, path, content.get("path"), pictures)
        if place is None:
            notes.append(f"{path}: nothing lies where it says for {split}: {reading.shown(entry)}")
            continue
        for file in _images(place, path, tree, pictures, problems):
            twice += found.setdefault(file.path, (split, file))[0] != split
    if not found:
        raise UserError("must name folders of images, but there are none", where=where, fix="check train, val and path in it")
    if twice:
        notes.append(f"{path}: {twice:,} images are in several splits; each counts for the first")
    ordered = tuple(value for _, value in sorted(found.items()))
    return Layout(ordered, names, path, "kpt_shape" in content, tuple(problems), tuple(notes))


def _untold(tree: Tree, pictures: Pictures) -> Layout:
    """All images in folders `images`, or all there are; names from a class list."""
    inside = [file for path, file in pictures.images.items() if "/images/" in f"/{path}"]
    lists = sorted((file.path for file in pictures.files if file.path.endswith(CLASS_LISTS)), key=lambda path: (path.count("/"), path))
    lines = [line.strip() for line in reading.decode(tree.read(lists[0])).splitlines()] if lists else []
    try:
        names = {identity: reading.name(line) for identity, line in enumerate(lines) if line}
    except Fault as fault:
        raise UserError(fault.message, where=f"{tree.root}: {lists[0]}") from None
    found = tuple((split_of(posixpath.dirname(file.path)), file) for file in inside or pictures.images.values())
    return Layout(found, names, lists[0] if lists else "")


def _entries(value: Any) -> list[str]:
    """The places that a split is said to be at: one, or a list."""
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, str) and entry.strip() not in _NONE]


def _names(content: Mapping[str, Any], where: str) -> tuple[dict[int, str], list[str]]:
    """Names by class id, and notes; raises UserError."""
    stated, count = content.get("names"), content.get("nc")
    if count is not None and not (isinstance(count, str) and re.fullmatch(r"[0-9]{1,6}", count) and int(count) <= MOST_CLASSES):
        raise UserError(f"nc must be a number of classes, was {reading.shown(count)}", where=where)
    if not stated or stated in _NONE:
        return {identity: str(identity) for identity in range(int(count or 0))}, []
    pairs = list(enumerate(stated)) if isinstance(stated, list) else list(stated.items()) if isinstance(stated, dict) else []
    if not pairs or not all(isinstance(key, int) or re.fullmatch(r"[0-9]{1,9}", key) for key, _ in pairs):
        raise UserError(f"names must be a list, or ids with names, was {reading.shown(stated)}", where=where)
    try:
        names = {int(key): reading.name(name) for key, name in pairs}
    except Fault as fault:
        raise UserError(f"names: {fault.message}", where=where) from None
    wrong = count is not None and int(count) != len(names)
    return names, [f"{where}: nc is {count}, but it has {len(names)} names, which count"] if wrong else []


def _place(entry: str, description: str, path: Any, pictures: Pictures) -> str | None:
    """The folder or list that an entry means: as it stands, else its end, for paths of another machine or that lead out of the set."""
    entry, own = entry.strip().replace("\\", "/"), posixpath.dirname(description)
    bases = [posixpath.join(own, path.replace("\\", "/")) if isinstance(path, str) else own, own, ""]
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    tries = [posixpath.join(base, entry) for base in bases]
    tries += [posixpath.join(base, *parts[first:]) for first in range(len(parts)) for base in bases]
    for place in tries:
        normal = posixpath.normpath(place)
        normal = "" if normal == "." else normal
        if normal in pictures.places or (normal in pictures.paths and normal.endswith(".txt")):
            return normal
    return None


def _images(place: str, description: str, tree: Tree, pictures: Pictures, problems: list[Finding]) -> Iterator[File]:
    """The images of a folder and of those in it, or of a list."""
    if place in pictures.places:
        start = f"{place}/" if place else ""
        yield from (file for path, file in pictures.images.items() if path.startswith(start))
        return
    folders = [posixpath.dirname(place), posixpath.dirname(description), ""]
    for number, line in enumerate(reading.decode(tree.read(place)).splitlines(), 1):
        if not line.strip():
            continue
        if file := pictures.find(line.strip(), folders):
            yield file
        else:
            problems.append(Finding("missing-image", place, f"{reading.shown(line.strip())} is listed, but not there", number))
