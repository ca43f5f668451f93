"""Runs that are slower or faster than they were measured to be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saccade.api import fitting
from saccade.training.deadline import Deadline, Evaluations
from saccade.training.schedule import Schedule


def ended(
    costs: list[float], at: float, steady: float, planned: int = 0, most: int = 0, every: int = 1000, dear: float = 0.0
) -> tuple[list[int], float]:
    """The ends of the schedule of `planned` (all) steps, the last step the last, and the time when it is done; step i takes costs[i], and
    an evaluation after every `every` of them and after the last `dear`."""
    schedule, now, step = Schedule(planned or len(costs), 0.05), 0.0, 0
    deadline, evaluations, ends = Deadline(at, steady, now), Evaluations(every), []
    while step < schedule.total:
        now, step = now + costs[step], step + 1
        if dear and (step % every == 0 or step == schedule.total):
            now += dear
            evaluations.took(dear)
        total = None
        if not step % 2 and step < schedule.total:
            total = deadline.affordable(step, step, schedule, now, evaluations, most=most)
        if total:
            schedule.end_at(step, total)
            ends.append(total)
    return [*ends, step], now


@pytest.mark.parametrize(("slower", "steps"), [(1.0, 200), (1.3, 150), (2.0, 96)])
def test_steady_runs(slower: float, steps: int) -> None:
    ends, now = ended([slower] * 200, 200.0, 0.0)
    assert ends[-1] == pytest.approx(steps, abs=3) and now <= 206 and len(ends) <= 2


@pytest.mark.parametrize("slower", [1.0, 1.1, 1.3, 1.5])
def test_runs_whose_first_half_costs_a_quarter(slower: float) -> None:
    ends, now = ended([slower * 0.25] * 100 + [slower] * 100, 125.0, 0.5)
    assert now <= 130 and (ends[-1] == 200) is (slower == 1.0)


@pytest.mark.parametrize(("each", "steps"), [(0.95, 100), (0.9, 110), (0.7, 140), (0.3, 200)])
def test_runs_that_are_faster(each: float, steps: int) -> None:
    """Lengthened, when most of them is done, to no more than they may be; once where the speed stays."""
    ends, now = ended([each] * 400, 100.0, 0.0, planned=100, most=200)
    assert ends[-1] == pytest.approx(steps, abs=4) and now <= 100 and len(set(ends)) == 1


def test_a_run_whose_speed_was_taken_for_too_low_is_lengthened_again() -> None:
    """The first steps of another size are slow: what they leave is used too, but for some hundredths."""
    ends, now = ended([0.5] * 500 + [1.0] * 50 + [0.5] * 1500, 700.0, 0.5, planned=1000, most=2000)
    assert 1000 < ends[0] < ends[1] == ends[-1] and 660 < now <= 700


def test_a_run_that_was_lengthened_may_still_be_shortened() -> None:
    ends, now = ended([0.7] * 80 + [2.0] * 100, 100.0, 0.0, planned=100, most=200)
    assert ends[0] > 120 > ends[-1] > 90 and ends == sorted(ends, reverse=True) and now <= 103


def test_what_comes_after_the_last_step_has_its_time() -> None:
    """That of two evaluations is not taken for time that is left."""
    assert ended([0.88] * 200, 100.0, 0.0, planned=100, most=200, every=50, dear=4.0) == ([100], pytest.approx(96))
    ends, now = ended([0.7] * 200, 100.0, 0.0, planned=100, most=200, every=50, dear=4.0)
    assert len(set(ends)) == 1 and 112 < ends[-1] < 122 and 88 < now <= 96


@pytest.mark.parametrize(("every", "dear"), [(166, 40.0), (83, 20.0), (120, 60.0), (500, 10.0), (20, 2.0)])
@pytest.mark.parametrize("speed", [0.3, 0.6, 0.9, 1.0, 1.1])
def test_few_evaluations_that_are_dear_are_neither_forgotten_nor_taken_for_steps(every: int, dear: float, speed: float) -> None:
    """Where steps take `speed` times what was planned: the end is moved twice at most, and never back and forth."""
    planned = [0.25 * speed] * 500 + [speed] * 3000
    at = 0.25 * 500 + 500 + (1000 // every + 1) * dear
    ends, now = ended(planned, at, 0.5, planned=1000, most=2000, every=every, dear=dear)
    assert len(set(ends)) <= 2 and ends == sorted(ends, reverse=speed > 1) and now <= at * 1.01 + dear * (speed > 1)
    assert speed > 0.9 or ends[-1] == 2000 or now > at * 0.9 - 3 * dear


def test_steps_as_dear_as_ten_have_their_share() -> None:
    """Every 20th step is one, which was reckoned with: no few steps are taken for all."""
    costs = [10.0 if step % 20 == 13 else 1.0 for step in range(400)]
    assert ended(costs, 585.0, 0.5) == ([400], 580.0)


def test_a_run_that_may_not_is_not_lengthened() -> None:
    assert ended([0.5] * 100, 100.0, 0.0, most=100) == ([100], 50.0)


def test_without_a_deadline_nothing_is_moved() -> None:
    deadline = Deadline(None, 0.0, 0.0)
    assert deadline.affordable(150, 150, Schedule(200, 0.05), 1e9, Evaluations(10)) is None


@pytest.mark.parametrize(
    ("epochs", "resume", "steps"), [(0.0, False, 200), (15.0, False, 150), (10.0, False, 100), (50.0, False, 200), (50.0, True, 0)]
)
def test_how_far_a_run_may_be_lengthened(epochs: float, resume: bool, steps: int) -> None:
    """Twice the 100 steps that were planned, the epochs asked for, and not at all where minutes begin anew."""
    resolved, config = SimpleNamespace(total_steps=100, steps_per_epoch=10), SimpleNamespace(epochs=epochs)
    start: Any = SimpleNamespace(resolved=resolved, setup=SimpleNamespace(config=config), resume=resume)
    assert fitting._longest(start) == steps
