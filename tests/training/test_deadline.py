"""Runs that are slower than they were measured to be."""

from __future__ import annotations

import pytest

from saccade.training.deadline import Deadline
from saccade.training.schedule import Schedule


def ended(costs: list[float], at: float, steady: float) -> tuple[int, float]:
    """The last step and the time when it is done, where step i takes costs[i] and the run is shortened once at most."""
    schedule, now, total = Schedule(len(costs), 0.05), 0.0, len(costs)
    deadline, step = Deadline(at, steady, now), 0
    while step < total:
        now, step = now + costs[step], step + 1
        if total == len(costs) and not step % 2:
            total = deadline.affordable(step, step, schedule, now) or total
    return step, now


@pytest.mark.parametrize(("slower", "steps"), [(1.0, 200), (1.3, 150), (2.0, 96)])
def test_steady_runs(slower: float, steps: int) -> None:
    last, now = ended([slower] * 200, 200.0, 0.0)
    assert last == pytest.approx(steps, abs=3) and now <= 206


@pytest.mark.parametrize("slower", [1.0, 1.1, 1.3, 1.5])
def test_runs_whose_first_half_costs_a_quarter(slower: float) -> None:
    last, now = ended([slower * 0.25] * 100 + [slower] * 100, 125.0, 0.5)
    assert now <= 130 and (last == 200) is (slower == 1.0)


def test_without_a_deadline_nothing_is_shortened() -> None:
    deadline = Deadline(None, 0.0, 0.0)
    assert deadline.affordable(150, 150, Schedule(200, 0.05), 1e9) is None
