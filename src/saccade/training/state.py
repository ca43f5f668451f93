"""What a run is beside its tensors, and what has happened to it: from files that anybody may have changed, checked field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, TypeVar

from annotated_types import Ge, Lt

from saccade.core.files import DamagedError, dumps
from saccade.core.rundir import RunDir

Count = Annotated[int, Ge(0), Lt(1 << 62)]
T = TypeVar("T")


@dataclass
class State:
    """The part of a run's state that is no tensor; all of it is in every checkpoint."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    step: Count = 0
    position: Count = 0
    best: float | None = None
    best_step: Count = 0
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    stale: Count = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=dict)
    stopped: bool = False
    good: Count = 0  # the step of the last evaluation that found no fault and was kept
    ends: list[tuple[Count, Count]] = field(default_factory=list)  # of the schedule, each (from which step on, the new end)
    timed: Count = 0  # how many of them are to keep to the minutes asked for, or to use them
    free: bool = False  # the epochs were set on the way, and minutes count no longer
    edits: list[dict[str, Any]] = field(default_factory=list)  # of the network, as its card has them
    settings: dict[str, Any] = field(default_factory=dict)  # of the configuration that were changed on the way, by dotted key
    changes: Count = 0  # edits, takings-back and settings so far
    deals: list[tuple[Count, Annotated[int, Ge(1), Lt(1 << 24)]]] = field(default_factory=list)  # of the loader
    planned: list[Count] = field(default_factory=list)  # the places of the edits of the configuration whose time has come

    def __post_init__(self) -> None:
        """Raise ValueError for what no loader has left."""
        places = [-1, *(place for place, _ in self.deals)]
        if self.deals and (places[1] or any(one >= other for one, other in pairwise(places))):
            raise ValueError("deals must rise from 0")

    def dealt(self, first: int, batch: int, images: int, where: str) -> Sequence[tuple[int, int]]:
        """The deals of a loader of batches of `batch`, of a run that began with `first`; raises DamagedError where it cannot have these."""
        deals = self.deals or [(0, first)]
        if deals[-1][1] != batch or any(size > max(first, images) for _, size in deals):
            raise DamagedError(f"deals must end with the batch, {batch:,}, and have none that cannot be set, got {deals[-3:]}", where=where)
        return tuple(deals)

    def take(self, means: Mapping[str, float], images: int) -> None:
        """A step on so many images is done; means: its losses."""
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.step += 1
        self.position += images


@dataclass(frozen=True)
class Saved:
    """state.json of a checkpoint. metrics_bytes: how much of metrics.jsonl belongs to it; scaler: that of fp16."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    loop: State
    metrics_bytes: Count
    scaler: dict[str, float | int]


def checked(kind: type[T], raw: object, where: str) -> T:
    """`raw` as a dataclass whose fields have the types and bounds that it declares; raises DamagedError in one line."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(dumps(raw))  # strict, and yet an object may stand for a dataclass
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DamagedError(f"{key or 'it'}: {first['msg'][0].lower()}{first['msg'][1:]}", where=where) from None


@dataclass(frozen=True)
class _Event:
    step: Count


@dataclass(frozen=True)
class _Back(_Event):
    to: Count


@dataclass(frozen=True)
class _MicroBatch(_Event):
    to: Annotated[int, Ge(1)]
    phase: str


@dataclass(frozen=True)
class _Pace(_Event):
    total_steps: Annotated[int, Ge(1), Lt(1 << 62)]


@dataclass(frozen=True)
class _Change(_Event):
    number: Count
    planned: Count | None = None
    request: str | None = None


@dataclass(frozen=True)
class _Edit(_Change):
    edit: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Set(_Change):
    settings: dict[str, Any] = field(default_factory=dict)
    undoes: Count | None = None
    rate: float | None = None  # what `lr` comes to, at once or after the rise; the settings have the schedule's peak


CHANGES: Mapping[str, type[_Event]] = {"edit": _Edit, "undo": _Change, "set": _Set, "withdrawn": _Change, "refused": _Change}
_EVENTS: Mapping[str, type[_Event]] = {"skip": _Event, "back": _Back, "micro_batch": _MicroBatch, "pace": _Pace, **CHANGES}


def read_events(run: RunDir, phases: Collection[str]) -> list[dict[str, Any]]:
    """The events that a resumed run must meet again; those of other kinds are passed over. Raises DamagedError for the impossible."""
    found = []
    for number, event in enumerate(run.events(), 1):
        kind, where = _EVENTS.get(str(event.get("event"))), f"{run.events_file}:{number}"
        if kind is None:
            continue
        known = checked(kind, event, where)
        if isinstance(known, _MicroBatch) and known.phase not in phases:
            raise DamagedError(f"must name one of the phases {', '.join(phases)}, got {known.phase!r}", where=where)
        if isinstance(known, _Pace) and known.total_steps <= known.step:
            raise DamagedError(f"total_steps must lie after step {known.step}, got {known.total_steps}", where=where)
        found.append(event)
    return found
