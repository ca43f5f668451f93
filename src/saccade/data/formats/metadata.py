"""Hugging Face's image folders: `metadata.jsonl` beside the images, a record a line with `file_name` (see `data.records`)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading, records, tables
from saccade.data.annotations import Annotations, Item
from saccade.data.pictures import Pictures
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output

TASKS = ("detect", "instances", "classify")
HOLDS = frozenset({"labels", "several labels", "boxes", "polygons", "masks", "crowd", "difficult", "splits"})
LOOKED_AT = 50  # records, to tell what they are
_IMAGE = ("file_name", "image", "image_path", "filename", "path")
_EXPECTED = 'expected metadata.jsonl beside the images, with lines such as {"file_name": "1.jpg", "label": "cat"}'


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks that the records can be read for, where the first of them name images that are there."""
    found: tuple[str, ...] = ()
    pictures = Pictures(tree)
    for path in tables.sources(tree, ".jsonl"):
        try:
            rows = [row for _, row in itertools.islice(_rows(tables.head(tree, path)), LOOKED_AT) if isinstance(row, dict)]
        except UserError:
            continue
        if any(_named(row) and tables.picture(pictures, path, _named(row), _word(row))[0] for row in rows):
            found = max(found, records.tasks(rows), key=len)
    return found


def _rows(text: str) -> Iterator[tuple[int, Any]]:
    """Records and their lines; a line that is no JSON comes as the error that says so."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, parse_json(line, where="")
            except UserError as error:
                yield number, error


def _named(row: dict[str, Any]) -> str:
    return next((row[key] for key in _IMAGE if isinstance(row.get(key), str)), "")


def _word(row: dict[str, Any]) -> str:
    return str(next((row[key] for key in tables.SPLIT if isinstance(row.get(key), str)), ""))


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no file of records is there."""
    pictures, found = Pictures(tree), records.Gathered(task, {}, tree)
    paths = tables.sources(tree, ".jsonl")
    if not paths:
        raise UserError("holds no records of images", where=str(tree.root), fix=_EXPECTED)
    with reading.undisturbed():
        for path in paths:
            for line, row in _rows(reading.decode(tree.read(path))):
                _take(found, pictures, path, line, row)
    outside = sum(item.image.outside for item in found.items.values())
    return found.annotations(Annotations("metadata", task, (), (), tree, outside=outside, notes=pictures.unnamed(found.items.values())))


def _take(found: records.Gathered, pictures: Pictures, path: str, line: int, row: Any) -> None:
    try:
        found.take(_item(pictures, path, line, row), row)
    except Fault as fault:
        found.problems.append(fault.at(path, line))


def _item(pictures: Pictures, path: str, line: int, row: Any) -> Item:
    """The image of a record; raises Fault."""
    if not isinstance(row, dict):
        raise Fault("bad-annotation", row.message if isinstance(row, UserError) else f"must be a record, was {reading.shown(row)}")
    if not (name := _named(row)):
        raise Fault("bad-annotation", "must have a file_name")
    file, split = tables.picture(pictures, path, name, _word(row))
    if file is None:
        raise Fault("missing-image", f"{reading.shown(name)} is not there")
    return Item(file, split, size=reading.size(row.get("height"), row.get("width")), where=path, line=line)


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT/metadata.jsonl` and `SPLIT/NAME`; `images/` where there is no split."""
    lines: dict[str, list[str]] = {}
    for item in annotations.items:
        name, folder = out.name(item), item.split or "images"
        out.image(item, f"{folder}/{name}")
        size = out.size(item) if item.objects else (0, 0)
        # ASCII alone: a name that is no valid UTF-8 keeps its bytes as escapes, where raw bytes would be no JSON
        facts = {"file_name": name, **records.stated(item, annotations, size)}
        lines.setdefault(folder, []).append(json.dumps(facts, allow_nan=False))
    for folder, found in lines.items():
        out.text(f"{folder}/metadata.jsonl", "".join(f"{line}\n" for line in found))
