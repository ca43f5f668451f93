"""YOLO text files: a line `class cx cy w h`, or `class x1 y1 x2 y2 ...` for an outline, in fractions of width and height
(https://docs.ultralytics.com/datasets/detect/, .../segment/).

The images of a split are those of a folder, of several, or of a list in a .txt, as data.yaml says; without it all those of `images/`.
Labels lie in `labels/` where images lie in `images/`, else beside them. An image without a label file, or with an empty one, is background.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import yaml

from saccade.core import images
from saccade.core.errors import UserError
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.findings import Finding
from saccade.data.formats import yolo_layout
from saccade.data.formats.yolo_layout import CLASS_LISTS, Layout
from saccade.data.pictures import Pictures
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("detect", "instances")
HOLDS = frozenset({"boxes", "polygons", "splits"})
LOOKED_AT = 200
FAR = 1e6  # images away: nothing that was meant, and pixels must stay finite
THREADS = 4  # headers are read from the disk and parsed by Pillow: more wait for each other
_LINE = re.compile(r"\s*\d+(\.0*)?(\s+[-+.\deE]+){4,}\s*")


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for, from label files spread over the set: instances where one holds an outline."""
    pictures = Pictures(tree)
    if not any(path.endswith(".txt") for path in pictures.paths):
        return ()
    found = [sheet for file in pictures.images.values() if (sheet := yolo_layout.sheet_of(file.path, pictures))]
    told = yolo_layout.description(tree, pictures) is not None
    if not told and not any(file.path.endswith(CLASS_LISTS) for file in pictures.files):
        found = [path for path in found if "labels" in path.split("/")[:-1]]
    lines = [line for path in found[:: -(-len(found) // LOOKED_AT) or 1] for line in _text(tree, path).splitlines() if line.strip()]
    if not found or (not told and not (lines and _LINE.fullmatch(lines[0]))):
        return ()
    return ("instances", "detect") if any(len(line.split()) > 6 for line in lines) and not _keypoints(tree, pictures) else ("detect",)


def _keypoints(tree: Tree, pictures: Pictures) -> bool:
    try:
        return yolo_layout.layout(tree, pictures).keypoints
    except UserError:
        return False


def _text(tree: Tree, path: str) -> str:
    return reading.decode(tree.read(path))


@dataclass(frozen=True, slots=True)
class _Line:
    """Class id, and four numbers of a box or at least six of an outline, as fractions."""

    identity: int
    values: tuple[float, ...]
    number: int


@dataclass
class _Labels:
    """One image and the lines of its label file."""

    file: File
    split: str
    sheet: str
    lines: list[_Line] = field(default_factory=list)


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where the data.yaml cannot be understood, or nothing is labelled."""
    pictures = Pictures(tree)
    layout = yolo_layout.layout(tree, pictures)
    problems = list(layout.problems)
    with reading.undisturbed():
        labels = [_labels(tree, file, split, pictures, layout, problems) for split, file in layout.images]
        if not any(one.sheet for one in labels):
            raise UserError("holds no YOLO labels", where=str(tree.root), fix="expected labels/*.txt beside images/, and a data.yaml")
        problems += _strays(pictures, {one.sheet for one in labels})
        ids, classes, notes = _classes(layout, {line.identity for one in labels for line in one.lines}, problems)
        items = tuple(_items(tree, labels, ids, task, problems))
    outside = sum(item.image.outside for item in items)
    notes = (*layout.notes, *notes, *pictures.unnamed(items))
    own = tuple(sorted(ids, key=lambda identity: (ids[identity], identity)))
    own = own if len(own) == len(classes) else ()
    return Annotations("yolo", task, classes, items, tree, tuple(problems), outside=outside, notes=notes, ids=own)


def _labels(tree: Tree, file: File, split: str, pictures: Pictures, layout: Layout, problems: list[Finding]) -> _Labels:
    sheet = yolo_layout.sheet_of(file.path, pictures)
    labels = _Labels(file, split, sheet)
    for number, line in enumerate(_text(tree, sheet).splitlines() if sheet else (), 1):
        try:
            if fields := line.split():
                labels.lines.append(_line(fields, number, layout.keypoints))
        except Fault as fault:
            problems.append(fault.at(sheet, number))
    return labels


def _line(fields: list[str], number: int, keypoints: bool) -> _Line:
    """One line; raises Fault."""
    try:
        first, *values = map(float, fields)
    except ValueError:
        raise Fault("bad-annotation", f"must be a class id and numbers, was {reading.shown(' '.join(fields))}") from None
    if not first.is_integer():
        raise Fault("bad-annotation", f"must begin with a class id, was {reading.shown(fields[0])}")
    found = reading.finite(tuple(values[:4] if keypoints else values))
    if len(found) == 5:
        raise Fault("bad-annotation", "has 6 columns: predictions with a confidence, where labels have 5")
    if len(found) < 4 or len(found) % 2:
        raise Fault("bad-annotation", f"must be a class id and 4 numbers, or pairs of x and y, was {len(fields)} columns")
    if max(found) > FAR or min(found) < -FAR:
        raise Fault("bad-annotation", f"must be fractions of width and height, was {reading.shown(found)}")
    return _Line(int(first), found, number)


def _strays(pictures: Pictures, used: set[str]) -> Iterator[Finding]:
    """Label files in `labels/` of images that are not there."""
    for file in pictures.files:
        if not file.path.endswith(".txt") or file.path in used or file.path.endswith(CLASS_LISTS):
            continue
        head, found, tail = f"/{file.path}".rpartition("/labels/")
        place = f"{head}/images/{tail}".lstrip("/")
        if found and not pictures.beside(place, [posixpath.dirname(place), posixpath.dirname(file.path)]):
            yield Finding("unknown-image", file.path, "there is no image of this name")


def _classes(layout: Layout, seen: set[int], problems: list[Finding]) -> tuple[dict[int, int], tuple[str, ...], tuple[str, ...]]:
    """Class id -> label; the classes; notes."""
    if not layout.names:
        order = sorted(identity for identity in seen if identity >= 0)
        note = ("nothing names the classes: they are called by their ids",)
        return {identity: label for label, identity in enumerate(order)}, tuple(map(str, order)), note
    classes: dict[str, int] = {}
    ids: dict[int, int] = {}
    for identity, name in sorted(layout.names.items()):
        if name in classes:
            problems.append(Finding("repeated-class", layout.where, f"the class {reading.shown(name)} is named twice"))
        ids[identity] = classes.setdefault(name, len(classes))
    count = len(ids)
    if seen and max(seen) == count and min(seen) >= 1 and set(ids) == set(range(count)):
        said = f"the ids of labels go from {min(seen)} to {count}, those of its {count} names from 0 to {count - 1}"
        problems.append(Finding("ids-from-one", layout.where, f"{said}: read as counted from 1"))
        ids = {identity + 1: label for identity, label in ids.items()}
    return ids, tuple(classes), ()


def _items(tree: Tree, labels: list[_Labels], ids: dict[int, int], task: str, problems: list[Finding]) -> Iterator[Item]:
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = pool.map(lambda one: _size(tree, one.file.path) if one.lines else (0, 0), labels)
        for one, found in zip(labels, sizes, strict=True):
            size = found if isinstance(found, tuple) else None
            if isinstance(found, UserError):
                problems.append(Finding("unreadable-image", one.file.path, found.message))
            unknown = [line for line in one.lines if line.identity not in ids]
            problems += [Finding("unknown-class", one.sheet, f"the class id {line.identity} has no name", line.number) for line in unknown]
            known = [line for line in one.lines if size and line.identity in ids]
            objects = tuple(_object(line, ids[line.identity], size or (0, 0), task) for line in known)
            yield Item(one.file, one.split, objects=objects, where=one.sheet)


def _size(tree: Tree, path: str) -> tuple[int, int] | UserError:
    try:
        return images.probe(tree.image(path)).size
    except UserError as error:
        return error


def _object(line: _Line, label: int, size: tuple[int, int], task: str) -> Object:
    height, width = size
    values = line.values
    if len(values) == 4:
        x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        return Object(label, box, line=line.number)
    ring = tuple(value * (height if place % 2 else width) for place, value in enumerate(values))
    if task == "detect":
        return Object(label, (min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])), line=line.number)
    return Object(label, shape=(ring,), line=line.number)


def write(annotations: Annotations, out: Output) -> None:
    """`images/SPLIT/NAME`, `labels/SPLIT/STEM.txt` and data.yaml; images of no split go to train, since each must have one."""
    splits = {}
    for item in annotations.items:
        split, name = item.split or "train", out.name(item)
        splits[split] = f"images/{split}"
        out.image(item, f"images/{split}/{name}")
        lines = list(_lines(item, annotations, out.size(item))) if item.objects else []
        out.text(yolo_layout.sheet_path(f"images/{split}/{name}"), "".join(f"{line}\n" for line in lines))
    content = {**splits, "names": dict(enumerate(annotations.classes))}
    out.text("data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=1000))


def _lines(item: Item, annotations: Annotations, size: tuple[int, int]) -> Iterator[str]:
    height, width = size
    for one in item.objects:
        left, top, right, bottom = box = shapes.box(one, size, annotations.tree)
        values: Iterable[float] = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        if annotations.task == "instances":
            rings = [ring for ring in shapes.pieces(one, size, annotations.tree) if len(ring) >= 6]
            ring = max(rings, key=shapes.area, default=shapes.corners(box))  # a line holds one
            values = (value / (height if place % 2 else width) for place, value in enumerate(ring))
        # nine decimals: half of the last one is 2.5e-5 pixels in an image of 50,000
        yield " ".join([str(one.label), *(f"{value:.9f}" for value in values)])
