"""What is said of one image as one record: what lines of Hugging Face's metadata, rows of Parquet and WebDataset's JSON have in common.

- `label`: a name, or a number that a list of names explains; `labels`: a list of them, or one;
- `objects`: `{"bbox": [[x, y, width, height], ...], "category": [...]}`, with `iscrowd`, `difficult` and `segmentation` beside them where
  they are known, or a list of objects with these keys; a segmentation is as in COCO: outlines, or run lengths;
- `split`: the image's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.core.images import MAX_PIXELS
from saccade.core.run_lengths import Rle
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Box, Item, Object, Ring
from saccade.data.findings import Finding
from saccade.data.reading import Fault
from saccade.data.tree import Tree

LABEL = ("label", "labels", "class_name", "label_name", "class", "category", "cls", "fine_label", "target")
BOXES = ("bbox", "bboxes", "boxes")
CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class", "classes")
Names = Mapping[str, Sequence[str]]  # of a key's numbers


@dataclass
class Said:
    """What a record says; several: whether its image may have several labels or none."""

    labels: tuple[str, ...] = ()
    several: bool = False
    objects: tuple[tuple[str, Object], ...] = ()
    faults: list[Fault] = field(default_factory=list)


def tasks(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the first records can be read for, the likeliest first; () where they say nothing."""
    labelled = boxed = shaped = False
    for row in rows:
        labelled |= any(row.get(key) is not None for key in LABEL)
        if isinstance(found := row.get("objects"), dict | list):
            boxed = True
            shaped |= any(one.get("segmentation") for one in _parts(found, []))
    objects = ("instances", "detect") if shaped else ("detect",) if boxed else ()
    return (*objects, *(("classify",) if labelled else ()))


def parse(row: Mapping[str, Any], task: str, names: Names, size: tuple[int, int] | None = None) -> Said:
    """The labels of a record, or its objects; what cannot be understood goes into `faults`."""
    said = Said()
    try:
        if task in ("classify", "generate"):
            _take_labels(said, row, names)
        elif task in ("detect", "instances") and row.get("objects") is not None:
            said.objects = tuple(_objects(row["objects"], names, said.faults, size))
    except Fault as fault:
        said.faults.append(fault)
    return said


def _take_labels(said: Said, row: Mapping[str, Any], names: Names) -> None:
    key = next((key for key in LABEL if key in row), "")
    value = row.get(key)
    if isinstance(value, list):
        said.several = True
        said.labels = tuple(dict.fromkeys(_name(one, names.get(key, ())) for one in value))
    elif value is not None:
        said.labels = (_name(value, names.get(key, ())),)


def _name(value: Any, names: Sequence[str]) -> str:
    """The class that a name or a number stands for; raises Fault."""
    if not names or isinstance(value, str | bool):
        return reading.name(value)
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise Fault("unknown-class", f"must be a class from 0 to {len(names) - 1}, was {reading.shown(value)}")
    return names[value]


def _objects(value: Any, names: Names, faults: list[Fault], size: tuple[int, int] | None) -> Iterable[tuple[str, Object]]:
    for part in _parts(value, faults):
        try:
            key = next((key for key in CATEGORIES if key in part), "")
            name = _name(part.get(key), names.get(f"objects.{key}", ()))
            edges = box(next((part[key] for key in BOXES if key in part), None))
            outline = part.get("segmentation")
            covered = shape(parse_json(outline, where="") if isinstance(outline, str) else outline, size)
            if edges is None and covered is None:
                raise Fault("bad-annotation", "must have a bbox or a segmentation")
            yield name, Object(0, edges, covered, part.get("iscrowd") in (1, True), part.get("difficult") in (1, True))
        except Fault as fault:
            faults.append(fault)
        except UserError as error:
            faults.append(Fault("bad-annotation", error.message))


def _parts(value: Any, faults: list[Fault]) -> list[Mapping[str, Any]]:
    """Objects one by one, of a list of them or of a list by key."""
    if isinstance(value, list):
        if not all(isinstance(one, dict) for one in value):
            faults.append(Fault("bad-annotation", "objects must be records"))
        return [one for one in value if isinstance(one, dict)]
    if not isinstance(value, dict):
        faults.append(Fault("bad-annotation", f"objects must be a list or a record of lists, was {reading.shown(value)}"))
        return []
    lists = {key: value[key] for key in (*BOXES, *CATEGORIES, "segmentation", "iscrowd", "difficult") if value.get(key)}
    if not all(isinstance(found, list) and len(found) == len(next(iter(lists.values()))) for found in lists.values()):
        faults.append(Fault("bad-annotation", f"objects must be lists of equal length, was {reading.shown(value)}"))
        return []
    return [dict(zip(lists, one, strict=True)) for one in zip(*lists.values(), strict=True)]


def box(value: Any) -> Box | None:
    """COCO's x, y, width, height; None where there is none; raises Fault."""
    if value is None or value == []:
        return None
    left, top, width, height = reading.coordinates(value, 4)
    return reading.box((left, top, left + width, top + height))


def shape(value: Any, size: tuple[int, int] | None) -> tuple[Ring, ...] | Rle | None:
    """COCO's outlines or run lengths; None for none, which tools write in several ways; raises Fault."""
    if isinstance(value, dict):
        return _rle(value, size)
    if not value:
        return None
    if not isinstance(value, list):
        raise Fault("bad-annotation", f"a segmentation must be a list or run lengths, was {reading.shown(value)}")
    rings = [value] if isinstance(value[0], int | float) else value  # one outline, its brackets forgotten
    return tuple(reading.ring(reading.coordinates(ring)) for ring in rings if ring != []) or None


def _rle(value: Mapping[str, Any], size: tuple[int, int] | None) -> Rle:
    stated, counts = value.get("size"), value.get("counts")
    height, width = (int(side) for side in reading.coordinates(stated, 2))
    if height < 1 or width < 1 or height * width > 8 * MAX_PIXELS:
        raise Fault("bad-annotation", f"a mask of {height}x{width} (height x width) cannot be")
    if size and (height, width) != size:
        raise Fault("mask-size", f"the mask is {height}x{width} (height x width), its image {size[0]}x{size[1]}")
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    elif not isinstance(counts, list) or set(map(type, counts)) != {int}:
        raise Fault("bad-annotation", f"the counts of a mask must be text or integers, was {reading.shown(counts)}")
    try:
        return run_lengths.checked(counts, (height, width))
    except (ValueError, OverflowError) as error:
        raise Fault("bad-annotation", str(error)) from None


def shape_of(one: Object, size: tuple[int, int], annotations: Annotations) -> Any:
    """What `shape` reads: the object's outlines as they are, or the run lengths of its mask."""
    if isinstance(one.shape, tuple):
        return [list(ring) for ring in one.shape]
    rle = shapes.rle(one, size, annotations.tree)
    return {"size": list(rle.size), "counts": rle.counts.decode("ascii")}


def stated(item: Item, annotations: Annotations, size: tuple[int, int]) -> dict[str, Any]:
    """What `parse` reads. size: (height, width) of the image."""
    names = [annotations.classes[label] for label in item.labels]
    if annotations.task not in ("detect", "instances"):
        return {"labels": names} if annotations.multi else {"label": names[0]} if names else {}
    boxes = [shapes.box(one, size, annotations.tree) for one in item.objects]
    found: dict[str, list[Any]] = {
        "bbox": [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes],
        "category": [annotations.classes[one.label] for one in item.objects],
    }
    if annotations.task == "instances":
        found["segmentation"] = [None if one.shape is None else shape_of(one, size, annotations) for one in item.objects]
    for key, marks in (("iscrowd", [one.crowd for one in item.objects]), ("difficult", [one.difficult for one in item.objects])):
        if any(marks):
            found[key] = [int(mark) for mark in marks]
    return {"objects": found}


class Gathered:
    """Puts the records of a set together, image by image."""

    def __init__(self, task: str, names: Names, tree: Tree) -> None:
        self.task, self.names, self.tree = task, names, tree
        self.items: dict[str, Item] = {}
        self.said: dict[str, Said] = {}
        self.problems: list[Finding] = []

    def take(self, item: Item, row: Mapping[str, Any]) -> None:
        """One record; an image that stands twice counts once."""
        if (first := self.items.get(item.path)) is not None:
            self.problems.append(
                Finding("repeated-image", item.where, f"{item.path} is listed twice, first in line {first.line}", item.line)
            )
            return
        said = parse(row, self.task, self.names, item.size)
        self.problems += [fault.at(item.where, item.line) for fault in said.faults]
        self.items[item.path], self.said[item.path] = item, said

    def annotations(self, template: Annotations) -> Annotations:
        """What was read, put into `template`, whose classes are those declared, before its own problems."""
        several = any(said.several for said in self.said.values())
        if self.task == "classify" and not several:
            for path in [path for path, said in self.said.items() if not said.labels]:
                item = self.items.pop(path)
                if not self.said[path].faults:
                    self.problems.append(Finding("bad-annotation", item.where, f"{path} has no label", item.line))
        seen = {name for path in self.items for name in self._names(self.said[path])}
        declared = template.classes
        classes = (*declared, *sorted(seen - set(declared)))
        label = {name: place for place, name in enumerate(classes)}
        items = tuple(self._item(item, label) for _, item in sorted(self.items.items()))
        problems = (*template.problems, *self.problems)
        return replace(template, classes=classes, items=items, problems=problems, multi=several and self.task == "classify")

    @staticmethod
    def _names(said: Said) -> Iterable[str]:
        return (*said.labels, *(name for name, _ in said.objects))

    def _item(self, item: Item, label: Mapping[str, int]) -> Item:
        said = self.said[item.path]
        objects = tuple(replace(one, label=label[name], line=item.line) for name, one in said.objects)
        if self.task == "detect":
            objects = tuple(shapes.boxed(one, item.size or (0, 0), self.tree) for one in objects)
        return replace(item, labels=tuple(sorted(label[name] for name in said.labels)), objects=objects)
