"""How many steps fit into the minutes, and how often to look."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.training import budget

counts = st.integers(1, 100_000)


def test_an_epoch() -> None:
    assert [budget.steps_per_epoch(n, 32) for n in (0, 1, 32, 33)] == [1, 1, 1, 2]


@given(counts, st.integers(1, 5000), counts, st.integers(0, 20_000))
def test_evaluations_are_few_and_at_whole_epochs(total: int, per_epoch: int, train: int, val: int) -> None:
    every = budget.evaluate_every(total, per_epoch, train, val)
    assert 1 <= every <= total
    assert every == total or every % per_epoch == 0
    assert math.ceil(total / every) <= budget.MOST_EVALUATIONS
    if every < total:
        assert val <= every / per_epoch * train / 3 + 1e-6


@given(st.floats(1, 1e5), st.floats(1e-4, 5), st.floats(0, 30), st.integers(1, 3000))
def test_steps_with_their_evaluations_fit(seconds: float, per_step: float, evaluation: float, per_epoch: int) -> None:
    total = budget.steps_in(seconds, per_step, evaluation, per_epoch)
    assert total >= 1
    every = budget.evaluate_every(total, per_epoch, 1000, 1, budget.evaluations(seconds, evaluation))
    if total > 1:
        usable = seconds * (1 - budget.RESERVE_SHARE) - budget.RESERVE_SECONDS
        assert total * per_step + math.ceil(total / every) * evaluation <= usable + 1e-6


def test_golden_steps() -> None:
    assert budget.steps_in(108, 0.1, 2, 100) == 780  # (108 * 0.96 - 8 - 2) / (0.1 + 2 / 100)
    assert budget.steps_in(5, 0.1, 2, 100) == 1  # no time at all still trains a step
    assert budget.steps_in(1000, 0.1, 1, 10) == 9110  # an evaluation each epoch would take half the time: 40 are enough
    assert budget.steps_in(1000, 0.1, 5, 10) == 8970  # (1000 * 0.96 - 8 - 5 - 10 * 5) / 0.1: fewer where each takes long


def test_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    took = [9.0, 5.0, 2.0, *[0.1, 0.2, 0.3] * 3]
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    seen: list[int] = []

    def step(number: int) -> None:
        seen.append(number)
        clock.now += took[number]

    assert budget.measure_steps([step]) == pytest.approx([0.2])
    assert seen == list(range(budget.PROBES))
    took, clock.now = [12.0] * 12, 0.0
    seen.clear()
    assert budget.measure_steps([step]) == pytest.approx([12])
    assert len(seen) == budget.WARM_UP + 1, "very slow steps are not measured any longer than needed"


def test_two_ways_are_measured_in_turns_on_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    done: list[tuple[str, int]] = []

    def way(name: str, times: float) -> Callable[[int], None]:
        def step(number: int) -> None:
            done.append((name, number))
            clock.now += times * (1.0 if budget.spread(number) < 0.5 else 4.0)

        return step

    one, other = budget.measure_steps([way("a", 1.0), way("b", 0.95)], paced=True)
    assert other == pytest.approx(0.95 * one), "however few probes there is time for"
    assert len(done) == 4 * (budget.WARM_UP + 1), "the time is for both"
    assert done[:4] == [("a", 0), ("a", 0), ("b", 0), ("b", 0)]


def test_steps_that_change_on_the_way_of_a_run_are_averaged_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    done: list[int] = []

    def step(number: int) -> None:
        first = number not in done
        done.append(number)
        clock.now += (0.1 if budget.spread(number) < 0.6 else 0.4) + 0.3 * first

    assert budget.measure_steps([step], paced=True) == pytest.approx([0.6 * 0.1 + 0.4 * 0.4], rel=0.1)
    assert all(abs(sum(budget.spread(n) < 0.5 for n in range(first, first + 8)) - 4) <= 1 for first in range(50))


def test_the_copy_is_independent() -> None:
    net = nn.Linear(2, 2)
    copy = budget.copy_of(net)
    with torch.no_grad():
        copy.weight.zero_()
    assert net.weight.abs().sum() > 0


def test_plain_values() -> None:
    facts = budget.Resolved("cpu", "fp32", 2, 0, 4, 12, 4)
    assert budget.Resolved(**facts.to_dict()) == facts
