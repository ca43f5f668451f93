"""The learning rate: golden values, no jump where its end is moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.schedule import Schedule

totals = st.integers(2, 3000)
warmups = st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0])


def test_golden_values() -> None:
    schedule = Schedule(10, 0.2)
    assert [round(schedule.factor(step), 6) for step in range(11)] == [
        0.5, 1.0, 1.0, 0.96194, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.03806, 0.0,
    ]  # fmt: skip


@pytest.mark.parametrize(("total", "warmup", "first"), [(1, 0.0, 1.0), (1, 0.05, 1.0), (4, 1.0, 0.25), (100, 0.1, 0.1)])
def test_the_first_step_is_never_wasted(total: int, warmup: float, first: float) -> None:
    assert Schedule(total, warmup).factor(0) == pytest.approx(first)


@given(totals, warmups)
def test_rises_then_falls_within_bounds(total: int, warmup: float) -> None:
    schedule = Schedule(total, warmup)
    factors = [schedule.factor(step) for step in range(total + 1)]
    top = factors.index(max(factors))
    assert all(0 <= f <= 1 for f in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert schedule.progress(0) == 0
    assert schedule.progress(total) == 1


@given(totals, warmups, st.data())
def test_moving_the_end_has_no_jump_and_ends_at_zero(total: int, warmup: float, data: st.DataObject) -> None:
    """Earlier or later, several times."""
    now = Schedule(total, warmup)
    step = 0
    for _ in range(data.draw(st.integers(1, 3))):
        before = [now.progress(s) for s in range(now.total + 1)]
        step = data.draw(st.integers(step, now.total - 1))
        new = data.draw(st.integers(step + 1, 2 * total))
        pace = (1 - now.progress(step)) / (new - step)
        now.end_at(step, new)
        done = [now.progress(s) for s in range(new + 1)]
        assert done[: step + 1] == before[: step + 1]
        assert done == sorted(done)
        assert done[-1] == pytest.approx(1)
        assert done[step + 1] - done[step] == pytest.approx(pace)
        assert now.total == new
    assert now.factor(now.total) == pytest.approx(0, abs=1e-9) or warmup == 1


@pytest.mark.parametrize(("step", "total"), [(5, 5), (5, 4), (2, 8), (11, 12)])
def test_an_end_in_the_past_or_a_change_before_another_is_refused(step: int, total: int) -> None:
    now = Schedule(10, 0.1)
    now.end_at(3, 10)
    with pytest.raises(ValueError):
        now.end_at(step, total)
