"""Which value or colour of a mask is which class: legends in files of several kinds, or guessed from the values; and a palette."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from saccade.core import masks
from saccade.core.class_masks import BAND
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.data import reading
from saccade.data.annotations import Annotations, Legend
from saccade.data.tree import Tree
from saccade.data.writing import Output

CLASSES = "classes.txt"
FILES = (CLASSES, "labelmap.txt", "class_dict.csv", "classes.csv", "legend.csv", "classes.json")
VOID = 0xE0E0C0  # the colour of VOC's void (224, 224, 192)
UNSURE = 255  # the index of what belongs to no class, as VOC, Cityscapes and others have it; white where masks are black and white
WHITE_16 = 0xFFFF  # that of 16 bits
NEAR = 32  # tones that are less apart are nearly the same
SEVERAL, NEARLY_ALL = 6, 0.9  # tones from which on black and white have run together, and share of the pixels that are nearly either
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
        rows = [(name, value) for value, name in enumerate(_lines(text))]
    return _legend(rows, where)


def listed(tree: Tree) -> tuple[str, ...]:
    """The lines of `classes.txt`, which name the classes by their numbers from 0; () where there is none."""
    return _lines(reading.decode(tree.read(CLASSES))) if tree.find(CLASSES) else ()


def write_list(classes: Sequence[str], out: Output) -> None:
    """`classes.txt`, as `listed` reads it."""
    out.text(CLASSES, "".join(f"{name}\n" for name in classes))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip("\r") for line in text.removesuffix("\n").split("\n")) if text else ()


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


def guess(counts: Mapping[int, int], *, where: str) -> Read:
    """Classes called by the values that occur, of which `counts` has the pixels: black and white, indices, grey tones, or colours. Raises
    UserError for too many of them."""
    if two := _two_toned(counts):
        return ("background", "foreground"), two
    values = sorted(counts)
    coloured = bool(values) and values[-1] > 0xFFFF
    found = values if coloured or _tones(values) else [value for value in values if value != UNSURE]  # which as a colour is blue
    if not found:
        said = "no mask can be read" if not counts else f"all pixels of all masks are {UNSURE}, which stands for what is of no class"
        raise UserError(said, where=where)
    if len(found) > MOST:
        fix = "masks must be lossless pictures (PNG) of class indices; for masks of single objects see --task instances"
        raise UserError(f"masks hold {len(found):,} different values, more than classes could be", where=where, fix=fix)
    if coloured:
        kept = [value for value in found if value != VOID]
        return tuple(f"#{value:06x}" for value in kept), Legend({value: k for k, value in enumerate(kept)}, True, frozenset({VOID}))
    return tuple(map(str, found)), Legend({value: label for label, value in enumerate(found)}, ignored=frozenset({UNSURE} - set(found)))


def _two_toned(counts: Mapping[int, int]) -> Legend | None:
    """That of black and white, in which black is the first class: 0 and 1, beside which 255 does not count; 0 and the largest value of 8 or
    16 bits; or what has run together as `_run_together` says."""
    found = counts.keys() - {UNSURE}
    if found and found <= {0, 1}:
        return Legend({0: 0, 1: 1}, ignored=frozenset({UNSURE})) if counts.keys() != {0, UNSURE} else Legend({0: 0, UNSURE: 1})
    if counts.keys() == {0, WHITE_16}:
        return Legend({0: 0, WHITE_16: 1})
    return Legend({value: int(value > UNSURE // 2) for value in range(UNSURE + 1)}) if _run_together(counts) else None


def _run_together(counts: Mapping[int, int]) -> bool:
    """Whether masks are black and white with tones between, as JPEG and smooth scaling leave them: nearly all pixels are nearly black or
    white, both occur, and there are tones that are light, which indices are not."""
    if len(counts) < SEVERAL or max(counts) > UNSURE or not any(UNSURE - 2 * NEAR < value < UNSURE for value in counts):
        return False
    black = sum(count for value, count in counts.items() if value < NEAR)
    white = sum(count for value, count in counts.items() if value > UNSURE - NEAR)
    return min(black, white) > 0 and black + white >= NEARLY_ALL * sum(counts.values())


def _tones(values: Sequence[int]) -> bool:
    """Whether sorted values are grey tones that are easily told apart, of which white is one: indices stand closer."""
    return len(values) > 2 and values[-1] == UNSURE and min(b - a for a, b in itertools.pairwise(values)) >= NEAR


def as_found(read: Read, tree: Tree, paths: Sequence[str]) -> tuple[tuple[str, ...], Legend, tuple[str, ...]]:
    """The classes and legend as they were read, and a note: of two classes with the indices 0 and 1 whose masks at `paths` turn out to be
    black and white, in which no pixel would be of the second, white is that. Pictures with a palette hold indices."""
    classes, legend = read
    if legend.colours or dict(legend.values) != {0: 0, 1: 1}:
        return classes, legend, ()
    counts = Counter[int]()
    for path in _spread(paths):
        found = _counted(tree, path)
        if (1 in found and found.keys() <= {0, 1, UNSURE}) or (found and masks.has_palette(tree.image(path), tree.max_pixels)):
            return classes, legend, ()  # mostly the first that is looked at
        counts.update(found)
    two = _two_toned(counts)
    if two is None or two.values == legend.values:
        return classes, legend, ()
    return classes, two, (f"masks are black and white: black is {classes[0]}, white {classes[1]}",)


def declared(annotations: Annotations, paths: Sequence[str]) -> Annotations:
    """The set where the masks at `paths` hold the indices of its classes; where it declares none, they are the values that occur."""
    if annotations.classes:
        check_writable(annotations)
        values = {label: label for label in range(len(annotations.classes))}
        read = annotations.classes, Legend(values, ignored=frozenset({UNSURE} - values.keys()))
        _, legend, notes = as_found(read, annotations.tree, paths)
        return replace(annotations, legend=legend, notes=(*annotations.notes, *notes))
    classes, legend, notes = of_masks(annotations.tree, paths)
    return replace(annotations, classes=classes, legend=legend, notes=(*annotations.notes, *notes))


def of_masks(tree: Tree, paths: Sequence[str]) -> tuple[tuple[str, ...], Legend, tuple[str, ...]]:
    """Classes and how pixels name them, from the masks at `paths` where no file tells; and notes. Raises UserError as `guess`."""
    looked_at = _spread(paths)
    counts = _counts(tree, looked_at)
    if counts and max(counts) > 0xFFFF:  # a colour: then grey pixels are colours too
        counts = _counts(tree, looked_at, colours=True)
    notes = () if len(looked_at) == len(paths) else (f"classes are those of {len(looked_at):,} of {len(paths):,} masks",)
    if _run_together(counts):
        notes = (*notes, f"masks are black and white with {len(counts) - 2:,} tones between: light ones are foreground")
    elif _tones(sorted(counts)):
        notes = (*notes, f"masks hold {len(counts)} grey tones, each of which is a class, white too")
    return (*guess(counts, where=str(tree.root)), notes)


def _spread(paths: Sequence[str]) -> list[str]:
    """Those that are looked at, LOOKED_AT at most."""
    return [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).astype(int)).tolist()] if paths else []


def _counts(tree: Tree, paths: Sequence[str], *, colours: bool = False) -> Counter[int]:
    """How many pixels of the masks have each value; one that cannot be read is found when the images are."""
    total = Counter[int]()
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda path: _counted(tree, path, colours=colours), paths):
            total.update(found)
    return total


def _counted(tree: Tree, path: str, *, colours: bool = False) -> Counter[int]:
    """Of one mask; of none that cannot be read."""
    try:
        values = masks.read(tree.image(path), colours=colours, max_pixels=tree.max_pixels)
    except UserError:
        return Counter()
    total, rows = Counter[int](), max(1, BAND // values.shape[1])
    for top in range(0, len(values), rows):
        found, often = np.unique(values[top : top + rows], return_counts=True)
        total.update(dict(zip(found.tolist(), often.tolist(), strict=True)))
    return total


def check_writable(annotations: Annotations) -> None:
    """Raise UserError where a picture of indices cannot hold the classes of a set."""
    if len(annotations.classes) > MOST:
        raise UserError(f"a mask holds at most {MOST} classes, this set has {len(annotations.classes)}")
