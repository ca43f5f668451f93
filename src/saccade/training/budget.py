"""How many steps a run takes: from epochs, or from minutes by measuring a few steps on this machine first."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Lt

from saccade.core.errors import UserError

Number = Literal["fp32", "bf16", "fp16"]  # the format of the computation
Steps = Annotated[int, Ge(1), Lt(1 << 62)]
PROBES = 12
WARM_UP = 3
LONGEST = 20.0  # seconds of probes
GOLDEN = (math.sqrt(5) - 1) / 2
MOST_EVALUATIONS, FEWEST_EVALUATIONS = 40, 10
EVALUATING = 0.05  # share of the time that evaluations may take where there are more than the fewest
RESERVE_SHARE = 0.04
RESERVE_SECONDS = 8.0
MOST_STEPS = 1 << 40
CLOSE = 1e-6  # of a step: epochs are a fraction, and steps are not


@dataclass(frozen=True)
class Resolved:
    """What was measured or derived before step 0, and never again: frozen in run.json.

    device, precision, threads and workers are facts of the machine; total_steps, steps_per_epoch and evaluate_every count
    optimizer steps. seconds_per_step is what the probe measured (0 where epochs were given).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    device: str
    precision: Number
    threads: Annotated[int, Ge(1), Lt(1 << 16)]
    workers: Annotated[int, Ge(0), Lt(1 << 16)]
    steps_per_epoch: Steps
    total_steps: Steps
    evaluate_every: Steps
    seconds_per_step: Annotated[float, Ge(0)] = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def steps_per_epoch(images: int, batch: int) -> int:
    """An epoch is ceil(N / batch) steps of the endless stream."""
    return max(1, math.ceil(images / batch))


def steps_left(images: float, batch: int) -> int:
    """Steps that so many images more take, none or fewer where they have been seen."""
    return math.ceil(min(images / batch, MOST_STEPS) - CLOSE)


def check_left(steps: int, epochs: float, done: float) -> None:
    """Raise UserError where `epochs`, of which so many are done, leave a run no step, or more than can be counted."""
    if steps <= 0:
        raise UserError(f"epochs must be more than the {done:.2f} that are done, got {epochs:g}", where="set")
    if steps >= MOST_STEPS:
        raise UserError(f"epochs must be fewer, got {epochs:g}", where="set")


def evaluations(seconds: float, seconds_per_evaluation: float) -> int:
    """How often to evaluate at most in this time."""
    return max(FEWEST_EVALUATIONS, min(MOST_EVALUATIONS, int(EVALUATING * seconds / max(1e-9, seconds_per_evaluation))))


def evaluate_every(total_steps: int, per_epoch: int, train_images: int, val_images: int, most: int = MOST_EVALUATIONS) -> int:
    """Steps between evaluations: whole epochs, at most `most` evaluations in all, and at most a quarter of the images looked at."""
    epochs = max(1, math.ceil(total_steps / per_epoch / most), math.ceil(val_images / max(1, train_images) * 3))
    return min(total_steps, epochs * per_epoch)


def steps_in(seconds: float, seconds_per_step: float, seconds_per_evaluation: float, per_epoch: int) -> int:
    """How many steps fit, with an evaluation after each epoch (or as often as `evaluate_every` allows) and a reserve for the end."""
    most = evaluations(seconds, seconds_per_evaluation)
    usable = seconds * (1 - RESERVE_SHARE) - RESERVE_SECONDS - seconds_per_evaluation
    total = max(1, int(usable / (seconds_per_step + seconds_per_evaluation / per_epoch)))
    if total / per_epoch > most:
        total = max(total, int((usable - most * seconds_per_evaluation) / seconds_per_step))
    return max(1, total)


def spread(number: int) -> float:
    """How much of a run is done where the probe of this number stands: however many there are, they lie evenly over it (multiples of the
    golden ratio)."""
    return number * GOLDEN % 1


def measure_steps(ways: Sequence[Callable[[int], None]], *, paced: bool = False) -> list[float]:
    """The median seconds of a training step, done in each of several ways in turns; `way(i)` does the i-th on a copy of the model. paced:
    their mean, as steps change on the way of a run, over which the probes are `spread`; each is done twice and the second counts, as the
    first step of a size prepares for the others."""
    seconds: list[list[float]] = [[] for _ in ways]
    begun = time.perf_counter()
    for i in range(PROBES):
        for way, taken in zip(ways, seconds, strict=True):
            if paced:
                way(i)
            begin = time.perf_counter()
            way(i)
            taken.append(time.perf_counter() - begin)
        if time.perf_counter() - begun > LONGEST and i >= WARM_UP:
            break
    average = statistics.mean if paced else statistics.median
    return [average(taken[min(WARM_UP, len(taken) - 1) :]) for taken in seconds]


def copy_of(model: Any) -> Any:
    """A model to measure on, so that the real one stays as it is."""
    return copy.deepcopy(model)
