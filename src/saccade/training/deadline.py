"""A run that turns out slower or faster than it was measured to be keeps to its minutes, and uses them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saccade.training.schedule import Schedule

LATE, EARLY = 1.03, 0.94  # times the time left that what is left may take, and from which on it is to take more
MOST = 2  # times the steps that were planned that a run may be lengthened to
AIM = 0.97  # of the time left
WORTH_IT = 1.03  # times the steps, from which on they are made more
FEWEST, PART = 20, 10  # steps whose speed tells: so many, and this part of the run
EARLIEST = 0.25  # share of the run before which nothing is judged
PROVEN = (0.6, 0.8)  # shares of the run between which it may be lengthened, more than once: its speed is known, and its rate not yet low


@dataclass
class Evaluations:
    """One after every `every` steps; seconds that the last took, and all of them in this process."""

    every: int
    last: float = 0.0
    total: float = 0.0

    def took(self, seconds: float) -> None:
        """Count one more."""
        self.last, self.total = seconds, self.total + seconds


class Deadline:
    """at: monotonic seconds at which training must be over (None: at any time); steady: share of the run from which all steps take as long:
    the speed of those before tells nothing about what is left."""

    def __init__(self, at: float | None, steady: float, now: float) -> None:
        self._at, self._steady = at, steady
        self._since = (0, now) if not steady else None  # steps taken until then, and the time, from which on the speed is reckoned

    def affordable(self, step: int, taken: int, schedule: Schedule, now: float, evaluations: Evaluations, *, most: int = 0) -> int | None:
        """The last step that fits at the speed so far, where that is clearly before the schedule's end, or after it.

        step: of the run; taken: in this process; evaluations: whose time is reckoned by itself, as some steps have none of it and others
        much; most: steps that the run may be lengthened to, where the time of two evaluations is left free, for what comes after the last.
        """
        done = schedule.progress(step)
        if self._at is None or done < max(self._steady, EARLIEST):
            return None
        stepping = now - evaluations.total
        if self._since is None:
            self._since = (taken, stepping)
        first, begun = self._since
        if taken - first < max(FEWEST, schedule.total // PART):
            return None
        each = (stepping - begun) / (taken - first) + evaluations.last / evaluations.every
        allowed = max(1.0, self._at - now)
        late = each * (schedule.total - step) > allowed * LATE
        if not late:
            allowed = max(1.0, allowed - 2 * evaluations.last)
            due = max(self._steady, PROVEN[0]) <= done < PROVEN[1]
            if not due or each * (schedule.total - step) >= allowed * EARLY:
                return None
        total = step + max(1, math.floor(allowed * AIM / each))
        total = min(total, schedule.total if late else most)
        if (not late and total < schedule.total * WORTH_IT) or total == schedule.total:
            return None
        self._since = (taken, stepping)
        return total
