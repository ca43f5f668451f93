"""Validation held out by a hash of the path: the same for every seed, order and neighbour."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core.keys import path_hash
from saccade.data.splitting import LARGE, hold_out


def paths(label: str, count: int) -> list[str]:
    return [f"{label}/{i}.jpg" for i in range(count)]


def held(names: list[str]) -> set[str]:
    labels = sorted({name.split("/")[0] for name in names})
    targets = np.array([labels.index(name.split("/")[0]) for name in names])
    return {names[i] for i in np.flatnonzero(hold_out(names, targets))}


def test_golden() -> None:
    """A change here gives every earlier run other validation images."""
    assert held(paths("cat", 20) + paths("dog", 12)) == GOLDEN


GOLDEN = {"cat/3.jpg", "cat/8.jpg", "cat/13.jpg", "dog/6.jpg", "dog/9.jpg"}


def test_no_seed_goes_in() -> None:
    assert list(inspect.signature(hold_out).parameters) == ["paths", "targets"]


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(0, 40))
def test_neither_order_nor_other_classes_matter(random: object, cats: int, dogs: int) -> None:
    names = paths("cat", cats) + paths("dog", dogs)
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert held(shuffled) == held(names)
    assert {name for name in held(names) if name.startswith("cat")} == held(paths("cat", cats))


@given(st.integers(2, 60))
def test_one_more_image_moves_at_most_one_other(count: int) -> None:
    before, after = held(paths("cat", count)), held(paths("cat", count + 1))
    assert len(before - after) <= 1
    assert max(map(path_hash, before)) < min(path_hash(name) for name in paths("cat", count) if name not in before)


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 1), (3, 1), (7, 1), (10, 2), (20, 3), (100, 15), (1999, 300), (2000, 200)])
def test_how_many_of_a_class(count: int, expected: int) -> None:
    assert len(held(paths("cat", count))) == expected


def test_stratified() -> None:
    counts = {"a": LARGE, "b": 500, "c": 40, "d": 2, "e": 1}
    names = [name for label, count in counts.items() for name in paths(label, count)]
    chosen = held(names)
    assert {label: sum(n.startswith(f"{label}/") for n in chosen) for label in counts} == {"a": 200, "b": 50, "c": 4, "d": 1, "e": 0}


def test_nothing() -> None:
    assert hold_out([], np.array([], np.int64)).shape == (0,)


def test_held_out_images_are_spread_over_the_names() -> None:
    """The first images of a camera are no validation set: a hash takes them from everywhere."""
    places = sorted(int(name.split("/")[1].split(".")[0]) for name in held(paths("cat", 1000)))
    assert 400 < np.mean(places) < 600 and max(np.diff(places)) < 60
