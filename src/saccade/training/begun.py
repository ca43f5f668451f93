"""Changes that end the process which makes them, for want of memory mostly, so that nothing in it can say so."""

from __future__ import annotations

import contextlib
from typing import Any

from saccade.core.errors import UserError
from saccade.core.files import discard, read_json, write_json
from saccade.core.rundir import RunDir
from saccade.training.ranks import Ranks

FILE = "changing.json"  # in the run's folder, while a change is made
MOST = 2  # times that a change is begun


class Begun:
    """A file says which change is being made, until the step after it is done. What was begun as often as may be, and never came to that,
    is not begun again."""

    def __init__(self, run: RunDir, ranks: Ranks) -> None:
        self._file, self._ranks = run.path / FILE, ranks
        self._step: int | None = None

    def begin(self, number: int, what: str, step: int) -> str:
        """Note a change before a step; all processes do so together. Gives why it is not to be made, "" where it is."""

        def note() -> str:
            times = self._times(number, what)
            if times >= MOST:
                discard(self._file)
                return f"the process ended {times} times while it was made, as it does where memory runs out"
            with contextlib.suppress(UserError):  # a disk that refuses this may yet take the change
                write_json(self._file, {"number": number, "what": what, "times": times + 1})
            return ""

        why = self._ranks.first(note)
        self._step = None if why else step
        return why

    def settle(self, step: int) -> None:
        """So many steps are done."""
        if self._step is not None and step > self._step:
            self.end()

    def end(self) -> None:
        """The change is made, or is not to be."""
        if self._step is not None and self._ranks.is_first:
            discard(self._file)
        self._step = None

    def _times(self, number: int, what: str) -> int:
        try:
            raw: Any = read_json(self._file) if self._file.is_file() else None
        except UserError:
            return 0
        same = isinstance(raw, dict) and raw.get("number") == number and raw.get("what") == what
        return int(raw["times"]) if same and type(raw.get("times")) is int else 0
