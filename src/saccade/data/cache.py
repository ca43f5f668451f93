"""Decoded images, kept in a file: every image is read and decoded once, checked on the way, and never again.

One file holds the pixels of a list of images one after the other, a second one their shapes and sums. A file is made
under a temporary name and renamed when whole, so two processes and a kill do no harm.

No image of a run is ever another than the one that was listed: a file that has changed since is an error, and pixels that
were kept and are no longer what they were are decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
import time
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.core.errors import UserError
from saccade.core.files import os_error
from saccade.core.progress import Progress
from saccade.data.dataset import Dataset

Pixels = NDArray[np.uint8]
LIMIT_BYTES = 8 << 30
CHUNK = 64
LEFT_BEHIND = 86_400.0  # seconds after which nobody writes a temporary file any more


@dataclass(frozen=True)
class Preparation:
    """What is done to each decoded image before it is kept; `name` stands for it in the cache's key.

    covering: (height, width) that it needs at most, so that large JPEGs may be decoded at a reduced size (`core.images.read`).
    """

    name: str
    apply: Callable[[Pixels], Pixels]
    covering: tuple[int, int] | None = None


class PixelStore:
    """Images in memory by place: `store[i]` is uint8 `[H, W, C]`, a view. `sums`: a CRC-32 of each."""

    def __init__(self, data: Pixels, shapes: NDArray[np.int64], sums: Sequence[int] = ()) -> None:
        self._data = data
        self._shapes = shapes
        self.sums = np.array(sums, np.int64)
        self._starts = _starts(shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, place: int) -> Pixels:
        pixels: Pixels = self._data[self._starts[place] : self._starts[place + 1]].reshape(self._shapes[place])
        return pixels


class DecodingStore:
    """The same for a set too large to keep: decodes at each access. Raises UserError for a file that is no longer the one listed."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64], preparation: Preparation, sums: Sequence[int] = ()) -> None:
        self._dataset, self._indices, self._preparation = dataset, indices, preparation
        self.sums = np.array(sums, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> Pixels:
        return _decode(self._dataset, int(self._indices[place]), self._preparation)


class KeptStore:
    """The same from a file of the cache.

    Read, not mapped: a file that is cut short under a mapping ends the process. What is read is held against its sum (which takes some
    microseconds); where it differs the entry is dropped for whoever comes next, and the image is decoded again.
    """

    def __init__(self, data: Path, shapes: NDArray[np.int64], sums: NDArray[np.int64], again: DecodingStore) -> None:
        self._path, self._shapes, self.sums, self._again = data, shapes, sums, again
        self._starts = _starts(shapes)
        self._descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, place: int) -> Pixels:
        start, size = int(self._starts[place]), int(self._starts[place + 1] - self._starts[place])
        data = os.pread(self._descriptor, size, start)
        if zlib.crc32(data) != self.sums[place]:
            with contextlib.suppress(OSError):
                self._path.with_suffix(".npy").unlink()
            return self._again[place]
        return np.frombuffer(data, np.uint8).reshape(self._shapes[place])


def _starts(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(shapes.prod(1))])


def _decode(dataset: Dataset, index: int, preparation: Preparation) -> Pixels:
    """One image as it is kept; raises UserError where it cannot be read or is no longer the file that was listed.

    That is asked after the decoding, so that a change in the midst of it is seen too.
    """
    try:
        return preparation.apply(dataset.decode(index, preparation.covering))
    finally:
        listed = dataset.annotations.items[index].image
        found = dataset.tree.state(listed.path)
        if found != (listed.bytes, listed.modified):
            what = "has changed" if any(found) else "no such file any more: it has gone"
            fix = "bring the file back as it was, and leave the images alone while they are in use"
            raise UserError(f"{what} since this command listed it", where=str(dataset.root / listed.path), fix=fix)


Store = PixelStore | DecodingStore | KeptStore


@dataclass(frozen=True)
class BadFile:
    """An image file that cannot be read, and why."""

    index: int
    path: str
    reason: str


def cache_folder() -> Path:
    """Where decoded images are kept: `$XDG_CACHE_HOME/saccade/pixels`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "saccade" / "pixels"


def load(
    dataset: Dataset,
    indices: NDArray[np.int64],
    preparation: Preparation,
    *,
    progress: Progress,
    workers: int = 2,
    folder: Path | None = None,
) -> tuple[Store, list[BadFile]]:
    """Read, check and keep the images at `indices`: the store holds the good ones in order, the bad ones are listed.

    Kept in memory where no cache folder can be written, not kept at all beyond LIMIT_BYTES or half of the free disk.
    """
    folder = cache_folder() if folder is None else folder
    key = _key(dataset, indices, preparation)
    again = DecodingStore(dataset, indices, preparation)
    kept = _open(folder, key, again)
    if kept is not None:
        return kept, []
    reader = _Reader(dataset, indices, preparation, progress, workers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        limit = min(LIMIT_BYTES, shutil.disk_usage(folder).free // 2)
        handle, temporary = tempfile.mkstemp(prefix=f"{key}.", dir=folder)
    except OSError:
        return reader.into_memory()
    try:
        with os.fdopen(handle, "wb") as file:
            whole = reader.into_file(file, limit)
        if whole and reader.bad:
            return reader.from_file(temporary), reader.bad
        if whole:
            _keep(folder, key, temporary, reader.table())
        kept = _open(folder, key, again) if whole else None
    except FileNotFoundError:  # somebody has cleared the cache meanwhile
        kept = None
    except OSError as error:
        raise os_error(error, folder, "keep decoded images") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    good = indices[~np.isin(indices, [bad.index for bad in reader.bad])]
    return kept or DecodingStore(dataset, good, preparation, reader.sums), reader.bad


class _Reader:
    """Decodes in threads, in order, and knows what it met."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64], preparation: Preparation, progress: Progress, workers: int) -> None:
        self._dataset, self._indices, self._preparation = dataset, indices, preparation
        self._progress, self._workers = progress, max(1, workers)
        self.shapes: list[tuple[int, ...]] = []
        self.sums: list[int] = []
        self.bad: list[BadFile] = []

    def into_memory(self) -> tuple[PixelStore, list[BadFile]]:
        parts = [pixels.reshape(-1) for pixels in self._good()]
        return PixelStore(np.concatenate(parts) if parts else np.empty(0, np.uint8), self._shape_table(), self.sums), self.bad

    def into_file(self, file: object, limit: int) -> bool:
        """Write pixels as they come; False when they outgrew `limit` (all images were read and checked even so)."""
        written = 0
        for pixels in self._good():
            written += pixels.nbytes
            if written <= limit:
                file.write(np.ascontiguousarray(pixels).data)  # type: ignore[attr-defined]
        return written <= limit

    def from_file(self, path: str) -> PixelStore:
        """The pixels of an unnamed file, in memory: a set with bad files is not worth a cache entry."""
        return PixelStore(np.fromfile(path, np.uint8), self._shape_table(), self.sums)

    def table(self) -> NDArray[np.int64]:
        """Height, width, channels and CRC-32 of each good image."""
        return np.column_stack([self._shape_table(), np.array(self.sums, np.int64)])

    def _shape_table(self) -> NDArray[np.int64]:
        return np.array(self.shapes, np.int64).reshape(-1, 3)

    def _good(self) -> Iterator[Pixels]:
        self._progress.start("reading images", len(self._indices), "images")
        for decoded in self._chunks():
            good = [item for item in decoded if not isinstance(item, BadFile)]
            self.bad += [item for item in decoded if isinstance(item, BadFile)]
            self.shapes += [pixels.shape for pixels in good]
            self.sums += [zlib.crc32(np.ascontiguousarray(pixels).data) for pixels in good]
            yield from good
            self._progress.advance(len(decoded))
        self._progress.finish()

    def _chunks(self) -> Iterator[list[Pixels | BadFile]]:
        """Decoded chunks in order; a few are decoded ahead, so that memory stays bounded."""
        chunks = (self._indices[i : i + CHUNK].tolist() for i in range(0, len(self._indices), CHUNK))
        with ThreadPoolExecutor(self._workers) as pool:
            ahead = deque(pool.submit(self._decode, chunk) for chunk in itertools.islice(chunks, self._workers * 4))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(self._decode, chunk) for chunk in itertools.islice(chunks, 1))

    def _decode(self, chunk: Sequence[int]) -> list[Pixels | BadFile]:
        return [self._decode_one(index) for index in chunk]

    def _decode_one(self, index: int) -> Pixels | BadFile:
        try:
            return _decode(self._dataset, index, self._preparation)
        except UserError as error:
            return BadFile(index, self._dataset.annotations.items[index].path, error.message)


def _key(dataset: Dataset, indices: NDArray[np.int64], preparation: Preparation) -> str:
    digest = hashlib.sha256(
        f"5\0{dataset.root}\0{dataset.schema.channels}\0{preparation.name}\0{preparation.covering}\n".encode(errors="surrogateescape")
    )
    for i in indices:
        image = dataset.annotations.items[i].image
        digest.update(f"{image.path}\0{image.bytes}\0{image.modified}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _open(folder: Path, key: str, again: DecodingStore) -> KeptStore | None:
    """The entry of this key; None where there is none, or one that cannot be these images."""
    data, shapes = folder / f"{key}.u8", folder / f"{key}.npy"
    try:
        table = np.load(shapes, allow_pickle=False)
        if table.dtype != np.int64 or table.shape != (len(again), 4) or (table < 0).any():
            return None
        if data.stat().st_size != int(table[:, :3].prod(1).sum()):
            return None
        os.utime(data)
        return KeptStore(data, table[:, :3], table[:, 3], again)
    except Exception:  # the header of a damaged table raises nearly anything, MemoryError included
        return None


def _keep(folder: Path, key: str, temporary: str, table: NDArray[np.int64]) -> None:
    _make_room(folder, os.path.getsize(temporary))
    with tempfile.NamedTemporaryFile(prefix=f"{key}.", dir=folder, delete=False) as file:
        np.save(file, table)
    os.replace(file.name, folder / f"{key}.npy")
    os.replace(temporary, folder / f"{key}.u8")


def _make_room(folder: Path, needed: int) -> None:
    """Drop what killed processes left, and the entries unused for longest until `needed` more bytes fit under LIMIT_BYTES."""
    now = time.time()
    kept = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            stat = entry.stat()
            if entry.name.endswith(".u8"):
                kept.append((stat.st_mtime, stat.st_size, Path(entry.path)))
            elif not entry.name.endswith(".npy") and now - stat.st_mtime > LEFT_BEHIND:
                os.unlink(entry)
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total + needed <= LIMIT_BYTES:
            return
        total -= size
        path.unlink(missing_ok=True)
        path.with_suffix(".npy").unlink(missing_ok=True)
