"""The one-file model (law 2): safetensors, with the card and two sums in its header. Buffers in and out, no torch.

Reading trusts nothing: the header is checked (caps, keys that stand twice, names, shapes, no hole and no overlap), and
the sums find every flipped bit. It is done here because the library copies the file once more, and takes keys that stand
twice; writing too, in the library's own order of tensors, because it writes metadata of several keys in random order.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.files import DamagedError, os_error, parse_json, write_bytes

KEY = "saccade"
SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")  # of files of weights, whoever made them
MAX_HEADER = 8 << 20
SMALL_HEADER = 1 << 20  # thousands of tensors and a long card fit; a hostile one this size costs some 20 MB to parse
_MAX_ELEMENTS = 1 << 40
_MAX_AXES = 16
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.:@=+-]{0,255}")
_LONGEST = 1 << 40
_TAKEN_FOR_WEIGHTS = {
    b"version ": "it is a pointer of Git LFS: git lfs pull brings the file itself",
    b"<!doctyp": "it is a web page: download the file itself",
}
_AGAIN = "copy or download the file again, or take another copy"
# In the order of the library, whose tensors stand by falling type, then by name: dtype -> bytes of an element.
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_RANKS = {dtype: rank for rank, dtype in enumerate(_BYTES)}
# Integer type and bits that are all set in an infinity or NaN, for floats which NumPy does not know.
_EXPONENTS = {"BF16": ("<u2", 0x7F80), "F8_E5M2": ("u1", 0x7C), "F8_E4M3": ("u1", 0x7F), "F8_E8M0": ("u1", 0xFF)}
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8"}

Table = dict[str, tuple[str, tuple[int, ...], int, int]]  # name -> dtype, shape, first byte, last byte + 1


@dataclass(frozen=True)
class Buffer:
    """One tensor as plain memory: safetensors' name of its dtype ("F32", "BF16" ...), its shape, its little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


def save(path: str | Path, tensors: Mapping[str, Buffer], card: Card) -> Path:
    """Write a model durably; the same model gives the same bytes. Raises UserError, and then the old file is intact."""
    table = _layout(tensors)
    plain = card.to_dict()
    plain["sums"] = {"data": _sum(memoryview(tensors[name].data) for name in table)}
    plain["sums"]["header"] = _header_sum(table, plain)
    header = _header(table, {KEY: _canonical(plain)})
    return write_bytes(path, [header, *(tensors[name].data for name in table)])


def load(path: str | Path) -> tuple[dict[str, Buffer], Card]:
    """The tensors and the card of a model file, each bit checked; raises UserError. Takes the file's size: all are views of it."""
    data, _ = _read(Path(path), whole=True)
    table, metadata = _parse(data, len(data), str(path))
    card = _card(table, metadata, str(path), data)
    return _tensors(data, table), card


def read_card(path: str | Path) -> Card:
    """The card alone: reads the header, not the weights; raises UserError."""
    header, size = _read(Path(path), whole=False)
    table, metadata = _parse(header, size, str(path))
    return _card(table, metadata, str(path))


def peek(path: str | Path) -> Card | None:
    """The card of any safetensors file, None where it has none; reads the header alone."""
    header, size = _read(Path(path), whole=False)
    table, metadata = _parse(header, size, str(path))
    return _card(table, metadata, str(path)) if KEY in metadata else None


def load_any(path: str | Path) -> tuple[dict[str, Buffer], Card | None]:
    """The tensors of any safetensors file, and its card where it is a model of saccade's, each bit of which is checked then."""
    data, _ = _read(Path(path), whole=True)
    table, metadata = _parse(data, len(data), str(path))
    card = _card(table, metadata, str(path), data) if KEY in metadata else None
    return _tensors(data, table), card


def is_pickled(path: str | Path) -> bool:
    """Whether a file of weights is one of torch's pickled ones; raises UserError where it is neither that nor safetensors, or cannot be
    read."""
    if Path(path).is_dir():
        best = Path(path) / "best.safetensors"
        fix = f"of this run: {best}" if best.is_file() else "name the file of weights in it"
        raise UserError("must be a file of weights, is a folder", where=str(path), fix=fix)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise os_error(error, Path(path), "read") from error
    if _looks_pickled(start):
        return True
    if len(start) < 8 or int.from_bytes(start, "little") > _LONGEST:  # no header is as long
        said = "must hold weights, as safetensors or as a checkpoint of torch (.pt, .pth, .th, .bin, .ckpt), and holds something else"
        raise UserError(said, where=str(path), fix=_TAKEN_FOR_WEIGHTS.get(start.lower(), "download it again, or name another"))
    peek(path)
    return False


def pack(tensors: Mapping[str, Buffer], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes, the same for the same content; raises UserError for a name that is not safe."""
    return b"".join(parts(tensors, metadata or {}))


def parts(tensors: Mapping[str, Buffer], metadata: Mapping[str, str]) -> Iterator[bytes | bytearray | memoryview]:
    """The same piece by piece: for what is too large to stand in memory twice."""
    table = _layout(tensors)
    yield _header(table, metadata)
    yield from (tensors[name].data for name in table)


def unpack(data: bytes | memoryview, *, where: str = "") -> tuple[dict[str, Buffer], dict[str, str]]:
    """The tensors (sorted by name) and metadata of a safetensors file that may be hostile; raises DamagedError."""
    data = bytes(data)
    table, metadata = _parse(data, len(data), where)
    return _tensors(data, table), metadata


def non_finite(tensors: Mapping[str, Buffer]) -> list[str]:
    """The names of the floating-point tensors that hold a NaN or an infinity, sorted."""
    return sorted(name for name, buffer in tensors.items() if not _is_finite(buffer))


def _is_finite(buffer: Buffer) -> bool:
    import numpy as np

    if buffer.dtype in _FLOATS:
        return bool(np.isfinite(np.frombuffer(buffer.data, _FLOATS[buffer.dtype])).all())
    if buffer.dtype in _EXPONENTS:
        kind, mask = _EXPONENTS[buffer.dtype]
        bits = np.frombuffer(buffer.data, kind)
        return not bool(((bits & mask) == mask).any())
    if buffer.dtype.endswith("FNUZ"):
        return not bool((np.frombuffer(buffer.data, "u1") == 0x80).any())
    return True


def _layout(tensors: Mapping[str, Buffer]) -> Table:
    """Where each tensor will stand, in order; checks names, dtypes and sizes."""
    table: Table = {}
    offset = 0
    for name in sorted(tensors):
        _check_tensor(name, tensors[name].dtype, tensors[name].shape, memoryview(tensors[name].data).nbytes, "model")
    for name in sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype], name)):
        buffer = tensors[name]
        end = offset + memoryview(buffer.data).nbytes
        table[name] = (buffer.dtype, tuple(buffer.shape), offset, end)
        offset = end
    return table


def _header(table: Table, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces to a multiple of eight bytes as the format wants."""
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for name, (dtype, shape, start, end) in table.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    try:
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"a name must be Unicode, got {error.object[error.start :][:32]!r}", fix="rename that class") from None
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + max((end for *_, end in table.values()), default=0)
    if len(text) > _header_cap(size):
        raise UserError(f"the header of the model file would take {len(text):,} bytes", fix="use fewer or shorter class names")
    return len(text).to_bytes(8, "little") + text


def _header_cap(size: int) -> int:
    return min(MAX_HEADER, max(SMALL_HEADER, size // 100))


def _read(path: Path, *, whole: bool) -> tuple[bytes, int]:
    """The file or its header alone, and the file's size; the header's length is checked before more than that is read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            fix = "name the file, such as RUN/best.safetensors"
            raise UserError("a model must be a file, got a folder or device", where=str(path), fix=fix)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(8), size, str(path))
            file.seek(0)
            return file.read(-1 if whole else 8 + length), size
    except OSError as error:
        raise os_error(error, path, "read") from error


def _header_length(start: bytes, size: int, where: str) -> int:
    """Bytes of the JSON header; raises UserError where it is out of bounds, and says what the file may be instead."""
    if size == 0:
        raise DamagedError("the file is empty", where=where, fix=_AGAIN)
    length = int.from_bytes(start, "little")
    if _looks_pickled(start):
        fix = "saccade adopt FILE --model NAME makes a model of its weights, saccade train --weights FILE learns from them"
        raise UserError("must be a safetensors file, got a pickle or zip file (.pt, .pth), which could run code", where=where, fix=fix)
    if len(start) < 8 or length < 2 or length > _LONGEST:
        raise UserError("must be a safetensors file, got something else", where=where, fix="name a model that saccade wrote")
    if 8 + length > size:
        raise DamagedError(f"the file is cut short: its header needs {8 + length:,} bytes, got {size:,}", where=where, fix=_AGAIN)
    if length > _header_cap(size):
        raise DamagedError(f"the header must have at most {_header_cap(size):,} bytes, got {length:,}", where=where, fix=_AGAIN)
    return length


def _looks_pickled(start: bytes) -> bool:
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and int.from_bytes(start, "little") > 1 << 40)


def _parse(data: bytes, size: int, where: str) -> tuple[Table, dict[str, str]]:
    """The table (in the order of the bytes) and the metadata of a file of `size` bytes that starts with `data`."""
    length = _header_length(data[:8], size, where)
    if data[8:9] != b"{":
        raise DamagedError("the header must begin with {", where=where, fix=_AGAIN)
    raw = parse_json(data[8 : 8 + length].rstrip(b" "), where=f"header of {where}" if where else "header")
    if not isinstance(raw, dict):
        raise DamagedError("the header must be a JSON object", where=where, fix=_AGAIN)
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DamagedError("the metadata must be texts", where=where, fix=_AGAIN)
    table = dict(sorted(((name, _entry(name, entry, where)) for name, entry in raw.items()), key=lambda item: item[1][2:]))
    place = 0
    for name, (_, _, start, after) in table.items():
        if start != place:
            raise DamagedError(f"tensor {name!r} must begin at byte {place:,}, begins at {start:,}", where=where, fix=_AGAIN)
        place = after
    end = 8 + length + place
    if end != size:
        raise DamagedError(f"the file must have {end:,} bytes, got {size:,}: it was cut short or changed", where=where, fix=_AGAIN)
    return table, metadata


def _entry(name: str, raw: object, where: str) -> tuple[str, tuple[int, ...], int, int]:
    if not (isinstance(raw, dict) and raw.keys() == {"dtype", "shape", "data_offsets"}):
        raise DamagedError(f"tensor {name[:64]!r} must have dtype, shape and data_offsets", where=where, fix=_AGAIN)
    shape, offsets = raw["shape"], raw["data_offsets"]
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise DamagedError(f"tensor {name[:64]!r} must have a shape and two offsets", where=where, fix=_AGAIN)
    _check_tensor(name, raw["dtype"], tuple(shape), offsets[1] - offsets[0], where)
    return raw["dtype"], tuple(shape), offsets[0], offsets[1]


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= _MAX_ELEMENTS * 8 for size in value)


def _check_tensor(name: str, dtype: object, shape: tuple[int, ...], size: int, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise DamagedError(f"a tensor's name must be at most 256 letters, digits or .:@=+-_ , got {name[:64]!r}", where=where)
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise DamagedError(f"tensor {name!r} must have one of the dtypes {', '.join(_BYTES)}, got {str(dtype)[:32]!r}", where=where)
    # Axes of length zero are counted as one, or [0, 2**60] would pass.
    if len(shape) > _MAX_AXES or math.prod(max(1, axis) for axis in shape) > _MAX_ELEMENTS:
        raise DamagedError(f"tensor {name!r} has an impossible shape", where=where, fix=_AGAIN)
    if math.prod(shape) * _BYTES[dtype] != size:
        raise DamagedError(f"tensor {name!r} of {dtype} {list(shape)} cannot have {size:,} bytes", where=where, fix=_AGAIN)


def _tensors(data: bytes, table: Table) -> dict[str, Buffer]:
    """Views of the file, sorted by name."""
    payload = _payload(data)
    return {name: Buffer(dtype, shape, payload[start:end]) for name, (dtype, shape, start, end) in sorted(table.items())}


def _card(table: Table, metadata: Mapping[str, str], where: str, data: bytes | None = None) -> Card:
    """The card, after the sums where the file has them; `data` is the whole file, or nothing where only the header was read."""
    if KEY not in metadata:
        raise UserError(
            "a safetensors file, but not a model of saccade's: it has no card", where=where, fix="use it with train --weights FILE"
        )
    plain = parse_json(metadata[KEY], where=f"card of {where}")
    sums = plain.pop("sums", None) if isinstance(plain, dict) else None
    if sums is not None:
        if _canonical({**plain, "sums": sums}) != metadata[KEY]:  # 0.16666666666666667 is the number that 0.16666666666666666 is
            raise DamagedError("the card is not as it was written", where=where, fix=_AGAIN)
        _check_sums(sums, table, plain, where)
        if data is not None and sums["data"] != _sum([_payload(data)]):
            raise DamagedError("the weights do not match their SHA-256 sum", where=where, fix=_AGAIN)
    try:
        card = Card.from_json(_canonical(plain), where=where)
        card.to_json().encode()
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the card cannot be written again: {error}", where=where, fix=_AGAIN) from None
    return card


def _check_sums(sums: object, table: Table, plain: Mapping[str, Any], where: str) -> None:
    if not isinstance(sums, dict) or sums.keys() != {"data", "header"}:
        raise DamagedError("the sums of the card must be data and header", where=where, fix=_AGAIN)
    if sums["header"] != _header_sum(table, {**plain, "sums": {"data": sums["data"]}}):
        raise DamagedError("the header does not match its SHA-256 sum", where=where, fix=_AGAIN)


def _payload(data: bytes) -> memoryview:
    return memoryview(data)[8 + int.from_bytes(data[:8], "little") :]


def _header_sum(table: Table, plain: Mapping[str, Any]) -> str:
    """Over everything the header says but this sum itself."""
    return hashlib.sha256(_canonical([sorted(table.items()), plain]).encode("utf-8", "surrogatepass")).hexdigest()


def _sum(parts: Iterator[memoryview] | list[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
