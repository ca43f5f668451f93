"""Tables of text, as spreadsheets and scripts write them: rows, columns by their usual names, and no formulas."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from saccade.core.errors import UserError
from saccade.data import reading
from saccade.data.pictures import SPLITS, Pictures, split_of
from saccade.data.tree import File, Tree

LOOKED_AT = 1 << 16  # bytes of a table, to tell what it is
IMAGE = ("image", "filename", "file_name", "image_path", "path", "file", "filepath", "image_name", "img", "image_id", "imageid", "id_code")
CLASS = ("class", "label", "name", "category", "class_name", "label_name", "labelname")
SPLIT = ("split", "subset", "set")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def sources(tree: Tree, *endings: str) -> list[str]:
    """Tables near the root, by their names' endings."""
    return [file.path for file in tree.files("", deep=True) if file.path.lower().endswith(endings) and file.path.count("/") <= 2]


def head(tree: Tree, path: str) -> str:
    """The first lines of a file, whole ones where it is long."""
    data = tree.read(path)
    return reading.decode(data if len(data) <= LOOKED_AT else data[:LOOKED_AT].rpartition(b"\n")[0] or data[:LOOKED_AT])


def rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows and the line each ends at, by commas, semicolons or tabs; raises UserError for what no table can hold."""
    first = text[:LOOKED_AT].partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        for row in reader:
            yield reader.line_num, [_plain(cell) for cell in row]
    except csv.Error as error:
        raise UserError(f"not a valid CSV: {error}", where=f"line {reader.line_num}") from None


def header(row: Iterable[str]) -> list[str]:
    """Names of columns as they are looked for."""
    return [cell.strip().lower().replace(" ", "_") for cell in row]


def find(names: Sequence[str], choices: Sequence[str]) -> int:
    """The first of the choices that is a column, as its place; -1 where none is."""
    return next((names.index(choice) for choice in choices if choice in names), -1)


def picture(pictures: Pictures, table: str, name: str, word: str) -> tuple[File | None, str]:
    """The image that a row calls `name`, perhaps without its suffix, and its split: that of the row's `word`, else the table's own."""
    split = SPLITS.get(word.strip().lower(), "") or split_of(table)
    beside = posixpath.dirname(table)
    folders = [beside, "", "images", posixpath.join(beside, "images"), *pictures.folders(split)]
    if not name.strip():
        return None, split
    file = pictures.find(name, folders, split if not word.strip() else "")
    if file is None and not posixpath.splitext(name)[1]:
        file = pictures.beside(name, folders) or pictures.of_stem(name)
    return file, split or (split_of(posixpath.dirname(file.path)) if file else "")


def written(lines: Iterable[Sequence[str | float]]) -> str:
    """A CSV whose text a spreadsheet takes for text."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([safe(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    return text.getvalue()


def safe(cell: str) -> str:
    """Text that a spreadsheet would take for a formula, with a ' before it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _plain(cell: str) -> str:
    """Without the ' that keeps a spreadsheet from taking text for a formula."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell
