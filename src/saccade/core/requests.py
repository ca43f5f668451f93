"""What is asked of a run in progress: files in RUN/requests/, one a request, taken up in the order in which they were asked, and answered
by a file beside each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import TEMPORARY, discard, read_json, write_json
from saccade.core.rundir import RunDir

MOST_BYTES = 1 << 20
_NAME = re.compile(r"\d{9}-\d{1,10}\.json")
_NUMBER = re.compile(r"(\d{9})-")
_ANSWER = ".answer"


def place(run: RunDir) -> Path:
    """The file for a request of this process, whose number comes after those of all that is there."""
    run.requests.mkdir(exist_ok=True)
    number = max((int(found[1]) for name in os.listdir(run.requests) if (found := _NUMBER.match(name))), default=0) + 1
    return run.requests / f"{number:09d}-{os.getpid()}.json"


def ask(run: RunDir, request: Mapping[str, Any]) -> Path:
    """Write a request that nobody waits for; gives its file."""
    return write_json(place(run), request)


def pending(run: RunDir) -> list[Path]:
    """The requests that nobody has answered, in order."""
    try:
        names = sorted(os.listdir(run.requests))
    except OSError:
        return []
    return [run.requests / name for name in names if _NAME.fullmatch(name)]


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
    return found


def answer(path: Path, found: Mapping[str, Any]) -> None:
    """Answer a request, which is gone then."""
    write_json(path.with_suffix(_ANSWER), found)
    discard(path)


def answered(path: Path) -> dict[str, Any] | None:
    """The answer to a request, taken away by who asked; None as long as there is none."""
    file = path.with_suffix(_ANSWER)
    if not file.is_file():
        return None
    found: dict[str, Any] = read_json(file)
    discard(file)
    return found


def withdraw(path: Path) -> None:
    """Nobody waits for this request any longer."""
    discard(path)
    discard(path.with_suffix(_ANSWER))


def clear(run: RunDir) -> None:
    """Remove answers that nobody has waited for."""
    for file in run.requests.glob(f"*{_ANSWER}") if run.requests.is_dir() else ():
        discard(file)
    for file in run.requests.glob(f"{TEMPORARY}*") if run.requests.is_dir() else ():
        discard(file)
