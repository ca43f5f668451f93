"""Edits that wait for a stall which the run would not live to see are refused before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saccade.api.scheduling import _check_stalls
from saccade.core.errors import UserError
from saccade.core.scheduled import Scheduled
from small_jobs import resolved


@pytest.mark.parametrize(
    ("stalls", "steps", "patience", "said"),
    [
        (2, 13, 0, ""),  # evaluations after steps 4, 8 and 12, and a step to come
        (2, 12, 0, "stalls 1)"),
        (3, 13, 0, "3 without a better one never come: the run has 3 evaluations before its last step, of which the first is the best"),
        (1, 4, 0, "at epoch X, or more epochs"),
        (1, 5, 0, "at epoch X, or more epochs"),
        (2, 100, 3, ""),
        (3, 100, 3, "stops after 3 without a better one (--set patience=4, or when accuracy stalls 2)"),
        (5, 100, 1, "(--set patience=6)"),
    ],
)
def test_a_stall_that_cannot_come(stalls: int, steps: int, patience: int, said: str) -> None:
    one = Scheduled.parse(f"when accuracy stalls {stalls}: freeze *")
    facts = replace(resolved(every=4), total_steps=steps)
    if not said:
        _check_stalls(one, facts, patience, "--edit")
        return
    with pytest.raises(UserError) as caught:
        _check_stalls(one, facts, patience, "--edit")
    assert said in str(caught.value)
