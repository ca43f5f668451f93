"""Archives read in place, as data sets: `.zip` and `.tar`. Nothing is ever unpacked, so nothing can land where it should not.

Refused are links, devices, sparse files, encrypted members, names that leave the archive or stand twice, members that overlap, and more
out of less than honest files hold (a bomb).
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.core.errors import UserError
from saccade.core.files import os_error
from saccade.core.images import MAX_PIXELS
from saccade.data.tree import TEXT_BYTES, File, Tree, is_inside

SUFFIXES = {".zip", ".tar"}
MOST_MEMBERS = 10_000_000
IMAGE_BYTES = 1 << 30  # of one picture in its file
RATIO, FREE = 200, 256 << 20  # how many times its packed size an archive may hold, beyond what is harmless anyway
_SPLITS = frozenset({"train", "val", "valid", "test"})


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: where it starts (in a zip its header, in a tar its bytes), how many bytes it has, packed and unpacked.

    crc: CRC-32 of the unpacked bytes, None in a tar, which has no sums.
    """

    name: str
    start: int
    packed: int
    bytes: int
    deflated: bool = False
    crc: int | None = None


class ArchiveTree:
    """The files of an archive (`tree.Tree`). Safe to read from several threads."""

    max_pixels = MAX_PIXELS

    def __init__(self, root: Path, members: Iterable[Member]) -> None:
        self.root = root
        visible = [member for member in members if not _is_hidden(member.name)]
        top = _only_folder(member.name for member in visible)
        self._members = {member.name[len(top) :]: member for member in visible}
        self._modified = root.stat().st_mtime_ns
        self._folders, self._own = _tables(sorted(self._members))

    def folders(self, path: str = "") -> list[str]:
        return sorted(self._folders.get(path.rstrip("/"), ()))

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        path = path.rstrip("/")
        if not deep:
            return [self._file(name) for name in self._own.get(path, ())]
        return [self._file(name) for name in sorted(self._members) if not path or name.startswith(f"{path}/")]

    def find(self, path: str) -> File | None:
        return self._file(path) if path in self._members else None

    def state(self, path: str) -> tuple[int, int]:
        try:
            return self._members[path].bytes, self.root.stat().st_mtime_ns
        except (KeyError, OSError):
            return 0, 0

    def read(self, path: str) -> bytes:
        return self._bytes(path, TEXT_BYTES)

    def image(self, path: str) -> str | bytes:
        return self._bytes(path, IMAGE_BYTES)

    def _file(self, path: str) -> File:
        return File(path, self._members[path].bytes, self._modified)

    def _bytes(self, path: str, limit: int) -> bytes:
        where = f"{self.root}: {path}"
        member = self._members.get(path)
        if member is None:
            raise UserError("no such file", where=where[:500])
        if member.bytes > limit:
            raise UserError(f"must be at most {limit >> 20} MiB, was {member.bytes >> 20} MiB", where=where)
        try:
            with open(self.root, "rb", buffering=0) as file:  # not held open: a set may have thousands of archives
                start = _data_start(file.fileno(), member, where) if member.crc is not None else member.start
                data = os.pread(file.fileno(), member.packed, start)
        except OSError as error:
            raise os_error(error, self.root, "read") from None
        if member.deflated:
            data = _inflated(data, member, where)
        if len(data) != member.bytes or (member.crc is not None and zlib.crc32(data) != member.crc):
            raise UserError("is damaged inside of the archive", where=where, fix="fetch or make the archive again")
        return data


class ArchivesTree:
    """Many archives of a folder as one tree: `ARCHIVE/PATH` is a file of one of them (`tree.Tree`)."""

    max_pixels = MAX_PIXELS

    def __init__(self, tree: Tree, archives: Mapping[str, ArchiveTree]) -> None:
        self.root = tree.root
        self._tree, self._archives = tree, archives

    def folders(self, path: str = "") -> list[str]:
        return self._tree.folders(path)

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        if path or not deep:
            return self._tree.files(path, deep=deep)
        inside = [self._inside(name, file) for name, archive in self._archives.items() for file in archive.files("", deep=True)]
        return sorted([*self._tree.files("", deep=True), *inside], key=lambda file: file.path)

    def find(self, path: str) -> File | None:
        archive, name, inner = self._place(path)
        file = archive.find(inner) if archive else self._tree.find(path)
        return self._inside(name, file) if archive and file else file

    def state(self, path: str) -> tuple[int, int]:
        archive, _, inner = self._place(path)
        return archive.state(inner) if archive else self._tree.state(path)

    def read(self, path: str) -> bytes:
        archive, _, inner = self._place(path)
        return archive.read(inner) if archive else self._tree.read(path)

    def image(self, path: str) -> str | bytes:
        archive, _, inner = self._place(path)
        return archive.image(inner) if archive else self._tree.image(path)

    def _place(self, path: str) -> tuple[ArchiveTree | None, str, str]:
        """The archive that a path leads into, its name, and the rest of the path."""
        parts = path.split("/")
        for count in range(1, len(parts)):
            if archive := self._archives.get(name := "/".join(parts[:count])):
                return archive, name, "/".join(parts[count:])
        return None, "", path

    @staticmethod
    def _inside(name: str, file: File) -> File:
        return replace(file, path=f"{name}/{file.path}")


def open_archive(root: Path) -> ArchiveTree:
    """The tree of a `.zip` or `.tar`; raises UserError where it is damaged, or holds what is refused."""
    try:
        members = list(_zipped(root) if root.suffix.lower() == ".zip" else _tarred(root))
    except OSError as error:
        raise os_error(error, root, "read") from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        ValueError,
        OverflowError,
        struct.error,
        NotImplementedError,
    ) as error:
        raise UserError(f"must be a whole archive, but is damaged: {error}", where=str(root)) from None
    total = sum(member.bytes for member in members)
    if total > FREE + RATIO * root.stat().st_size:
        raise UserError(f"holds {total >> 20} MiB in {root.stat().st_size >> 10} KiB: a bomb, not a data set", where=str(root))
    _check_places(root, members)
    return ArchiveTree(root, members)


def _zipped(root: Path) -> Iterator[Member]:
    with zipfile.ZipFile(root) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                raise UserError("must hold files alone, but has a link or a device", where=f"{root}: {info.filename}")
            if info.flag_bits & 1:
                raise UserError("is encrypted", where=f"{root}: {info.filename}", fix="unpack it first")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError("is packed by a method that is not read here", where=f"{root}: {info.filename}", fix="unpack it first")
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield Member(info.filename, info.header_offset, info.compress_size, info.file_size, deflated, info.CRC)


def _tarred(root: Path) -> Iterator[Member]:
    with tarfile.open(root, "r:", encoding="utf-8", errors="surrogateescape") as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise UserError("must hold plain files alone, but has a link, a device or a sparse file", where=f"{root}: {info.name}")
            yield Member(info.name.removeprefix("./"), info.offset_data, info.size, info.size)
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header


def _check_places(root: Path, members: list[Member]) -> None:
    """Names that stay inside and stand once; bytes that belong to one member alone and lie within the file."""
    if len(members) > MOST_MEMBERS:
        raise UserError(f"must hold at most {MOST_MEMBERS:,} files, was {len(members):,}", where=str(root))
    seen: set[str] = set()
    for member in members:
        if not member.name or not is_inside(member.name) or "\\" in member.name:
            raise UserError("must not lead out of the archive", where=f"{root}: {member.name[:200]!r}")
        if member.name in seen:
            raise UserError("stands twice in the archive", where=f"{root}: {member.name[:200]}")
        seen.add(member.name)
    end = 0
    for member in sorted(members, key=lambda member: member.start):
        if member.start < end or min(member.start, member.packed, member.bytes) < 0:
            raise UserError("shares its bytes with another file of the archive", where=f"{root}: {member.name}")
        end = member.start + member.packed
    if end > root.stat().st_size:
        raise UserError("is cut short", where=str(root), fix="fetch or make the archive again")


def _data_start(descriptor: int, member: Member, where: str) -> int:
    """Behind the header that a zip file repeats before each member (APPNOTE.TXT 4.3.7)."""
    header = os.pread(descriptor, 30, member.start)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise UserError("is damaged inside of the archive", where=where, fix="fetch or make the archive again")
    name, extra = struct.unpack("<HH", header[26:30])
    return member.start + 30 + int(name) + int(extra)


def _inflated(data: bytes, member: Member, where: str) -> bytes:
    """Never more than the archive says."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.bytes + 1)
    except zlib.error:
        raise UserError("is damaged inside of the archive", where=where, fix="fetch or make the archive again") from None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _only_folder(names: Iterable[str]) -> str:
    """The folder that everything lies in, with its slash, where it has folders itself and is no split: archives often have one."""
    names = list(names)
    heads = {name.partition("/")[:2] for name in names}
    head, slash = heads.pop() if len(heads) == 1 else ("", "")
    deeper = any(name.count("/") > 1 for name in names)
    return head + slash if deeper and head not in _SPLITS else ""


def _tables(paths: Iterable[str]) -> tuple[dict[str, set[str]], dict[str, list[str]]]:
    """Names of folders, and paths of files, directly in each folder."""
    folders: dict[str, set[str]] = {}
    own: dict[str, list[str]] = {}
    for path in paths:
        folder = path.rpartition("/")[0]
        if folder not in own:
            own[folder] = []
            parts = folder.split("/") if folder else []
            for depth, name in enumerate(parts):
                folders.setdefault("/".join(parts[:depth]), set()).add(name)
        own[folder].append(path)
    return folders, own
