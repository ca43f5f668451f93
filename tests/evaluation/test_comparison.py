"""paired: the difference of two models on the same images, held against a bootstrap written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.core.results import Classification
from saccade.evaluation import comparison
from saccade.evaluation.comparison import paired
from saccade.evaluation.intervals import bootstrap, resample
from saccade.tasks.classification.metrics import ClassificationMetric

CLASSES = ("blue", "green", "red")


def answers(probabilities: NDArray[Any]) -> list[Classification]:
    rows = probabilities.astype(np.float32)
    order = np.argsort(-rows, axis=1, kind="stable")
    return [Classification(order[i], row[order[i]], row, CLASSES, str(i), (1, 1)) for i, row in enumerate(rows)]


def metric(probabilities: NDArray[Any], truths: NDArray[Any]) -> ClassificationMetric:
    made = ClassificationMetric(CLASSES)
    made.update(answers(probabilities), truths.tolist())
    return made


def two_models(n: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Truths, and the probabilities of a good model and of one that is mostly the same but worse."""
    generator = np.random.Generator(np.random.Philox(seed))
    truths = generator.integers(0, 3, n)
    good = generator.dirichlet([1, 1, 1], n) + 0.6 * np.eye(3)[truths]
    worse = np.where(generator.random(n)[:, None] < 0.25, generator.dirichlet([1, 1, 1], n), good)
    return truths, good / good.sum(1, keepdims=True), worse / worse.sum(1, keepdims=True)


def test_equal_to_a_paired_bootstrap_written_out() -> None:
    truths, good, worse = two_models(80)
    found = paired(metric(good, truths), metric(worse, truths), 80, seed=3)
    good, worse = good.astype(np.float32), worse.astype(np.float32)  # as results hold them
    hits = [(p.argmax(1) == truths).astype(float) for p in (good, worse)]
    losses = [-np.log(p[np.arange(80), truths].astype(float)) for p in (good, worse)]
    for name, (first, second) in {"accuracy": hits, "nll": losses}.items():
        drawn = []
        for number in range(comparison.RESAMPLES):
            places = np.repeat(np.arange(80), resample(80, 3, number))
            assert len(places) == 80
            drawn.append(second[places].mean() - first[places].mean())
        low, high = np.quantile(drawn, [0.025, 0.975])
        row = found[name]
        assert row["value"] == pytest.approx(second.mean() - first.mean(), abs=1e-12)
        assert (row["low"], row["high"]) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
        assert low < high


def test_near_a_bootstrap_with_other_random_numbers() -> None:
    truths, good, worse = two_models(200, seed=1)
    row = paired(metric(good, truths), metric(worse, truths), 200)["accuracy"]
    apart = (worse.argmax(1) == truths).astype(float) - (good.argmax(1) == truths)
    draws = np.random.default_rng(9).integers(0, 200, (4000, 200))
    low, high = np.quantile(apart[draws].mean(1), [0.025, 0.975])
    assert row["value"] == pytest.approx(apart.mean())
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))


def test_pairing_makes_it_narrower_than_two_intervals_that_know_nothing_of_each_other() -> None:
    truths, good, worse = two_models(200)
    first, second = metric(good, truths), metric(worse, truths)
    row = paired(first, second, 200)["accuracy"]
    assert row["low"] is not None and row["high"] is not None
    alone = [bootstrap(one, 200)["accuracy"] for one in (first, second)]
    assert row["high"] - row["low"] < 0.8 * sum(high - low for low, high in alone) / np.sqrt(2)


def test_the_sign_is_that_of_the_second_less_the_first() -> None:
    truths, good, worse = two_models(120)
    down, up = paired(metric(good, truths), metric(worse, truths), 120), paired(metric(worse, truths), metric(good, truths), 120)
    assert down["accuracy"]["value"] < 0 < up["accuracy"]["value"]  # type: ignore[operator]
    for name, row in down.items():
        if row["value"] is None:
            continue
        assert up[name]["value"] == pytest.approx(-row["value"])
        assert up[name]["low"] == pytest.approx(-row["high"]) and up[name]["high"] == pytest.approx(-row["low"])  # type: ignore[operator]


def test_equal_models_do_not_differ() -> None:
    truths, good, _ = two_models(50)
    found = paired(metric(good, truths), metric(good.copy(), truths), 50)
    assert {name for name, row in found.items() if row["value"] is None} == {"top5_accuracy"}
    assert all(row == {"value": 0.0, "low": 0.0, "high": 0.0} for name, row in found.items() if name != "top5_accuracy")


def test_one_image_has_no_interval_and_none_no_figure() -> None:
    truths, good, worse = two_models(1)
    one = paired(metric(good, truths), metric(worse, truths), 1)
    assert one["nll"]["value"] is not None
    assert all((row["low"], row["high"]) == (None, None) for row in one.values())
    none = paired(ClassificationMetric(CLASSES), ClassificationMetric(CLASSES), 0)
    assert set(none) == set(one)
    assert all(row == {"value": None, "low": None, "high": None} for row in none.values())


def test_a_figure_that_one_of_them_lacks_is_none_in_both_directions() -> None:
    truths, good, _ = two_models(30)
    labels = ClassificationMetric(CLASSES)
    labels.update_labels(good.argmax(1), truths)
    for found in (paired(metric(good, truths), labels, 30), paired(labels, metric(good, truths), 30)):
        assert found["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert found["ece"] == found["nll"] == {"value": None, "low": None, "high": None}


def test_seed_and_level() -> None:
    truths, good, worse = two_models(60)
    first, second = metric(good, truths), metric(worse, truths)
    assert paired(first, second, 60) == paired(first, second, 60, seed=0, level=0.95)
    assert paired(first, second, 60) != paired(first, second, 60, seed=1)
    wide, narrow = paired(first, second, 60)["nll"], paired(first, second, 60, level=0.5)["nll"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]  # type: ignore[operator]
