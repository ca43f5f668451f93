"""What is asked of a run in progress: files in RUN/requests/, one a request, taken up in the order in which they were asked, and answered
by a file beside each."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import TEMPORARY, discard, read_json, write_json
from saccade.core.rundir import RunDir

MOST_BYTES = 1 << 20
STATES = ("running", "paused", "stopped")
_NAME = re.compile(r"(\d{9})-[0-9a-f]{16}(\.json|\.answer)")
_ANSWER = ".answer"


def place(run: RunDir) -> Path:
    """The file for a new request, whose number comes after those of all that is there."""
    run.requests.mkdir(exist_ok=True)
    number = max((int(found[1]) for name in os.listdir(run.requests) if (found := _NAME.fullmatch(name))), default=0) + 1
    return run.requests / f"{min(number, 999_999_999):09d}-{secrets.token_hex(8)}.json"


def ask(run: RunDir, request: Mapping[str, Any]) -> Path:
    """Write a request that nobody waits for, for a run that is to be resumed; gives its file."""
    return write_json(place(run), {**request, "deferred": True})


def pending(run: RunDir) -> list[Path]:
    """The requests that nobody has answered, in order."""
    try:
        names = sorted(os.listdir(run.requests))
    except OSError:
        return []
    return [run.requests / name for name in names if name.endswith(".json") and _NAME.fullmatch(name)]


def read(path: Path) -> dict[str, Any]:
    """A request, which anybody may have written. Raises UserError for what is none."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if size > MOST_BYTES:
        raise UserError(f"a request has at most {MOST_BYTES:,} bytes, this one {size:,}", where=str(path))
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"a request must be an object, got {type(found).__name__}", where=str(path))
    return {key: value for key, value in found.items() if key != "deferred"}


def answer(path: Path, found: Mapping[str, Any]) -> None:
    """Answer a request, which is gone then."""
    write_json(path.with_suffix(_ANSWER), found)
    discard(path)


def answered(path: Path) -> dict[str, Any] | None:
    """The answer to a request, taken away by who asked; None as long as there is none."""
    file = path.with_suffix(_ANSWER)
    if not file.is_file():
        return None
    found = read_json(file)
    discard(file)
    return found if isinstance(found, dict) else {}


def withdraw(path: Path) -> None:
    """Nobody waits for this request any longer."""
    discard(path)
    discard(path.with_suffix(_ANSWER))


def clear(run: RunDir) -> list[str]:
    """Called by who has just locked the run: remove what those have left who wait no longer, requests of a former process too; gives the
    names of those. What was asked for a run to be resumed stays."""
    since = run.locked_since()
    left = []
    for file in sorted(run.requests.iterdir()) if run.requests.is_dir() else ():
        if not _older(file, since):  # somebody asks just now
            continue
        if file.name.endswith(_ANSWER) or file.name.startswith(TEMPORARY):
            discard(file)
        elif _NAME.fullmatch(file.name) and not _deferred(file):
            left.append(file.name)
            discard(file)
    return left


def _older(file: Path, since: float) -> bool:
    try:
        return file.stat().st_mtime < since
    except OSError:
        return False


def _deferred(file: Path) -> bool:
    try:
        raw = read_json(file)
    except UserError:
        return False
    return isinstance(raw, dict) and raw.get("deferred") is True
