"""A table of labels: CSV or TSV, a row for each image, with a header of the usual names, or `path,label` without one.

- `image,label`: one class each. The same image in several rows is an error, unless they agree.
- `image,labels`: none, one or several, as a JSON list or with `|`, `;` or `,` between them (the first of these that stands in the column).
- `image,cat,dog,...`: a column of 0 and 1 (or -1 and 1) for each class; several at once where some row has another number than one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading, tables
from saccade.data.annotations import Annotations, Item
from saccade.data.findings import Finding
from saccade.data.formats import csv_boxes
from saccade.data.pictures import Pictures
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output

TASKS = ("classify",)
HOLDS = frozenset({"labels", "several labels", "splits"})
LOOKED_AT = 20  # rows of which one must name an image that is there
_SUFFIXES = (".csv", ".tsv")
_IMAGE = (*tables.IMAGE, "id")
_ONE = ("class_name", "label_name", "class", "label", "category", "target", "name", "species")
_SEVERAL = ("labels", "tags", "classes", "categories")
_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "-1": False, "-1.0": False, "": False}
_EXPECTED = "expected a CSV with columns such as image, label (or labels, or a column of 0 and 1 for each class)"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row things stand: label the class, or several of them with `several`; else `marks`, a column for each class."""

    image: int
    label: int = -1
    several: bool = False
    marks: Mapping[int, str] | None = None
    split: int = -1
    header: bool = True


def fits(tree: Tree) -> tuple[str, ...]:
    """Classification, where a table near the root has labels for images that are there."""
    return TASKS if any(True for _ in _tables(tree, Pictures(tree))) else ()


def _tables(tree: Tree, pictures: Pictures) -> Iterable[tuple[str, _Columns]]:
    """The tables of labels and their columns, by a look at their heads."""
    for path in tables.sources(tree, *_SUFFIXES):
        if "submission" in path.lower():
            continue  # the form for answers that a competition hands out: its labels mean nothing
        try:
            text = tables.head(tree, path)
            if not csv_boxes.columns_of(text) and (columns := _columns(text, path, pictures)):
                yield path, columns
        except UserError:
            continue


def _columns(text: str, path: str, pictures: Pictures) -> _Columns | None:
    """What the columns of a table are; None where they are no labels of images that are there."""
    rows = [row for _, row in tables.rows(text) if any(row)]
    if not rows:
        return None
    names = tables.header(rows[0])
    image, split = tables.find(names, _IMAGE), tables.find(names, tables.SPLIT)
    one, several = tables.find(names, _ONE), tables.find(names, _SEVERAL)
    if image < 0:
        plain = len(rows[0]) == 2 and bool(rows[0][1].strip())
        return _Columns(0, 1, header=False) if plain and tables.picture(pictures, path, rows[0][0], "")[0] else None
    if len(rows) > 1 and not any(_is_there(row, image, path, pictures) for row in rows[1:LOOKED_AT]):
        return None
    if max(one, several) >= 0 and max(one, several) != image:
        return _Columns(image, several if several >= 0 else one, several >= 0, split=split)
    marks = {place: rows[0][place].strip() for place in range(len(names)) if place not in (image, split)}
    marked = len(rows) > 1 and len(marks) > 1 and all(_is_marked(row, marks) for row in rows[1:])
    return _Columns(image, marks=marks, split=split) if marked else None


def _is_there(row: Sequence[str], image: int, path: str, pictures: Pictures) -> bool:
    return len(row) > image and tables.picture(pictures, path, row[image], "")[0] is not None


def _is_marked(row: Sequence[str], places: Iterable[int]) -> bool:
    return all(row[place].strip().lower() in _MARKS for place in places if place < len(row))


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there is no table of labels, or one is none to its end."""
    reader = _Reader(tree, Pictures(tree))
    with reading.undisturbed():
        for path, columns in _tables(tree, reader.pictures):
            reader.take(path, columns)
    if not reader.tables:
        raise UserError("holds no table of labels of images that are there", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations(task)


class _Reader:
    """Puts the tables of a set together."""

    def __init__(self, tree: Tree, pictures: Pictures) -> None:
        self.tree, self.pictures, self.tables = tree, pictures, 0
        self.items: dict[str, Item] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.declared: list[str] = []
        self.problems: list[Finding] = []
        self.several = False

    def take(self, path: str, columns: _Columns) -> None:
        """One table."""
        self.tables += 1
        self.declared += (columns.marks or {}).values()
        try:
            rows = [(line, row) for line, row in tables.rows(reading.decode(self.tree.read(path))) if any(row)][columns.header :]
        except UserError as error:
            raise UserError(error.message, where=f"{self.tree.root}: {path}, {error.where}") from None
        cells = [row[columns.label] if len(row) > columns.label else "" for _, row in rows] if columns.several else []
        separator = _separator(cells)
        columns = replace(columns, several=bool(separator) or not all(map(str.strip, cells)))
        self.several |= columns.several
        for line, row in rows:
            try:
                self._take(
                    path, line, [*row, *[""] * (max(columns.image, columns.label, columns.split) + 1 - len(row)), ""], columns, separator
                )
            except Fault as fault:
                self.problems.append(fault.at(path, line))

    def _take(self, path: str, line: int, cells: Sequence[str], columns: _Columns, separator: str) -> None:
        name = cells[columns.image]
        file, split = tables.picture(self.pictures, path, name, cells[columns.split])
        if file is None:
            raise Fault("missing-image", f"{reading.shown(name)} is not there")
        found = self._labels(cells, columns, separator)
        known = self.names.get(file.path)
        if known is not None and not columns.several:
            where = f"{self.items[file.path].where}:{self.items[file.path].line}"
            if known != found:
                said = f"{file.path} is labelled {', '.join(known) or 'nothing'} in {where} and {', '.join(found) or 'nothing'} here"
                raise Fault("conflicting-labels", f"{said}: a column for several of them must be called labels")
            raise Fault("repeated-image", f"{file.path} is in {where} too")
        self.names[file.path] = (*(known or ()), *(label for label in found if label not in (known or ())))
        self.items.setdefault(file.path, Item(file, split, where=path, line=line))

    def _labels(self, cells: Sequence[str], columns: _Columns, separator: str) -> tuple[str, ...]:
        """The classes that a row names; raises Fault."""
        if columns.marks:
            if max(columns.marks) >= len(cells) - 1:
                raise Fault("bad-annotation", f"must have {max(columns.marks) + 1} cells, was {len(cells) - 1}")
            words = {place: cells[place].strip().lower() for place in columns.marks}
            if wrong := next((word for word in words.values() if word not in _MARKS), None):
                raise Fault("bad-annotation", f"must be 0 or 1, was {reading.shown(wrong)}")
            found = tuple(name for place, name in columns.marks.items() if _MARKS[words[place]])
            self.several |= len(found) != 1
            return found
        cell = cells[columns.label]
        return _split(cell, separator) if columns.several else (reading.name(cell),)

    def annotations(self, task: str) -> Annotations:
        """What was read."""
        seen = {name for names in self.names.values() for name in names}
        classes = (*dict.fromkeys(self.declared), *sorted(seen - set(self.declared)))
        labels = {name: label for label, name in enumerate(classes)}
        items = tuple(
            replace(item, labels=tuple(sorted(labels[name] for name in self.names[path]))) for path, item in sorted(self.items.items())
        )
        outside = sum(item.image.outside for item in items)
        notes = self.pictures.unnamed(items)
        problems = tuple(self.problems)
        return Annotations("table", task, classes, items, self.tree, problems, outside=outside, multi=self.several, notes=notes)


def _separator(cells: Iterable[str]) -> str:
    """What stands between the labels of a column: "[" for JSON lists, "" where there is one label at most."""
    texts = [cell.strip() for cell in cells if cell.strip()]
    if texts and all(text[0] == "[" and text[-1] == "]" for text in texts):
        return "["
    return next((mark for mark in "|;," if any(mark in text for text in texts)), "")


def _split(cell: str, separator: str) -> tuple[str, ...]:
    """The labels in a cell, each once; raises Fault."""
    text: Any = cell.strip()
    if not text:
        return ()
    if separator == "[":
        try:
            found = parse_json(text if '"' in text else text.replace("'", '"'), where="")  # as Python writes lists
        except UserError as error:
            raise Fault("bad-annotation", f"must be a JSON list of labels: {error.message}") from None
        return tuple(dict.fromkeys(map(reading.name, found)))
    parts = text.split(separator) if separator else [text]
    return tuple(dict.fromkeys(reading.name(part.strip()) for part in parts if part.strip()))


def write(annotations: Annotations, out: Output) -> None:
    """`labels.csv` and `images/NAME`; labels as a JSON list where an image may have several."""
    rows: list[Sequence[str | float]] = [("image", "labels" if annotations.multi else "label", "split")]
    for item in annotations.items:
        names = [annotations.classes[label] for label in item.labels]
        if names or annotations.multi:
            out.image(item, f"images/{out.name(item)}")
            rows.append((f"images/{out.name(item)}", json.dumps(names) if annotations.multi else names[0], item.split))
    out.text("labels.csv", tables.written(rows))
