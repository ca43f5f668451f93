"""CVAT for images 1.1: boxes, outlines and masks in one XML (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/)."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.run_lengths import Rle
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Box, Item, Object, Ring
from saccade.data.findings import Finding
from saccade.data.pictures import SPLITS, Pictures, split_of
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TASKS = ("instances", "detect")
HOLDS = frozenset({"boxes", "polygons", "masks", "splits"})
LOOKED_AT = 5
_KINDS = ("box", "polygon", "mask", "polyline", "points", "cuboid", "ellipse", "skeleton")
_READ = ("box", "polygon", "mask")
_TAG = re.compile(rb"<(?:%s)[\s>]" % "|".join(_KINDS).encode())
_EXPECTED = "expected annotations.xml of CVAT for images, with the images beside it or in images/"


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for: instances where there are outlines or masks."""
    for _, data in _sources(tree):
        return TASKS if b"<polygon " in data or b"<mask " in data else ("detect", "instances")
    return ()


def _sources(tree: Tree) -> Iterator[tuple[str, bytes]]:
    """The files of a set: near the root, one or a few, where VOC has many."""
    paths = [file.path for file in tree.files("", deep=True) if file.path.lower().endswith(".xml") and file.path.count("/") <= 1]
    for path in paths[:LOOKED_AT]:
        try:
            data = tree.read(path)
        except UserError:
            continue
        if re.search(rb"<annotations[\s>]", data) and re.search(rb"<(?:image|meta)[\s>]", data):
            yield path, data


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no XML is of CVAT, or one is no plain XML."""
    reader = _Reader(tree, Pictures(tree), task)
    sources = 0
    with reading.undisturbed():
        for path, data in _sources(tree):
            sources += 1
            try:
                reader.take(path, reading.parse_xml(data), data)
            except Fault as fault:
                raise UserError(fault.message, where=f"{tree.root}: {path}") from None
    if not sources:
        raise UserError("holds no CVAT annotations", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations()


@dataclass
class _Reader:
    """Puts the files of a set together: classes agree by name."""

    tree: Tree
    pictures: Pictures
    task: str
    classes: dict[str, int] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def take(self, path: str, root: Element, data: bytes) -> None:
        """One file."""
        stated = [element.findtext("name") for element in root.findall("./meta//labels/label")]
        for name in stated:
            try:
                self.classes.setdefault(reading.name(name), len(self.classes))
            except Fault as fault:
                self.problems.append(fault.at(path, what="label"))
        marks = [(image, element) for image in root.findall("image") for element in image if element.tag in _KINDS]
        lines = iter(reading.lines_of(data, _TAG, len(marks)))
        for image in root.findall("image"):
            own = [(element, next(lines)) for element in image if element.tag in _KINDS]
            try:
                self._image(path, image, own, declared=bool(stated))
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"image {reading.shown(image.get('name'))}"))
        if tracks := len(root.findall("track")):
            self.passed_over["track"] += tracks

    def _image(self, path: str, image: Element, marks: list[tuple[Element, int]], *, declared: bool) -> None:
        name, folder = image.get("name") or "", posixpath.dirname(path)
        split = SPLITS.get((image.get("subset") or "").lower(), "")
        folders = [folder, posixpath.join(folder, "images"), "images", *self.pictures.folders(split), ""]
        file = self.pictures.find(name, folders, split) if name else None
        if file is None:
            raise Fault("missing-image", "is not there")
        if file.path in self.items:
            raise Fault("repeated-image", f"is listed twice, first in {self.items[file.path].where}")
        size = reading.text_size(image.get("height"), image.get("width"))
        split = split or split_of(posixpath.dirname(file.path))
        objects: list[Object] = []
        groups: dict[tuple[int, str], int] = {}
        for element, line in marks:
            try:
                self._mark(element, line, size, objects, groups, declared=declared)
            except Fault as fault:
                self.problems.append(fault.at(path, line, "" if line else name))
        if self.task == "detect":
            objects = [replace(one, box=shapes.box(one, size or (0, 0), self.tree), shape=None) for one in objects]
        self.items[file.path] = Item(file, split, objects=tuple(objects), size=size, where=path)

    def _mark(  # six arguments: a mark, and what it joins
        self,
        element: Element,
        line: int,
        size: tuple[int, int] | None,
        objects: list[Object],
        groups: dict[tuple[int, str], int],
        *,
        declared: bool,
    ) -> None:
        if element.tag not in _READ:
            self.passed_over[element.tag] += 1
            return
        name = reading.name(element.get("label"))
        if declared and name not in self.classes:
            raise Fault("unknown-class", f"{reading.shown(name)} is no label of the task")
        box, shape = _stated(element, size)
        label = self.classes.setdefault(name, len(self.classes))
        group = element.get("group_id", "0")
        place = groups.setdefault((label, group), len(objects)) if group != "0" and isinstance(shape, tuple) else len(objects)
        if place < len(objects) and isinstance(before := objects[place].shape, tuple) and isinstance(shape, tuple):
            objects[place] = replace(objects[place], shape=(*before, *shape))  # pieces of one object
        else:
            objects.append(Object(label, box, shape, line=line))

    def annotations(self) -> Annotations:
        """What was read."""
        items = tuple(item for _, item in sorted(self.items.items()))
        notes = tuple(f"{count:,} shapes of type {kind} are left out" for kind, count in sorted(self.passed_over.items()))
        notes = (*notes, *self.pictures.unnamed(items))
        outside = sum(item.image.outside for item in items)
        return Annotations("cvat", self.task, tuple(self.classes), items, self.tree, tuple(self.problems), outside=outside, notes=notes)


def _stated(element: Element, size: tuple[int, int] | None) -> tuple[Box | None, tuple[Ring, ...] | Rle | None]:
    """The box or the shape of an element; raises Fault."""
    if element.tag == "box":
        box = reading.box(_numbers(element, ("xtl", "ytl", "xbr", "ybr")))
        (turn,) = reading.finite((reading.number(element.get("rotation", "0")),))
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return (None, (reading.finite(shapes.turned(box, turn, middle)),)) if turn else (box, None)
    if element.tag == "polygon":
        values = (reading.number(value) for pair in (element.get("points") or "").split(";") for value in pair.split(","))
        return None, (reading.ring(reading.finite(tuple(values))),)
    return None, _mask(element, size)


def _numbers(element: Element, names: tuple[str, ...]) -> tuple[float, ...]:
    return reading.finite(tuple(reading.number(element.get(name) or "") for name in names))


def _mask(element: Element, size: tuple[int, int] | None) -> Rle:
    """Run lengths by rows within a rectangle, the first of what is not covered; raises Fault."""
    left, top, width, height = (int(value) for value in _numbers(element, ("left", "top", "width", "height")))
    if size is None or size[0] * size[1] > 8 * MAX_PIXELS:
        raise Fault("bad-annotation", "a mask needs the width and height of its image")
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise Fault("mask-size", f"a mask of {height}x{width} (height x width) at {left}, {top} does not lie inside of its image")
    runs = [reading.number(value) for value in (element.get("rle") or "").split(",")]
    if not all(run.is_integer() and 0 <= run <= width * height for run in runs) or sum(runs) != width * height:
        raise Fault("bad-annotation", f"run lengths must fill a mask of {height}x{width} (height x width) exactly")
    mask = np.zeros(size, bool)
    covered = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64))
    mask[top : top + height, left : left + width] = covered.reshape(height, width)
    return run_lengths.from_mask(mask)


def write(annotations: Annotations, out: Output) -> None:
    """`annotations.xml` and `images/NAME`."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        "  <meta>",
        "    <task>",
        "      <labels>",
    ]
    lines += [f"        <label><name>{reading.xml_text(name)}</name></label>" for name in annotations.classes]
    lines += ["      </labels>", "    </task>", "  </meta>"]
    for number, item in enumerate(annotations.items):
        name = reading.xml_name(out.name(item))
        out.image(item, f"images/{name}")
        height, width = size = out.size(item)
        facts = {"id": number, "name": name, **({"subset": item.split} if item.split else {}), "width": width, "height": height}
        lines.append(f"  <image{_attributes(facts)}>")
        lines += [row for place, one in enumerate(item.objects, 1) for row in _rows(one, place, size, annotations)]
        lines.append("  </image>")
    out.text("annotations.xml", "\n".join([*lines, "</annotations>", ""]))


def _rows(one: Object, place: int, size: tuple[int, int], annotations: Annotations) -> Iterator[str]:
    """The elements of an object; its pieces are under one group."""
    label = {"label": annotations.classes[one.label], "source": "file", "occluded": 0}
    if annotations.task == "detect" or one.shape is None:
        edges = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(float, shapes.box(one, size, annotations.tree)), strict=True))
        yield f"    <box{_attributes(label | edges | {'z_order': 0})}/>"
    elif isinstance(one.shape, tuple):
        group = {"group_id": place} if len(one.shape) > 1 else {}
        for ring in one.shape:
            points = ";".join(f"{float(x)!r},{float(y)!r}" for x, y in zip(ring[::2], ring[1::2], strict=True))
            yield f"    <polygon{_attributes(label | {'points': points, 'z_order': 0} | group)}/>"
    else:
        covered = run_lengths.to_mask(shapes.rle(one, size, annotations.tree)).reshape(-1)
        edges_at = np.flatnonzero(np.diff(covered, prepend=False))
        runs = np.diff(edges_at, prepend=0, append=len(covered)).tolist()
        place_of = {"left": 0, "top": 0, "width": size[1], "height": size[0]}
        yield f"    <mask{_attributes(label | {'rle': ', '.join(map(str, runs))} | place_of | {'z_order': 0})}/>"


def _attributes(facts: Mapping[str, object]) -> str:
    return "".join(f' {key}="{reading.xml_text(str(value))}"' for key, value in facts.items())
