"""COCO JSON: boxes, outlines and masks of objects (https://cocodataset.org/#format-data).

Read from `annotations/*.json`, `SPLIT/_annotations.coco.json` (Roboflow) or one JSON anywhere near the root. Class ids are any integers,
with holes: they are known in here only.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading, records, shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output, by_split

TASKS = ("detect", "instances")
HOLDS = frozenset({"boxes", "polygons", "masks", "crowd", "splits"})
LARGEST_ID = 1 << 53  # from which on JSON of other languages rounds
_LISTS = (b'"images"', b'"annotations"', b'"categories"')
_SHAPE = re.compile(rb'"segmentation"\s*:\s*(?:\[\s*\[?\s*[-\d]|\{)')
_EXPECTED = "expected annotations/*.json, or a JSON beside the images, with images, annotations and categories"


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for: instances where an annotation has an outline or a mask."""
    tasks: tuple[str, ...] = ()
    for _, data in sources(tree):
        if _SHAPE.search(data):
            return "instances", "detect"
        tasks = ("detect",)
    return tasks


def sources(tree: Tree, *, panoptic: bool = False) -> Iterator[tuple[str, bytes]]:
    """The files of a set and what is in them, unparsed: a look at a file of a gigabyte should not cost a minute. panoptic: those of
    segments, whose masks lie in pictures, and no others."""
    files = tree.files("", deep=True)
    images = {stem(file.path) for file in files if file.is_image}
    paths = [
        file.path for file in files if file.path.lower().endswith(".json") and file.path.count("/") <= 2 and stem(file.path) not in images
    ]
    instances = {posixpath.dirname(path) for path in paths if posixpath.basename(path).startswith("instances")}
    for path in paths:
        folder, name = posixpath.split(path)
        if not panoptic and folder in instances and not name.startswith("instances"):
            continue  # captions, keypoints: the same images and people once more
        try:
            data = tree.read(path)
        except UserError:
            continue
        if all(word in data for word in _LISTS) and (b'"segments_info"' in data) == panoptic:
            yield path, data


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no JSON of the kind is there, or one is no strict JSON."""
    reader = Reader(tree, task, Pictures(tree))
    with reading.undisturbed():
        for path, data in sources(tree):
            reader.take(path, parse_json(data, where=f"{tree.root}: {path}"))
    if not reader.sources:
        raise UserError("holds no COCO annotations", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations()


@dataclass
class Image:
    """An image that is there, and what was found of it."""

    item: Item
    objects: list[Object]


@dataclass
class Reader:
    """Puts the files of a set together: classes agree by name, images by path."""

    tree: Tree
    task: str
    pictures: Pictures
    sources: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int | str] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, path: str, content: Any) -> None:
        """One file. Raises UserError where its lists are none."""
        self.sources.append(path)
        images, annotations, categories = (self._rows(path, content, key) for key in ("images", "annotations", "categories"))
        labels = self._take_categories(path, categories, annotations)
        known = self._take_images(path, images)
        seen: set[int | str] = set()
        for number, row in enumerate(annotations, 1):
            try:
                self._take_annotation(row, path, known, labels)
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"annotation {_called(row, number)}"))
            if (identity := _identity(row)) is None:
                continue
            if identity in seen:
                self.problems.append(Finding("repeated-id", path, f"annotation id {reading.shown(identity)} stands twice"))
            seen.add(identity)

    def _rows(self, path: str, content: Any, key: str) -> list[Any]:
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"must have {key}, a list", where=f"{self.tree.root}: {path}")
        return rows

    def _take_categories(self, path: str, rows: list[Any], annotations: list[Any]) -> dict[int | str, int]:
        """Id -> label, in order of id."""
        names: dict[int | str, str] = {}
        seen: set[str] = set()
        for number, row in enumerate(rows, 1):
            try:
                identity = key(row, "id")
                if identity in names:
                    raise Fault("duplicate-id", f"the id {reading.shown(identity)} stands twice")
                name = reading.name(row.get("name"))
                if name in seen:
                    self.problems.append(Finding("repeated-class", path, f"the class {reading.shown(name)} is named twice"))
                names[identity] = name
                seen.add(name)
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"category {_called(row, number)}"))
        if group := _group(rows, annotations):
            names = {identity: name for identity, name in names.items() if name != group}
            self.notes.append(f"{path}: {group!r} is the group of the other classes, as Roboflow writes it, and no class")
        order = sorted(names, key=lambda identity: (isinstance(identity, str), identity))
        for identity in order:
            self.ids.setdefault(names[identity], identity)
        return {identity: self.classes.setdefault(names[identity], len(self.classes)) for identity in order}

    def _take_images(self, path: str, rows: list[Any]) -> dict[int | str, Image | None]:
        """Id -> image; None for one that is not there."""
        split = split_of(path)
        folders = [*self.pictures.folders(split), posixpath.dirname(path), "", "images"]
        known: dict[int | str, Image | None] = {}
        for number, row in enumerate(rows, 1):
            try:
                identity, name = key(row, "id"), row.get("file_name")
                if identity in known:
                    raise Fault("duplicate-id", f"the id {reading.shown(identity)} stands twice")
                if not isinstance(name, str):
                    raise Fault("bad-annotation", "must have a file_name")
                known[identity] = None
                file = self.pictures.find(name, folders, split)
                if file is None:
                    raise Fault("missing-image", f"{reading.shown(name)} is not there")
                known[identity] = self._listed(path, split or split_of(posixpath.dirname(file.path)), file, row)
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"image {_called(row, number)}"))
        return known

    def _listed(self, path: str, split: str, file: File, row: Mapping[str, Any]) -> Image:
        if (image := self.images.get(file.path)) is not None:
            self.problems.append(Finding("repeated-image", path, f"{file.path} is listed twice, first in {image.item.where}"))
            return image
        size = reading.size(row.get("height"), row.get("width"))
        image = self.images[file.path] = Image(Item(file, split, size=size, where=path), [])
        return image

    def _image_of(self, row: Any, known: Mapping[int | str, Image | None]) -> Image | None:
        """The image of an annotation, None where that is not there; raises Fault."""
        if (identity := key(row, "image_id")) not in known:
            raise Fault("unknown-image", f"no image has the id {reading.shown(identity)}")
        return known[identity]

    def _take_annotation(self, row: Any, path: str, known: Mapping[int | str, Image | None], labels: Mapping[int | str, int]) -> None:
        image, category_id = self._image_of(row, known), key(row, "category_id")
        if image is None:
            return  # said of the image
        if category_id not in labels:
            raise Fault("unknown-class", f"no category has the id {reading.shown(category_id)}")
        box, shape = records.box(row.get("bbox")), records.shape(row.get("segmentation"), image.item.size)
        if box is None and shape is None:
            raise Fault("bad-annotation", "must have a bbox or a segmentation")
        one = Object(labels[category_id], box, shape, crowd=row.get("iscrowd") in (1, True))
        if self.task == "detect":
            one = shapes.boxed(one, image.item.size or (0, 0), self.tree)
        image.objects.append(one)

    def annotations(self) -> Annotations:
        """What was read."""
        items = tuple(replace(image.item, objects=tuple(image.objects)) for _, image in sorted(self.images.items()))
        notes = (*self.notes, *self.pictures.unnamed(items))
        outside = sum(item.image.outside for item in items)
        classes = tuple(self.classes)
        ids = tuple(one for name in classes if isinstance(one := self.ids[name], int) and abs(one) < LARGEST_ID)
        ids = ids if len(set(ids)) == len(classes) else ()  # texts, or numbers that files of one set do not agree about
        return Annotations("coco", self.task, classes, items, self.tree, tuple(self.problems), outside=outside, notes=notes, ids=ids)


def key(row: Any, key: str) -> int | str:
    """An id: an integer, or text as some tools write; raises Fault."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Fault("bad-annotation", f"must have {'an' if key[0] == 'i' else 'a'} {key}, was {reading.shown(value)}")
    return value


def _identity(row: Any) -> int | str | None:
    """The id of an annotation, which may be missing: nothing refers to it."""
    value = row.get("id") if isinstance(row, dict) else None
    return value if isinstance(value, int | str) else None


def _called(row: Any, number: int) -> str:
    identity = _identity(row)
    return f"at place {number}" if identity is None else reading.shown(identity)


def _group(rows: list[Any], annotations: list[Any]) -> str:
    """Roboflow lists the name of the project first, which every class has as its supercategory and no object has as its class; or ""."""
    first, *others = [row for row in rows if isinstance(row, dict)] or [{}]
    name = first.get("name")
    if not others or not isinstance(name, str) or any(row.get("supercategory") != name or row.get("name") == name for row in others):
        return ""
    used = any(isinstance(row, dict) and row.get("category_id") == first.get("id") for row in annotations)
    return "" if used or first.get("supercategory") != "none" else name


def write(annotations: Annotations, out: Output) -> None:
    """`annotations/instances_SPLIT.json` and `SPLIT/NAME`; without a split `annotations/instances.json` and `images/NAME`. Classes keep
    their ids, or have those from 1 on; what a model has found has a score, as in COCO's files of results."""
    ids = annotations.ids or tuple(range(1, len(annotations.classes) + 1))
    categories = [{"id": identity, "name": name} for identity, name in zip(ids, annotations.classes, strict=True)]
    for split, items in by_split(annotations.items).items() or {"": []}.items():
        for item in items:
            out.image(item, f"{split or 'images'}/{out.name(item)}")
        images, rows = _rows(items, annotations, ids, out)
        content = {"images": images, "annotations": rows, "categories": categories}
        # ASCII alone: a name that is no valid UTF-8 keeps its bytes as escapes, where raw bytes would be no JSON
        out.text(f"annotations/instances{'_' if split else ''}{split}.json", json.dumps(content, allow_nan=False))


def _rows(
    items: Iterable[Item], annotations: Annotations, ids: Sequence[int], out: Output
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, item in enumerate(items, 1):
        height, width = out.size(item)
        images.append({"id": number, "file_name": out.name(item), "height": height, "width": width})
        for one in item.objects:
            facts = {"id": len(rows) + 1, "image_id": number, "category_id": ids[one.label], "iscrowd": int(one.crowd)}
            sure = {} if one.score is None else {"score": one.score}
            rows.append(facts | _stated(one, (height, width), annotations) | sure)
    return images, rows


def _stated(one: Object, size: tuple[int, int], annotations: Annotations) -> dict[str, Any]:
    """Box, area and outline of an object. Run lengths of one that is no crowd are beyond COCO's own files, but all its tools take them."""
    left, top, right, bottom = shapes.box(one, size, annotations.tree)
    box = [left, top, right - left, bottom - top]
    if annotations.task == "detect" or one.shape is None:
        return {"bbox": box, "area": box[2] * box[3]}
    rle = shapes.rle(one, size, annotations.tree)
    return {"bbox": box, "area": float(run_lengths.covered(rle)), "segmentation": records.shape_of(one, size, annotations)}
