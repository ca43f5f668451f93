"""Which value or colour of a mask is which class: legends in files of several kinds, or guessed from the values; and a palette."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from saccade.core import masks
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading
from saccade.data.annotations import Annotations, Legend
from saccade.data.tree import Tree

FILES = ("classes.txt", "labelmap.txt", "class_dict.csv", "classes.csv", "legend.csv", "classes.json")
VOID = 0xE0E0C0  # the colour of VOC's void (224, 224, 192)
UNSURE = 255  # the index of what belongs to no class, as VOC, Cityscapes and others have it
MOST = 255
LOOKED_AT = 2000  # masks whose values are found out where no legend tells them

Read = tuple[tuple[str, ...], Legend]


def read(tree: Tree, path: str) -> Read:
    """The classes, in the file's order, and the values of each; raises UserError for what is none of the kinds that `masks` lists."""
    text = reading.decode(tree.read(path))
    where = f"{tree.root}: {path}"
    if path.endswith(".json"):
        rows = _json_rows(parse_json(text, where=where), where)
    elif path.endswith(".csv"):
        rows = _csv_rows(text, where)
    elif path.endswith("labelmap.txt"):
        rows = _labelmap_rows(text, where)
    else:
        names = text.removesuffix("\n").split("\n") if text else []
        rows = [(name.strip("\r"), value) for value, name in enumerate(names)]
    return _legend(rows, where)


def _legend(rows: Sequence[tuple[str, int | tuple[int, ...]]], where: str) -> Read:
    names = [name for name, _ in rows]
    if not rows or not all(name.strip() for name in names):
        raise UserError("must name classes, but has none, or one without a name", where=where)
    if len(rows) > MOST:
        raise UserError(f"must have at most {MOST} classes, was {len(rows)}", where=where)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"names the class {twice!r} twice", where=where)
    colours = {isinstance(value, tuple) for _, value in rows}
    if len(colours) > 1:
        raise UserError("must give every class a colour, or every class an index", where=where)
    values = [(value[0] << 16 | value[1] << 8 | value[2]) if isinstance(value, tuple) else value for _, value in rows]
    if len(set(values)) < len(values):
        raise UserError("gives two classes the same value", where=where)
    coloured = colours == {True}
    ignored = {VOID} if coloured else {UNSURE}
    return tuple(names), Legend({value: label for label, value in enumerate(values)}, coloured, frozenset(ignored - set(values)))


def _labelmap_rows(text: str, where: str) -> list[tuple[str, int | tuple[int, ...]]]:
    rows: list[tuple[str, int | tuple[int, ...]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            rows.append((name.strip(), _colour(rest.partition(":")[0].split(","), f"{where}:{number}")))
    return rows


def _csv_rows(text: str, where: str) -> list[tuple[str, int | tuple[int, ...]]]:
    try:
        lines = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"must be a table: {error}", where=where) from None
    head = [cell.lower() for cell in lines[0]] if lines else []
    name = next((head.index(word) for word in ("name", "class", "label") if word in head), None)
    colour = [head.index(word) for words in (("r", "red"), ("g", "green"), ("b", "blue")) for word in words if word in head]
    value = next((head.index(word) for word in ("value", "index", "id") if word in head), None)
    if name is None or (len(colour) != 3 and value is None):
        raise UserError("must have a header with name and r, g, b, or with name and value", where=where)
    rows: list[tuple[str, int | tuple[int, ...]]] = []
    for number, row in enumerate(lines[1:], 2):
        if len(row) < len(head):
            raise UserError(f"must have {len(head)} cells, was {len(row)}", where=f"{where}:{number}")
        place = f"{where}:{number}"
        rows.append((row[name], _colour([row[k] for k in colour], place) if len(colour) == 3 else _index(row[value or 0], place)))
    return rows


def _json_rows(found: Any, where: str) -> list[tuple[str, int | tuple[int, ...]]]:
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return [(name, value) for value, name in enumerate(found)]
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        return [(name, _index(value, where)) for value, name in found.items()]
    if isinstance(found, dict) and all(isinstance(value, list) for value in found.values()):
        return [(name, _colour(list(map(str, value)), where)) for name, value in found.items()]
    if isinstance(found, dict) and all(isinstance(value, int) and not isinstance(value, bool) for value in found.values()):
        return [(name, _index(str(value), where)) for name, value in found.items()]
    raise UserError("must be a list of names, {value: name}, {name: value} or {name: [r, g, b]}", where=where)


def _colour(cells: Sequence[str], where: str) -> tuple[int, ...]:
    values = [_index(cell.strip(), where) for cell in cells]
    if len(values) != 3 or max(values) > 255:
        raise UserError(f"a colour must be three numbers from 0 to 255, was {','.join(cells)[:50]!r}", where=where)
    return tuple(values)


def _index(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"must be a whole number, was {text[:50]!r}", where=where)
    return int(text)


def guess(values: Sequence[int], *, where: str) -> Read:
    """Classes called by the values that occur (sorted): black and white, indices, or colours. Raises UserError for too many of them."""
    found = [value for value in values if value != UNSURE] if set(values) != {0, 255} else list(values)
    if not found:
        raise UserError("no mask can be read", where=where)
    if set(found) <= {0, 1} or set(found) == {0, 255}:
        white = 255 if 255 in found else 1
        return ("background", "foreground"), Legend({0: 0, white: 1}, ignored=frozenset() if white == 255 else frozenset({UNSURE}))
    if len(found) > MOST:
        fix = "masks must be lossless pictures (PNG) of class indices; for masks of single objects see --task instances"
        raise UserError(f"masks hold {len(found):,} different values, more than classes could be", where=where, fix=fix)
    if max(found) > 0xFFFF:  # colours
        names = [f"#{value:06x}" for value in found]
        kept = [(name, value) for name, value in zip(names, found, strict=True) if value != VOID]
        return tuple(name for name, _ in kept), Legend({v: k for k, (_, v) in enumerate(kept)}, True, frozenset({VOID}))
    return tuple(map(str, found)), Legend({value: label for label, value in enumerate(found)}, ignored=frozenset({UNSURE} - set(found)))


def declared(annotations: Annotations, paths: Sequence[str]) -> Annotations:
    """The set where the masks at `paths` hold the indices of its classes; where it declares none, they are the values that occur."""
    if annotations.classes:
        check_writable(annotations)
        values = {label: label for label in range(len(annotations.classes))}
        return replace(annotations, legend=Legend(values, ignored=frozenset({UNSURE} - values.keys())))
    classes, legend, notes = of_masks(annotations.tree, paths)
    return replace(annotations, classes=classes, legend=legend, notes=(*annotations.notes, *notes))


def of_masks(tree: Tree, paths: Sequence[str]) -> tuple[tuple[str, ...], Legend, tuple[str, ...]]:
    """Classes and how pixels name them, from the masks at `paths` where no file tells; and notes. Raises UserError as `guess`."""
    chosen = np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).astype(int)).tolist() if paths else []
    looked_at = [paths[place] for place in chosen]
    values = _values(tree, looked_at)
    if values and max(values) > 0xFFFF:  # a colour: then grey pixels are colours too
        values = _values(tree, looked_at, colours=True)
    few = () if len(chosen) == len(paths) else (f"classes are those of {len(chosen):,} of {len(paths):,} masks",)
    return (*guess(values, where=str(tree.root)), few)


def _values(tree: Tree, paths: Sequence[str], *, colours: bool = False) -> list[int]:
    """Those that occur in the masks, sorted; one that cannot be read is found when the images are."""

    def of(path: str) -> set[int]:
        try:
            found: list[int] = np.unique(masks.read(tree.image(path), colours=colours, max_pixels=tree.max_pixels)).tolist()
        except UserError:
            return set()
        return set(found)

    with ThreadPoolExecutor(2) as pool:
        return sorted(set().union(*pool.map(of, paths)))


def check_writable(annotations: Annotations) -> None:
    """Raise UserError where a picture of indices cannot hold the classes of a set."""
    if len(annotations.classes) > MOST:
        raise UserError(f"a mask holds at most {MOST} classes, this set has {len(annotations.classes)}")
