"""A table of boxes: CSV, a row for each, with a header of the usual names, or as keras-retinanet's `path,x1,y1,x2,y2,class` without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saccade.core.errors import UserError
from saccade.data import reading, shapes, tables
from saccade.data.annotations import Annotations, Box, Item, Object
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output

TASKS = ("detect",)
HOLDS = frozenset({"boxes", "splits"})
_EDGES = (
    ("xmin", "x1", "x_min", "left"),
    ("ymin", "y1", "y_min", "top"),
    ("xmax", "x2", "x_max", "right"),
    ("ymax", "y2", "y_max", "bottom"),
)
_CORNER = (
    ("x", "left", "xmin", "x_min", "bbox_x"),
    ("y", "top", "ymin", "y_min", "bbox_y"),
    ("width", "w", "bbox_width"),
    ("height", "h", "bbox_height"),
)
_HEADER = ("image", "xmin", "ymin", "xmax", "ymax", "class", "split")
_EXPECTED = "expected a CSV with columns such as image, xmin, ymin, xmax, ymax, class"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row things stand; box: four places, its last two width and height where `sized`; -1 for what is not there."""

    image: int
    box: tuple[int, int, int, int]
    name: int
    split: int = -1
    size: tuple[int, int] = (-1, -1)
    sized: bool = False
    header: bool = True


def fits(tree: Tree) -> tuple[str, ...]:
    """Detection, where a table near the root has columns of boxes."""
    for path in tables.sources(tree, ".csv"):
        try:
            if columns_of(tables.head(tree, path)):
                return TASKS
        except UserError:
            continue
    return ()


def columns_of(text: str) -> _Columns | None:
    """What the columns are, by the header or by what stands in the first rows; None where they are not of boxes."""
    rows = tables.rows(text)
    try:
        first = next((row for _, row in rows if row), [])
    except UserError:
        return None
    names = tables.header(first)
    image, label = tables.find(names, (*tables.IMAGE, "source")), tables.find(names, tables.CLASS)  # a source: as `predict` writes
    if image >= 0 and label >= 0:
        edges = tuple(tables.find(names, choices) for choices in _EDGES)
        corner = tuple(tables.find(names, choices) for choices in _CORNER)
        split = tables.find(names, tables.SPLIT)
        if min(edges) >= 0:
            left, top, right, bottom = edges
            size = (tables.find(names, ("height", "image_height")), tables.find(names, ("width", "image_width")))
            return _Columns(image, (left, top, right, bottom), label, split, size)
        if min(corner) >= 0:
            left, top, right, bottom = corner
            size = (tables.find(names, ("image_height",)), tables.find(names, ("image_width",)))
            return _Columns(image, (left, top, right, bottom), label, split, size, sized=True)
    plain = len(first) == 6 and (not any(first[1:]) or (_is_box(first[1:5]) and bool(first[5].strip())))
    return _Columns(0, (1, 2, 3, 4), 5, header=False) if plain else None


def _is_box(cells: Sequence[str]) -> bool:
    try:
        return all(reading.number(cell) is not None for cell in cells)
    except Fault:
        return False


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there is no table of boxes, or one is none to its end."""
    reader = _Reader(tree, Pictures(tree))
    with reading.undisturbed():
        for path in tables.sources(tree, ".csv"):
            text = reading.decode(tree.read(path))
            if columns := columns_of(text):
                reader.take(path, text, columns)
    if not reader.tables:
        raise UserError("holds no table of boxes", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations(task)


class _Reader:
    """Puts the tables of a set together."""

    def __init__(self, tree: Tree, pictures: Pictures) -> None:
        self.tree, self.pictures, self.tables = tree, pictures, 0
        self.items: dict[str, Item] = {}
        self.objects: dict[str, list[tuple[str, Box, int]]] = {}
        self.problems: list[Finding] = []
        self._found: dict[tuple[str, str], str] = {}

    def take(self, path: str, text: str, columns: _Columns) -> None:
        """One table."""
        self.tables += 1
        try:
            for number, (line, row) in enumerate(tables.rows(text)):
                if row and not (columns.header and number == 0):
                    self._take(path, line, row, columns)
        except UserError as error:
            raise UserError(error.message, where=f"{self.tree.root}: {path}, {error.where}") from None

    def _take(self, path: str, line: int, row: list[str], columns: _Columns) -> None:
        cells = [*row, *[""] * (max(columns.image, *columns.box, columns.name, columns.split, *columns.size) + 1 - len(row)), ""]
        try:
            place = self._image(path, line, cells, columns)
            if place:
                self._box(place, line, cells, columns)
        except Fault as fault:
            self.problems.append(fault.at(path, line))

    def _image(self, path: str, line: int, cells: list[str], columns: _Columns) -> str:
        """The path of a row's image; "" for one that was missed before."""
        name, word = cells[columns.image], cells[columns.split]
        if (place := self._found.get((path, name))) is not None:
            return place
        file, split = tables.picture(self.pictures, path, name, word)
        self._found[path, name] = file.path if file else ""
        if file is None:
            raise Fault("missing-image", f"{reading.shown(name)} is not there")
        if (other := self.items.get(file.path)) and other.where != path:
            self._found[path, name] = ""
            raise Fault("repeated-image", f"{file.path} is in {other.where} too, which counts")
        size = reading.text_size(cells[columns.size[0]], cells[columns.size[1]])
        self.items.setdefault(file.path, Item(file, split, size=size, where=path, line=line))
        self.objects.setdefault(file.path, [])
        return file.path

    def _box(self, place: str, line: int, cells: list[str], columns: _Columns) -> None:
        """The box of a row, if it has one; raises Fault."""
        stated, name = [cells[column] for column in columns.box], cells[columns.name]
        if not any(cell.strip() for cell in (*stated, name)):
            return
        left, top, right, bottom = reading.finite(tuple(reading.number(cell) for cell in stated))
        if columns.sized:
            right, bottom = reading.finite((left + right, top + bottom))
        self.objects[place].append((reading.name(name), (left, top, right, bottom), line))

    def annotations(self, task: str) -> Annotations:
        """What was read."""
        classes = tuple(sorted({name for objects in self.objects.values() for name, *_ in objects}))
        labels = {name: label for label, name in enumerate(classes)}
        items = tuple(
            replace(item, objects=tuple(Object(labels[name], box, line=line) for name, box, line in self.objects[path]))
            for path, item in sorted(self.items.items())
        )
        outside = sum(item.image.outside for item in items)
        edges = [edge for item in items for one in item.objects for edge in one.box or ()]
        small = edges and max(edges) <= 1 and any(edge % 1 for edge in edges)
        notes = ("all boxes lie within 0 to 1 and are read as pixels: are they fractions?",) if small else ()
        notes = (*notes, *self.pictures.unnamed(items))
        return Annotations("csv", task, classes, items, self.tree, tuple(self.problems), outside=outside, notes=notes)


def write(annotations: Annotations, out: Output) -> None:
    """`annotations.csv` and `images/NAME`; an image without boxes has a row without one."""
    rows: list[Sequence[str | float]] = [_HEADER]
    for item in annotations.items:
        name = f"images/{out.name(item)}"
        out.image(item, name)
        size = (0, 0) if all(one.box for one in item.objects) else out.size(item)
        for one in item.objects:
            edges = map(float, shapes.box(one, size, annotations.tree))
            rows.append([name, *edges, annotations.classes[one.label], item.split])
        if not item.objects:
            rows.append([name, "", "", "", "", "", item.split])
    out.text("annotations.csv", tables.written(rows))
