"""The learning rate as a function of the step: a linear rise, then half a cosine down to zero (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Schedule:
    """`total` steps, of which the share `warmup` rises. `shorten` ends it earlier without a jump in the rate."""

    total: int
    warmup: float
    cut_at: int = 0
    before: int = 0

    def shorten(self, step: int, total: int) -> None:
        """From `step` on, run through what is left so that the end is at `total`. May be used once."""
        if self.before:
            raise ValueError("the schedule has been shortened already")
        if not step < total <= self.total:
            raise ValueError(f"the new end must lie after step {step} and not after {self.total}, got {total}")
        self.before, self.cut_at, self.total = self.total, step, total

    def progress(self, step: int) -> float:
        """How much of the schedule is done before `step`: 0..1."""
        if not self.before or step <= self.cut_at:
            return min(1.0, step / max(1, self.before or self.total))
        done = self.cut_at / self.before
        return min(1.0, done + (1 - done) * (step - self.cut_at) / max(1, self.total - self.cut_at))

    def factor(self, step: int) -> float:
        """What the peak rate is multiplied by at `step` (counted from 0)."""
        first = 1 / max(1, self.before or self.total)
        progress = self.progress(step)
        if progress < self.warmup:
            return min(1.0, (progress + first) / self.warmup)
        rest = (progress - self.warmup) / max(1e-12, 1 - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
