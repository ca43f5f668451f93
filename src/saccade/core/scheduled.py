"""When an edit of a run in progress is made, as a line of text says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from saccade.core.errors import UserError

USAGE = '"at step N: EDIT", "at epoch X: EDIT" or "when METRIC stalls N: EDIT", N evaluations without a better one'
_AT = re.compile(r"at\s+(step|epoch)\s+(\d+(?:\.\d+)?)\s*:\s*(.*\S)\s*", re.DOTALL)
_WHEN = re.compile(r"when\s+(\w+)\s+stalls\s+(\d{1,9})\s*:\s*(.*\S)\s*", re.DOTALL)


@dataclass(frozen=True)
class Scheduled:
    """by: what is counted; value: the step (before which it is made), the epoch, or evaluations; metric: that stalls; edit: its text."""

    by: Literal["step", "epoch", "stalls"]
    value: float
    edit: str
    metric: str = ""

    @classmethod
    def parse(cls, text: str) -> Scheduled:
        """From its line. Raises UserError."""
        if found := _AT.fullmatch(text.strip()):
            by: Literal["step", "epoch"] = "step" if found[1] == "step" else "epoch"
            if by == "step" and "." in found[2]:
                raise UserError(f"a step is a whole number, got {found[2]}", where="--edit")
            return cls(by, float(found[2]), found[3])
        if (found := _WHEN.fullmatch(text.strip())) and int(found[2]):
            return cls("stalls", float(found[2]), found[3], found[1])
        raise UserError(f"must be {USAGE}, got {text!r}", where="--edit")

    def due(self, step: int, epoch: float, stale: int) -> bool:
        """Whether its time has come, after `step` steps and so many evaluations without a better one."""
        return {"step": step, "epoch": epoch, "stalls": stale}[self.by] >= self.value
