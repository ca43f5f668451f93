"""One file that somebody publishes at an address, kept on this machine and checked against its sum each time; its tensors are read as those
of any file of other people's, pickled ones in a process of their own."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from saccade.core.errors import UserError
from saccade.core.files import write_bytes
from saccade.core.modelfile import Buffer


@dataclass(frozen=True)
class Published:
    """A file: what it is called here, its address, its SHA-256 in hexadecimal (or how that begins), and what it is under."""

    file: str
    address: str
    sha256: str
    license: str

    @property
    def place(self) -> Path:
        """Where it lies once it is on this machine, whoever brought it."""
        return cache() / self.file


def cache() -> Path:
    """Where such files are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "saccade" / "weights"


def fetch(found: Published, what: str, *, where: str, by_hand: str = "") -> Path:
    """The local copy of a file, downloaded unless it is there; what: it, in words; by_hand: another way to bring it than its place.

    Raises UserError, naming address and place, where it cannot be had, and for one that has not the sum stated.
    """
    place = found.place
    if place.is_file():
        _check(place.read_bytes(), found, str(place), fix=f"remove {place}")
        return place
    try:
        with urllib.request.urlopen(found.address, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        fix = by_hand or f"bring the file on another machine and put it there as {place}"
        raise UserError(f"cannot fetch {what} ({type(error).__name__}): asked for {found.address}", where=where, fix=fix) from None
    _check(data, found, found.address, fix="try again")
    place.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(place, [data])


def holds(data: bytes, found: Published) -> bool:
    """Whether bytes are those of a file, by its sum."""
    return bool(found.sha256) and hashlib.sha256(data).hexdigest().startswith(found.sha256)


def _check(data: bytes, found: Published, where: str, *, fix: str) -> None:
    if not holds(data, found):
        raise UserError(f"is not the file that is published: its SHA-256 must begin with {found.sha256[:16]}", where=where, fix=fix)


def tensors(found: Published, what: str, *, where: str) -> dict[str, Buffer]:
    """The tensors of such a file by their names there. Raises UserError as `fetch` and `checkpoints.read` do."""
    from saccade.nn import checkpoints

    return checkpoints.read(fetch(found, what, where=where)).tensors
