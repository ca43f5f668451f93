"""labelme: a JSON for each image beside it, with boxes, outlines and circles (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import json
import math
import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Box, Item, Object, Ring
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("instances", "detect")
HOLDS = frozenset({"boxes", "polygons", "pieces", "splits"})
LOOKED_AT = 20
VERSION = "5.5.0"  # whose files these are like
_EXPECTED = "expected a JSON with shapes beside each image"
_PASSED_OVER = ("point", "points", "line", "linestrip", "mask")  # a mask is a picture inside of the JSON


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for, where one of some JSON files is of labelme: instances where those have outlines."""
    tasks: tuple[str, ...] = ()
    sources = _sources(tree)
    for path in sources[:: -(-len(sources) // LOOKED_AT) or 1]:
        try:
            data = tree.read(path)
        except UserError:
            continue
        if b'"shapes"' not in data or (b'"shape_type"' not in data and b'"imagePath"' not in data):
            continue
        if b'"polygon"' in data or b'"circle"' in data:
            return TASKS
        tasks = ("detect", "instances")
    return tasks


def _sources(tree: Tree) -> list[str]:
    return [file.path for file in tree.files("", deep=True) if file.path.lower().endswith(".json")]


@dataclass
class _Sheet:
    """One JSON: class names with what they mark; pieces of one object share a group."""

    path: str
    file: File
    size: tuple[int, int] | None
    objects: list[tuple[str, Box | None, tuple[Ring, ...]]] = field(default_factory=list)
    groups: dict[tuple[str, str], int] = field(default_factory=dict)


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no JSON is of labelme."""
    pictures = Pictures(tree)
    problems: list[Finding] = []
    passed_over: Counter[str] = Counter()
    with reading.undisturbed():
        sheets = [sheet for path in _sources(tree) if (sheet := _sheet(tree, path, pictures, problems, passed_over))]
    if not sheets and not problems:
        raise UserError("holds no labelme annotations", where=str(tree.root), fix=_EXPECTED)
    classes = tuple(sorted({name for sheet in sheets for name, *_ in sheet.objects}))
    labels = {name: label for label, name in enumerate(classes)}
    items: dict[str, Item] = {}
    for sheet in sheets:
        if sheet.file.path in items:
            problems.append(Finding("repeated-image", sheet.path, f"{sheet.file.path} has another JSON: {items[sheet.file.path].where}"))
            continue
        objects = tuple(_object(labels[name], box, rings, task, tree) for name, box, rings in sheet.objects)
        split = split_of(posixpath.dirname(sheet.file.path))
        items[sheet.file.path] = Item(sheet.file, split, objects=objects, size=sheet.size, where=sheet.path)
    found = tuple(item for _, item in sorted(items.items()))
    notes = tuple(f"{count:,} shapes of type {kind} are left out" for kind, count in sorted(passed_over.items()))
    outside = sum(item.image.outside for item in found)
    return Annotations("labelme", task, classes, found, tree, tuple(problems), outside=outside, notes=(*notes, *pictures.unnamed(found)))


def _object(label: int, box: Box | None, rings: tuple[Ring, ...], task: str, tree: Tree) -> Object:
    if not rings:
        return Object(label, box)
    one = Object(label, shape=rings)
    return one if task == "instances" else Object(label, shapes.box(one, (0, 0), tree))


def _sheet(tree: Tree, path: str, pictures: Pictures, problems: list[Finding], passed_over: Counter[str]) -> _Sheet | None:
    """One JSON and its image; None where it is not of labelme, cannot be read, or has no image."""
    folder = posixpath.dirname(path)
    try:
        content = parse_json(tree.read(path), where=path)
        if not isinstance(content, dict) or "shapes" not in content:
            return None
        named = content.get("imagePath")
        file = pictures.beside(path, [folder])
        if file is None and isinstance(named, str):
            file = pictures.find(named, [folder])
        if file is None:
            raise Fault("missing-image", f"its image is not there: {reading.shown(named)}")
        if not isinstance(content["shapes"], list):
            raise Fault("bad-annotation", f"shapes must be a list, was {reading.shown(content['shapes'])}")
    except Fault as fault:
        problems.append(fault.at(path))
        return None
    except UserError as error:
        problems.append(Finding("bad-annotation", path, error.message))
        return None
    sheet = _Sheet(path, file, reading.size(content.get("imageHeight"), content.get("imageWidth")))
    for number, shape in enumerate(content["shapes"], 1):
        try:
            _take(shape, sheet, passed_over)
        except Fault as fault:
            problems.append(fault.at(path, what=f"shape {number}"))
    return sheet


def _take(shape: Any, sheet: _Sheet, passed_over: Counter[str]) -> None:
    """One shape; raises Fault."""
    if not isinstance(shape, dict):
        raise Fault("bad-annotation", f"must be an object with label and points, was {reading.shown(shape)}")
    kind = shape.get("shape_type", "polygon")
    if kind in _PASSED_OVER:
        passed_over[kind] += 1
        return
    name, points = reading.name(shape.get("label")), _points(shape.get("points"))
    box, ring = _marked(kind, points)
    group = shape.get("group_id")
    if group is None or not isinstance(group, int | str):
        sheet.objects.append((name, box, (ring,) if ring else ()))
        return
    place = sheet.groups.setdefault((name, str(group)), len(sheet.objects))
    if place == len(sheet.objects):
        sheet.objects.append((name, box, (ring,) if ring else ()))
        return
    _, first, rings = sheet.objects[place]
    sheet.objects[place] = (name, None, (*rings, *_outlines(first), *_outlines(box), *((ring,) if ring else ())))


def _points(value: Any) -> list[tuple[float, ...]]:
    if not isinstance(value, list):
        raise Fault("bad-annotation", f"must have points, was {reading.shown(value)}")
    return [reading.coordinates(point, 2) for point in value]


def _marked(kind: Any, points: list[tuple[float, ...]]) -> tuple[Box | None, Ring]:
    """The box that a rectangle is, or the outline that another shape has; raises Fault."""
    x, y = [point[0] for point in points], [point[1] for point in points]
    if kind == "rectangle" and len(points) in (2, 4):  # its corners, wherever the drawing began
        return (min(x), min(y), max(x), max(y)), ()
    if kind in ("polygon", "rotation") and points:  # X-AnyLabeling's word for a turned box
        return None, tuple(value for point in points for value in point)
    if kind == "circle" and len(points) == 2:  # its middle, and a point on it
        return None, _circle(points[0], math.dist(*points))
    raise Fault("bad-annotation", f"{reading.shown(kind)} of {len(points)} points is no shape that is known")


def _circle(middle: tuple[float, ...], radius: float) -> Ring:
    """An outline that no point of the circle is more than a tenth of a pixel away from, up to a radius of 3,000."""
    (radius,) = reading.finite((radius,))
    corners = max(12, math.ceil(min(400, math.pi * math.sqrt(5 * radius))))  # an edge's middle is radius * (pi / corners)**2 / 2 off
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    ring = tuple(value for a in angles for value in (middle[0] + radius * math.cos(a), middle[1] + radius * math.sin(a)))
    return reading.finite(ring)


def _outlines(box: Box | None) -> tuple[Ring, ...]:
    return (shapes.corners(box),) if box else ()


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT/NAME` and `SPLIT/STEM.json` beside it; at the root where there is no split."""
    for item in annotations.items:
        name, folder = out.name(item), f"{item.split}/" if item.split else ""
        out.image(item, f"{folder}{name}")
        height, width = size = out.size(item)
        marked = [shape for number, one in enumerate(item.objects, 1) for shape in _shapes(one, number, size, annotations)]
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": marked,
            "imagePath": name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        out.text(f"{folder}{stem(name)}.json", json.dumps(content, allow_nan=False, indent=1))


def _shapes(one: Object, number: int, size: tuple[int, int], annotations: Annotations) -> list[Mapping[str, Any]]:
    """The pieces of an object, under one group where there are several."""
    rings = shapes.pieces(one, size, annotations.tree)
    if annotations.task == "detect" or not rings:
        left, top, right, bottom = shapes.box(one, size, annotations.tree)
        return [_facts(annotations.classes[one.label], [[left, top], [right, bottom]], "rectangle", None)]
    group = number if len(rings) > 1 else None
    points = [[list(point) for point in zip(ring[::2], ring[1::2], strict=True)] for ring in rings]
    return [_facts(annotations.classes[one.label], piece, "polygon", group) for piece in points]


def _facts(label: str, points: list[list[float]], kind: str, group: int | None) -> Mapping[str, Any]:
    return {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind, "flags": {}, "mask": None}
