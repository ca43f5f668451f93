"""Where in a video a frame stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in its video a frame stands: its number from 0 on, as they are shown, and its time in seconds after the first one."""

    frame: int
    time: float

    @classmethod
    def found(cls, raw: Mapping[str, Any]) -> Moment | None:
        """Of a result's plain values; None where they tell of none. Raises UserError where they are no numbers."""
        if "frame" not in raw:
            return None
        try:
            return cls(int(raw["frame"]), float(raw["time"]))
        except (KeyError, TypeError, ValueError):
            raise UserError("frame and time of a result must be numbers", where=str(raw.get("source", ""))) from None


def said_beside(notes: Sequence[str], moment: Moment | None) -> dict[str, Any]:
    """What stands in a result's plain values where there is something to say: frame, time, notes."""
    where = {"frame": moment.frame, "time": moment.time} if moment is not None else {}
    return where | ({"notes": list(notes)} if notes else {})
