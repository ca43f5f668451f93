"""Label Studio's JSON export: boxes and outlines in percent of the image (https://labelstud.io/guide/export#Label-Studio-JSON-format)."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("instances", "detect")
HOLDS = frozenset({"boxes", "polygons", "splits"})
LOOKED_AT = 5
_BOX, _OUTLINE = "rectanglelabels", "polygonlabels"
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
_EXPECTED = "expected the JSON export of Label Studio near the images"


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for: instances where there are outlines."""
    for _, data in _sources(tree):
        return TASKS if b'"polygonlabels"' in data else ("detect", "instances")
    return ()


def _sources(tree: Tree) -> Iterator[tuple[str, bytes]]:
    paths = [file.path for file in tree.files("", deep=True) if file.path.lower().endswith(".json") and file.path.count("/") <= 1]
    for path in paths[:LOOKED_AT]:
        try:
            data = tree.read(path)
        except UserError:
            continue
        if data.lstrip()[:1] == b"[" and b'"annotations"' in data and b'"result"' in data and b'"data"' in data:
            yield path, data


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no JSON is of Label Studio, or one is no strict JSON."""
    reader = _Reader(tree, Pictures(tree), task)
    sources = 0
    with reading.undisturbed():
        for path, data in _sources(tree):
            sources += 1
            for number, row in enumerate(parse_json(data, where=f"{tree.root}: {path}"), 1):
                reader.take(path, row, f"task {number}")
    if not sources:
        raise UserError("holds no annotations of Label Studio", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations()


@dataclass
class _Reader:
    """Puts the tasks of a set together."""

    tree: Tree
    pictures: Pictures
    task: str
    items: dict[str, Item] = field(default_factory=dict)
    objects: dict[str, list[tuple[str, Object]]] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    further: int = 0

    def take(self, path: str, row: Any, what: str) -> None:
        """One task: an image and what was marked in it. Of several answers the first that was not withdrawn counts."""
        try:
            results = self._results(row)
            file = self._file(path, row)
            if file.path in self.items:
                raise Fault("repeated-image", f"{file.path} is in another task too")
        except Fault as fault:
            self.problems.append(fault.at(path, what=what))
            return
        sizes = [size for result in results if (size := _size(result))]
        self.items[file.path] = Item(file, split_of(posixpath.dirname(file.path)), size=sizes[0] if sizes else None, where=path)
        found = self.objects[file.path] = []
        for number, result in enumerate(results, 1):
            try:
                found += self._marked(result)
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"{what}, result {number}"))

    def _results(self, row: Any) -> list[Any]:
        answers = row.get("annotations") if isinstance(row, dict) else None
        if not isinstance(answers, list):
            raise Fault("bad-annotation", "must have annotations, a list")
        kept = [
            one["result"]
            for one in answers
            if isinstance(one, dict) and isinstance(one.get("result"), list) and not one.get("was_cancelled")
        ]
        self.further += max(0, len(kept) - 1)
        return kept[0] if kept else []

    def _file(self, path: str, row: Mapping[str, Any]) -> File:
        """The image of a task, whose name is an address: of an upload (with eight characters before it), of a local file, of a cloud."""
        data = row.get("data")
        addresses = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
        folders = [posixpath.dirname(path), posixpath.join(posixpath.dirname(path), "images"), "images", ""]
        for name in (name for address in addresses for name in _names(address)):
            if file := self.pictures.find(name, folders):
                return file
        raise Fault("missing-image", f"its image is not there: {reading.shown(addresses[0] if addresses else None)}")

    def _marked(self, result: Any) -> list[tuple[str, Object]]:
        """The object of a result, of each class that it has; none where it is no box or outline; raises Fault."""
        if not isinstance(result, dict) or not isinstance(value := result.get("value"), dict):
            raise Fault("bad-annotation", f"must have a value, was {reading.shown(result)}")
        kind = result.get("type")
        if kind not in (_BOX, _OUTLINE):
            self.passed_over[reading.shown(kind)] += 1
            return []
        size = _size(result)
        if size is None:
            raise Fault("bad-annotation", "must have original_width and original_height")
        names = value.get(kind)
        if not isinstance(names, list) or not names:
            raise Fault("bad-annotation", f"must name a class, was {reading.shown(names)}")
        one = _box(value, size) if kind == _BOX else _outline(value, size)
        return [(reading.name(name), one) for name in names]

    def annotations(self) -> Annotations:
        """What was read."""
        classes = tuple(sorted({name for objects in self.objects.values() for name, _ in objects}))
        labels = {name: label for label, name in enumerate(classes)}
        items = tuple(
            replace(item, objects=tuple(self._object(labels[name], one) for name, one in self.objects[path]))
            for path, item in sorted(self.items.items())
        )
        notes = [f"{count:,} results of type {kind} are left out" for kind, count in sorted(self.passed_over.items())]
        notes += [f"{self.further:,} further answers to a task are left out: its first counts"] if self.further else []
        outside = sum(item.image.outside for item in items)
        notes += self.pictures.unnamed(items)
        problems = tuple(self.problems)
        return Annotations("label_studio", self.task, classes, items, self.tree, problems, outside=outside, notes=tuple(notes))

    def _object(self, label: int, one: Object) -> Object:
        if self.task == "instances" or one.shape is None:
            return replace(one, label=label)
        return Object(label, shapes.box(one, (0, 0), self.tree))


def _names(address: str) -> Iterator[str]:
    """What the file of an address may be called."""
    try:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d", [])
        path = parts.path
    except ValueError:  # brackets that are no address
        local, path = [], address
    for name in (*local, address, path, unquote(path)):
        yield name
        folder, _, own = name.rpartition("/")
        if _UPLOADED.match(own):
            yield posixpath.join(folder, own[9:])


def _size(result: Any) -> tuple[int, int] | None:
    return reading.size(result.get("original_height"), result.get("original_width")) if isinstance(result, dict) else None


def _box(value: Mapping[str, Any], size: tuple[int, int]) -> Object:
    """A rectangle; a turned one as its outline. It is turned clockwise about its first corner."""
    x, y, width, height, turn = reading.coordinates([value.get(key) for key in ("x", "y", "width", "height")] + [value.get("rotation", 0)])
    left, top, wide, high = x / 100 * size[1], y / 100 * size[0], width / 100 * size[1], height / 100 * size[0]
    if not turn:
        return Object(0, reading.box((left, top, left + wide, top + high)))
    return Object(0, shape=(reading.finite(shapes.turned((left, top, left + wide, top + high), turn, (left, top))),))


def _outline(value: Mapping[str, Any], size: tuple[int, int]) -> Object:
    points = value.get("points")
    if not isinstance(points, list) or not points:
        raise Fault("bad-annotation", f"must have points, was {reading.shown(points)}")
    pairs = [reading.coordinates(point, 2) for point in points]
    ring = tuple(number for x, y in pairs for number in (x / 100 * size[1], y / 100 * size[0]))
    return Object(0, shape=(reading.finite(ring),))


def write(annotations: Annotations, out: Output) -> None:
    """`tasks.json` and `images/NAME`, in a folder of its split where it has one."""
    rows = []
    for number, item in enumerate(annotations.items, 1):
        name = f"images/{item.split}{'/' if item.split else ''}{out.name(item)}"
        out.image(item, name)
        size = out.size(item)
        results = [_result(one, f"{number}-{place}", size, annotations) for place, one in enumerate(item.objects, 1)]
        rows.append({"id": number, "data": {"image": name}, "annotations": [{"id": number, "was_cancelled": False, "result": results}]})
    out.text("tasks.json", json.dumps(rows, allow_nan=False))


def _result(one: Object, identity: str, size: tuple[int, int], annotations: Annotations) -> dict[str, Any]:
    height, width = size
    rings = shapes.pieces(one, size, annotations.tree) if annotations.task == "instances" else ()
    ring = max(rings, key=shapes.area, default=())  # a result holds one
    if ring:
        kind = _OUTLINE
        value: dict[str, Any] = {
            "points": [[x / width * 100, y / height * 100] for x, y in zip(ring[::2], ring[1::2], strict=True)],
            "closed": True,
        }
    else:
        kind = _BOX
        left, top, right, bottom = shapes.box(one, size, annotations.tree)
        value = {"x": left / width * 100, "y": top / height * 100, "rotation": 0}
        value |= {"width": (right - left) / width * 100, "height": (bottom - top) / height * 100}
    facts = {"id": identity, "type": kind, "from_name": "label", "to_name": "image", "image_rotation": 0}
    return facts | {"original_width": width, "original_height": height, "value": value | {kind: [annotations.classes[one.label]]}}
