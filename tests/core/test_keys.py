"""Law 1: numbers and orders are pure functions of their keys, and stay what they were in older versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import keys


def test_numbers_of_older_versions_repeat() -> None:
    """Golden: a change here changes every run that was ever recorded."""
    assert keys.generator(0, "augment", 0).random(3).tolist() == GOLDEN_AUGMENT
    assert keys.generator(7, "mix", 1 << 40).integers(0, 1 << 32, 3).tolist() == GOLDEN_MIX
    assert keys.permutation(0, 10, 0).tolist() == GOLDEN_ORDER
    assert keys.permutation(3, 7, 5).tolist() == GOLDEN_LATER_ORDER
    assert keys.derive(1, "dropout", 2) == GOLDEN_SEED


GOLDEN_AUGMENT = [0.4343470535262385, 0.7019257860471912, 0.9611627166968533]
GOLDEN_MIX = [566782768, 3715755054, 805738633]
GOLDEN_ORDER = [2, 9, 8, 4, 5, 0, 3, 7, 6, 1]
GOLDEN_LATER_ORDER = [5, 0, 4, 3, 6, 2, 1]
GOLDEN_SEED = 9027285757960999662


def test_each_part_of_the_key_counts() -> None:
    kinds = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "ab", 0), (0, "", 0), ((1 << 63) - 1, "a", 0), (0, "a", 1 << 62)]
    draws = [keys.generator(*kind).random(64) for kind in kinds]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert not np.isin(first, second).any()
    seeds = {keys.derive(*kind) for kind in kinds}
    assert len(seeds) == len(kinds) and all(0 <= seed < 1 << 63 for seed in seeds)


def test_purposes_and_neighbours_are_not_correlated() -> None:
    count = 2000
    first = np.array([keys.generator(0, "augment", p).random() for p in range(count)])
    other = np.array([keys.generator(0, "mix", p).random() for p in range(count)])
    seeded = np.array([keys.generator(1, "augment", p).random() for p in range(count)])
    for a, b in ((first, other), (first, seeded), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(count)
    assert abs(first.mean() - 0.5) < 4 * np.sqrt(1 / 12 / count)


@given(
    seed=st.integers(0, (1 << 63) - 1), count=st.integers(1, 40), start=st.integers(0, 500), sizes=st.lists(st.integers(1, 17), min_size=1)
)
def test_the_order_is_the_same_in_batches_of_any_size(seed: int, count: int, start: int, sizes: list[int]) -> None:
    whole = keys.sample_indices(seed, count, np.arange(start, start + sum(sizes)))
    parts, position = [], start
    for size in sizes:
        parts.append(keys.sample_indices(seed, count, np.arange(position, position + size)))
        position += size
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole.dtype == np.int64


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), epoch=st.integers(0, 1 << 20))
def test_each_sample_comes_once_an_epoch(seed: int, count: int, epoch: int) -> None:
    positions = np.arange(epoch * count, (epoch + 1) * count)
    indices = keys.sample_indices(seed, count, positions)
    assert sorted(indices.tolist()) == list(range(count))
    assert indices.tolist() == keys.permutation(seed, count, epoch).tolist()
    back = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    assert keys.sample_indices(seed, count, positions[back]).tolist() == indices[back].tolist()


def test_epochs_and_seeds_differ_and_an_order_cannot_be_written_to() -> None:
    orders = {tuple(keys.permutation(seed, 50, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    with pytest.raises(ValueError, match="read-only"):
        keys.permutation(0, 50, 0)[0] = 1


def test_no_position_gives_no_index() -> None:
    assert keys.sample_indices(0, 5, np.array([], np.int64)).shape == (0,)


def test_path_hash_is_a_share_that_depends_on_the_path_alone() -> None:
    assert keys.path_hash("cat/1.jpg") == pytest.approx(GOLDEN_SHARE, abs=1e-15)
    shares = np.array([keys.path_hash(f"cat/{i}.jpg") for i in range(2000)])
    assert (shares >= 0).all() and (shares < 1).all() and len(set(shares.tolist())) == 2000
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 2000)


GOLDEN_SHARE = 0.38784836223743413


def test_path_hash_takes_names_that_are_not_utf8() -> None:
    name = b"cat/caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert 0 <= keys.path_hash(name) < 1


@given(
    seed=st.integers(0, (1 << 63) - 1),
    draws=st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.sampled_from(["random", "beta", "words", "half"])), max_size=12),
)
def test_a_generator_set_from_place_to_place_gives_what_a_fresh_one_gives(seed: int, draws: list[tuple[int, str]]) -> None:
    ways = {
        "random": lambda g: g.random(21).tolist(),
        "beta": lambda g: g.beta(0.8, 0.8),
        "words": lambda g: g.integers(0, 1 << 63, 3).tolist(),
        "half": lambda g: g.integers(0, 1 << 16, 3, dtype=np.uint32).tolist(),  # leaves half a word behind
    }
    numbers = keys.Keyed(seed, "augment")
    for position, way in draws:
        assert ways[way](numbers.at(position)) == ways[way](keys.generator(seed, "augment", position))
