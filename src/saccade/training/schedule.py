"""The learning rate as a function of the step: a linear rise, then half a cosine down to zero (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Schedule:
    """`planned` steps, of which the share `warmup` rises. `end_at` moves the end, earlier or later, without a jump in the rate; ends: each
    (from which step on, the new end), in turn."""

    planned: int
    warmup: float
    ends: list[tuple[int, int]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Where the end is now."""
        return self.ends[-1][1] if self.ends else self.planned

    def end_at(self, step: int, total: int) -> None:
        """From `step` on, run through what is left so that the end is at `total`."""
        if not (self.ends[-1][0] if self.ends else 0) <= step < min(total, self.total + 1):
            raise ValueError(
                f"the new end must lie after step {step}, which must not lie before another change or after the end; got {total}"
            )
        self.ends.append((step, total))

    def progress(self, step: int) -> float:
        """How much of the schedule is done before `step`: 0..1."""
        done, start, total = 0.0, 0, self.planned
        for at, end in self.ends:
            if step <= at:
                break
            done += (1 - done) * (at - start) / max(1, total - start)
            start, total = at, end
        return min(1.0, done + (1 - done) * (step - start) / max(1, total - start))

    def highest(self, step: int) -> float:
        """The largest factor from `step` on: that of the peak in the rise, and of `step` itself after it."""
        return 1.0 if self.progress(step) < self.warmup else self.factor(step)

    def factor(self, step: int) -> float:
        """What the peak rate is multiplied by at `step` (counted from 0)."""
        first = 1 / max(1, self.planned)
        progress = self.progress(step)
        if progress < self.warmup:
            return min(1.0, (progress + first) / self.warmup)
        rest = (progress - self.warmup) / max(1e-12, 1 - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
