"""The learning rate: golden values, no jump where it is shortened."""

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
def test_shortening_has_no_jump_and_ends_at_zero(total: int, warmup: float, data: st.DataObject) -> None:
    plain, cut = Schedule(total, warmup), Schedule(total, warmup)
    step = data.draw(st.integers(0, total - 1))
    new = data.draw(st.integers(step + 1, total))
    cut.shorten(step, new)
    assert [cut.factor(s) for s in range(step + 1)] == [plain.factor(s) for s in range(step + 1)]
    done = [cut.progress(s) for s in range(new + 1)]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
    pace = (1 - plain.progress(step)) / (new - step)
    assert done[step + 1] - done[step] == pytest.approx(pace)
    with pytest.raises(ValueError):
        cut.shorten(step, new)


@pytest.mark.parametrize(("step", "total"), [(5, 5), (5, 4), (5, 11)])
def test_an_end_in_the_past_or_beyond_is_refused(step: int, total: int) -> None:
    with pytest.raises(ValueError):
        Schedule(10, 0.1).shorten(step, total)
