"""Positions dealt out by kinds: each once, in nearly pure batches, whatever the batch becomes on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from saccade.core import keys
from saccade.data.dealing import WINDOW, Dealing, Deals, dealt_anew

SIZES = some.integers(1, 9)


def mixed(kinds: np.ndarray, taken: np.ndarray, batch: int) -> int:
    """How many whole batches are of more than one kind; one epoch in order, so that position p is of kind p."""
    rows = kinds[taken[: len(taken) // batch * batch]].reshape(-1, batch)
    return int((rows != rows[:, :1]).any(1).sum())


@given(
    some.integers(2, 4),
    some.integers(0, 3),
    SIZES,
    some.lists(some.tuples(some.integers(0, 3 * WINDOW), SIZES), max_size=4),
    some.integers(0, 1000),
)
def test_each_position_comes_once_and_batches_are_of_one_kind(
    kinds: int, seed: int, first: int, changes: list[tuple[int, int]], mark: int
) -> None:
    """Steps are counted before each change of the batch; the last goes on until nothing of what was dealt out is left."""
    every = np.random.Generator(np.random.Philox(seed)).integers(0, kinds, 37)
    deals: Deals = ((0, first),)
    taken, place = [], 0
    for steps, batch in [*changes, (0, 1)]:
        former = Dealing(every, seed, deals)
        taken.append(former.positions(np.arange(place, place := place + steps * deals[-1][1])))
        deals = dealt_anew(deals, place, batch)
    assert [begin for begin, _ in deals] == sorted({begin for begin, _ in deals}) and deals[-1][1] == 1
    begin, last = deals[-1][0], Dealing(every, seed, deals)
    windows = -(-(len(last._left[-1]) + place - begin) // WINDOW) + 1
    end = begin + windows * WINDOW
    taken.append(last.positions(np.arange(place, end)))
    whole = np.concatenate(taken)
    assert sorted(whole.tolist()) == list(range(end)), "each once, and none beyond"
    again = last.positions(np.arange(end))
    assert np.array_equal(again, whole), "what the deals alone give, as a resumed run has them"
    assert np.array_equal(last.positions(np.arange(mark % end, end)), whole[mark % end :])


@pytest.mark.parametrize(("at", "former", "batch"), [(8, 8, 12), (200, 8, 4), (256, 8, 12), (24, 2, 30), (30, 30, 2)])
def test_what_is_left_is_dealt_out_anew_at_once(at: int, former: int, batch: int) -> None:
    """From the next step on batches are of one kind, but where two meet: not only when the window that was begun has come to its end."""
    every = np.arange(5000) % 3
    deals = dealt_anew(((0, former),), at, batch)
    dealing = Dealing(every, 1, deals)
    kinds = every[keys.sample_indices(1, len(every), np.arange(len(every)))]
    for window in range(3):
        taken = dealing.positions(at + np.arange(window * WINDOW * batch, (window + 1) * WINDOW * batch))
        assert mixed(kinds, taken, batch) <= 2
        starts = kinds[taken[::batch]][: WINDOW // 2]
        assert len(set(starts.tolist())) == 3, "not one kind after the other"


def test_a_change_that_is_taken_back_at_once_changes_nothing() -> None:
    deals: Deals = ((0, 8),)
    assert dealt_anew(dealt_anew(deals, 24, 4), 24, 8) == deals
    assert dealt_anew(deals, 0, 4) == ((0, 4),)
    assert dealt_anew(dealt_anew(deals, 24, 4), 24, 6) == ((0, 8), (24, 6))
    assert dealt_anew(dealt_anew(deals, 24, 4), 28, 8) == ((0, 8), (24, 4), (28, 8))
