"""Images inside of Parquet files, as a tree: `FILE/ROW/NAME` is the image of a row, `FILE/ROW/mask/NAME` its mask."""

from __future__ import annotations

import posixpath
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.errors import UserError, one_line
from saccade.core.images import MAX_PIXELS
from saccade.data.tree import File, Tree

SUFFIX = ".parquet"
MOST_ROWS = 10_000_000
KEPT_BYTES = 512 << 20  # of row groups that were read last
GROUP_BYTES = 4 << 30
_PLACE = re.compile(r"(.+)/(\d+)/(mask/)?[^/]+", re.DOTALL)


@contextmanager
def checked(where: str) -> Iterator[None]:
    """What pyarrow raises for what is no Parquet file, as one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError, TypeError, KeyError) as error:
        raise UserError(f"is no Parquet file, or a damaged one: {one_line(str(error))[:200]}", where=where) from None


def open_file(tree: Tree, path: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`; raises UserError where there is none, or where pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        fix = "pip install 'saccade[parquet]'"
        raise UserError("reading Parquet needs pyarrow, which is not installed", where=f"{tree.root}: {path}", fix=fix) from None
    source = tree.image(path)
    with checked(f"{tree.root}: {path}"):
        file = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source)
        facts = file.metadata
        if facts.num_rows > MOST_ROWS:
            raise UserError(f"must hold at most {MOST_ROWS:,} rows, was {facts.num_rows:,}", where=f"{tree.root}: {path}")
        for group in range(facts.num_row_groups):
            if not 0 <= facts.row_group(group).total_byte_size <= GROUP_BYTES:
                raise UserError(f"must have row groups of at most {GROUP_BYTES >> 30} GiB", where=f"{tree.root}: {path}")
        return file


def image_columns(file: Any) -> dict[str, bool]:
    """The columns that hold encoded pictures, and whether each is a record of bytes and path (as Hugging Face writes them)."""
    import pyarrow as pa

    found = {}
    for column in file.schema_arrow:
        kind = column.type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found[column.name] = False
        elif pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(k).name for k in range(kind.num_fields)}:
            found[column.name] = True
    return found


class ParquetTree:
    """The files of a set, with the pictures in its Parquet files (`tree.Tree`). Safe to read from several threads.

    columns: by file, the column of images and that of masks ("" where there is none). A row group is read as a whole, and the last few are
    kept: rows in order are fast, others take as long as their group.
    """

    max_pixels = MAX_PIXELS

    def __init__(self, tree: Tree, columns: dict[str, tuple[str, str]]) -> None:
        self.root = tree.root
        self._tree, self._columns = tree, columns
        self._open: dict[str, tuple[Any, NDArray[np.int64]]] = {}
        self._kept: OrderedDict[tuple[str, int, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def folders(self, path: str = "") -> list[str]:
        return self._tree.folders(path)

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        return self._tree.files(path, deep=deep)

    def find(self, path: str) -> File | None:
        place = self._place(path)
        if place is None:
            return self._tree.find(path)
        file = self._tree.find(place[0])
        return file and self.row(file, path, self._opened(place[0])[0].metadata.num_rows)

    @staticmethod
    def row(file: File, path: str, rows: int) -> File:
        """The file that stands for a picture: its share of the Parquet file, and as old."""
        return File(path, file.bytes // max(rows, 1), file.modified, file.outside)

    def state(self, path: str) -> tuple[int, int]:
        place = self._place(path)
        if place is None:
            return self._tree.state(path)
        size, modified = self._tree.state(place[0])
        return size // max(self._opened(place[0])[0].metadata.num_rows, 1), modified

    def read(self, path: str) -> bytes:
        return self._bytes(path) if self._place(path) else self._tree.read(path)

    def image(self, path: str) -> str | bytes:
        return self._bytes(path) if self._place(path) else self._tree.image(path)

    def _place(self, path: str) -> tuple[str, int, str] | None:
        """File, row and column of a picture; None for what is a file of its own."""
        found = _PLACE.fullmatch(path)
        if not found or found[1] not in self._columns:
            return None
        image, mask = self._columns[found[1]]
        return found[1], int(found[2]), mask if found[3] else image

    def _opened(self, path: str) -> tuple[Any, NDArray[np.int64]]:
        """The file, and the first row of each of its groups."""
        with self._lock:
            if path not in self._open:
                file = open_file(self._tree, path)
                counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
                self._open[path] = file, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            return self._open[path]

    def _bytes(self, path: str) -> bytes:
        file, row, column = self._place(path) or ("", 0, "")
        where = f"{self.root}: {path}"
        opened, starts = self._opened(file)
        if not 0 <= row < starts[-1]:
            raise UserError("no such row", where=where)
        group = int(np.searchsorted(starts, row, "right")) - 1
        value = self._group(opened, file, group, column)[int(row - starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise UserError("holds no picture", where=where)
        return bytes(data)

    def _group(self, opened: Any, path: str, group: int, column: str) -> Any:
        """A column of a row group; the lock is held while it is read, so that threads that want the same wait for one."""
        with self._lock:
            key = path, group, column
            if key not in self._kept:
                with checked(f"{self.root}: {path}"):
                    self._kept[key] = opened.read_row_group(group, columns=[column]).column(0)
                while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def place(file: str, row: int, name: str) -> str:
    """The path of a row's image called `name`."""
    return f"{file}/{row:07d}/{posixpath.basename(name)}"


def mask_place(file: str, row: int) -> str:
    """The path of a row's mask."""
    return f"{file}/{row:07d}/mask/mask.png"
