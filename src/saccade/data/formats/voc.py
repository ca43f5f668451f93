"""Pascal VOC XML: boxes (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf).

`Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`; or the XMLs beside the images, in folders of splits (Roboflow).

The development kit counts pixels from 1, and xmax and ymax belong to the box (its overlap is computed from x2 - x1 + 1): the box covers
xmin - 1 to xmax here. Many tools write edges from 0 instead. An edge at 0 cannot be of the first kind, so it tells for the whole set.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saccade.core.errors import UserError, one_line
from saccade.data import reading, shapes
from saccade.data.annotations import Annotations, Box, Item, Object
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TASKS = ("detect",)
HOLDS = frozenset({"boxes", "difficult", "splits"})
LOOKED_AT = 5
_ROOT = re.compile(rb"<annotation[\s>]")
_OBJECT = re.compile(rb"<object>")
_LIST = re.compile(r"(?:(.*)/)?ImageSets/Main/(train|trainval|val|valid|test)\.txt")
_SPLITS = ("train", "val", "valid", "test", "trainval")  # trainval is for what no other list has
_EXPECTED = "expected Annotations/*.xml with JPEGImages/ beside it, or the XMLs beside the images"


def fits(tree: Tree) -> tuple[str, ...]:
    """Detection, where one of the first XML files is an annotation."""
    for path in _sources(tree)[:LOOKED_AT]:
        try:
            if _ROOT.search(tree.read(path)):
                return TASKS
        except UserError:
            continue
    return ()


def _sources(tree: Tree) -> list[str]:
    return [file.path for file in tree.files("", deep=True) if file.path.lower().endswith(".xml")]


@dataclass
class _Sheet:
    """One XML, its boxes as they stand there."""

    path: str
    file: File
    split: str
    size: tuple[int, int] | None
    objects: list[tuple[str, Box, bool, int]] = field(default_factory=list)


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there is no annotation at all."""
    pictures = Pictures(tree)
    problems: list[Finding] = []
    splits = _splits(tree, pictures, problems)
    with reading.undisturbed():
        sheets = [sheet for path in _sources(tree) if (sheet := _sheet(tree, path, pictures, splits, problems))]
    if not sheets and not problems:
        raise UserError("holds no VOC annotations", where=str(tree.root), fix=_EXPECTED)
    classes = tuple(sorted({name for sheet in sheets for name, *_ in sheet.objects}))
    from_zero = any(0 <= box[0] < 1 or 0 <= box[1] < 1 for sheet in sheets for _, box, _, _ in sheet.objects)
    items: dict[str, Item] = {}
    for sheet in sheets:
        if sheet.file.path in items:
            problems.append(Finding("repeated-image", sheet.path, f"{sheet.file.path} has another XML: {items[sheet.file.path].where}"))
            continue
        items[sheet.file.path] = _item(sheet, {name: label for label, name in enumerate(classes)}, 0 if from_zero else 1)
    found = tuple(item for _, item in sorted(items.items()))
    notes = ("boxes are read as counted from 0, since some begin there: VOC itself counts from 1",) if from_zero else ()
    outside = sum(item.image.outside for item in found)
    return Annotations("voc", task, classes, found, tree, tuple(problems), outside=outside, notes=(*notes, *pictures.unnamed(found)))


def _item(sheet: _Sheet, labels: dict[str, int], first: int) -> Item:
    objects = tuple(
        Object(labels[name], (box[0] - first, box[1] - first, box[2], box[3]), difficult=difficult, line=line)
        for name, box, difficult, line in sheet.objects
    )
    return Item(sheet.file, sheet.split, objects=objects, size=sheet.size, where=sheet.path)


def _splits(tree: Tree, pictures: Pictures, problems: list[Finding]) -> dict[tuple[str, str], str]:
    """(folder that ImageSets stands in, stem of an image) -> split, of the lists of images."""
    lists = [(_SPLITS.index(found[2]), found[1] or "", file.path) for file in pictures.files if (found := _LIST.fullmatch(file.path))]
    stems = {stem(posixpath.basename(path)) for path in pictures.images}
    splits: dict[tuple[str, str], str] = {}
    for _, base, path in sorted(lists):
        split = split_of(stem(posixpath.basename(path))) or "train"
        for number, line in enumerate(reading.decode(tree.read(path)).splitlines(), 1):
            name = next((name for name in (line, line.strip(), line.partition(" ")[0]) if name in stems), line.strip())
            if name and name not in stems:
                problems.append(Finding("missing-image", path, f"{reading.shown(name)} is listed, but not there", number))
            elif name and splits.setdefault((base, name), split) != split and not path.endswith("/trainval.txt"):
                problems.append(Finding("repeated-image", path, f"{reading.shown(name)} is in {splits[base, name]} too", number))
    return splits


def _sheet(tree: Tree, path: str, pictures: Pictures, splits: dict[tuple[str, str], str], problems: list[Finding]) -> _Sheet | None:
    """One XML and its image; None where it is no annotation, cannot be read, or has no image."""
    data = tree.read(path)
    try:
        root = reading.parse_xml(data)
        if root.tag != "annotation":
            return None
        folder, base = posixpath.dirname(path), posixpath.dirname(posixpath.dirname(path))
        near = [folder, *(posixpath.join(base, name) for name in ("JPEGImages", "images", "Images")), base]
        named = one_line(root.findtext("filename") or "")
        file = pictures.beside(path, near) or (pictures.find(named, near) if named else None) or pictures.of_stem(path)
        if file is None:
            raise Fault("missing-image", f"its image is not there: {reading.shown(named or posixpath.basename(stem(path)))}")
    except Fault as fault:
        problems.append(fault.at(path))
        return None
    own = stem(posixpath.basename(file.path))
    split = splits.get((base, own)) or splits.get((folder, own)) or ("" if splits else split_of(posixpath.dirname(file.path)))
    size = reading.text_size(root.findtext("size/height"), root.findtext("size/width"))
    sheet = _Sheet(path, file, split, size)
    for element, line in _objects(root, data):
        try:
            sheet.objects.append((*_object(element), line))
        except Fault as fault:
            problems.append(fault.at(path, line))
    return sheet


def _objects(root: Element, data: bytes) -> Iterator[tuple[Element, int]]:
    """The objects and their lines."""
    found = root.findall("object")
    return zip(found, reading.lines_of(data, _OBJECT, len(found)), strict=True)


def _object(element: Element) -> tuple[str, Box, bool]:
    """Class, box as it stands, whether difficult; raises Fault."""
    name = reading.name(element.findtext("name"))
    box = element.find("bndbox")
    stated = {edge.tag: edge.text for edge in (() if box is None else box)}
    edges = [stated.get(edge) for edge in ("xmin", "ymin", "xmax", "ymax")]
    if None in edges:
        raise Fault("bad-annotation", "must have a bndbox with xmin, ymin, xmax and ymax, each a number")
    return name, reading.box(tuple(reading.number(edge or "") for edge in edges)), (element.findtext("difficult") or "").strip() == "1"


def write(annotations: Annotations, out: Output) -> None:
    """`Annotations/STEM.xml`, `JPEGImages/NAME`, and `ImageSets/Main/SPLIT.txt` for the images that have one."""
    splits: dict[str, list[str]] = {}
    for item in annotations.items:
        name = out.name(item)
        out.image(item, f"JPEGImages/{name}")
        out.text(f"Annotations/{stem(name)}.xml", _document(item, name, annotations, out))
        if item.split:
            splits.setdefault(item.split, []).append(stem(name))
    for split, stems in splits.items():
        out.text(f"ImageSets/Main/{split}.txt", "".join(f"{one}\n" for one in stems))


def _document(item: Item, name: str, annotations: Annotations, out: Output) -> str:
    height, width = out.size(item)
    lines = ["<annotation>", f"\t<filename>{reading.xml_text(name)}</filename>"]
    lines += ["\t<size>", f"\t\t<width>{width}</width>", f"\t\t<height>{height}</height>", "\t\t<depth>3</depth>", "\t</size>"]
    for one in item.objects:
        left, top, right, bottom = shapes.box(one, (height, width), annotations.tree)
        edges = {"xmin": _from_one(left), "ymin": _from_one(top), "xmax": right, "ymax": bottom}
        lines += [
            "\t<object>",
            f"\t\t<name>{reading.xml_text(annotations.classes[one.label])}</name>",
            f"\t\t<difficult>{int(one.difficult)}</difficult>",
        ]
        lines += ["\t\t<bndbox>", *(f"\t\t\t<{edge}>{_number(value)}</{edge}>" for edge, value in edges.items()), "\t\t</bndbox>"]
        lines.append("\t</object>")
    return "\n".join([*lines, "</annotation>", ""])


def _from_one(edge: float) -> float:
    """Counted from 1. What begins less than a pixel before the image begins with it, since 0 would tell of another way to count."""
    return 1.0 if -1 <= edge < 0 else edge + 1


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
