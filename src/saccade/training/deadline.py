"""A run that turns out slower than it was measured to be keeps to its minutes."""

from __future__ import annotations

import math

from saccade.training.schedule import Schedule

LATE = 1.03  # times the time left that what is left may take
FEWEST = 20  # steps whose speed tells
EARLIEST = 0.25  # share of the run before which nothing is judged


class Deadline:
    """at: monotonic seconds at which training must be over (None: at any time); steady: share of the run from which all steps take as long:
    the speed of those before tells nothing about what is left."""

    def __init__(self, at: float | None, steady: float, now: float) -> None:
        self._at, self._steady = at, steady
        self._since = (0, now) if not steady else None  # steps taken until then, and the time, from which on the speed is reckoned

    def affordable(self, step: int, taken: int, schedule: Schedule, now: float) -> int | None:
        """The last step that fits at the speed so far, where that is clearly before the schedule's end; step: of the run, taken: in this
        process."""
        done = schedule.progress(step)
        if self._at is None or done < max(self._steady, EARLIEST):
            return None
        if self._since is None:
            self._since = (taken, now)
        first, begun = self._since
        if taken - first < FEWEST:
            return None
        each, allowed = (now - begun) / (taken - first), max(1.0, self._at - now)
        if each * (schedule.total - step) <= allowed * LATE:
            return None
        total = step + max(1, math.floor(allowed * 0.97 / each))
        return total if total < schedule.total else None
