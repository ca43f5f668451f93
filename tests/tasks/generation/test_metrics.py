"""Figures of models that make images: which there are, what they are of, and when they say that training has failed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from saccade.tasks.generation import distances, metrics
from saccade.tasks.generation.metrics import GenerationMetric, fault, name_of


def sets(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(90, 5)), generator.normal(size=(120, 5)) + shift


def test_distances_bear_the_name_of_their_features() -> None:
    real, made = sets(0.5)
    metric = GenerationMetric("resnet18", likely=False)
    assert metric.compute() == {"fid_resnet18": None}
    metric.update(list(made[:50]), list(real))
    metric.update(list(made[50:]), [])
    figures = metric.compute()
    names = ("fid", "kid", "precision", "recall", "density", "coverage", "spread")
    assert list(figures) == [f"{name}_resnet18" for name in names]
    assert figures["fid_resnet18"] == pytest.approx(distances.frechet(real, made))
    assert metric.primary == "fid_resnet18" and not metric.higher_is_better
    low, high = metric.intervals()["fid_resnet18"]
    assert low < figures["fid_resnet18"] < high
    json.dumps([figures, metric.details(), metric.per_class()], allow_nan=False)


def test_likelihoods_and_reconstructions() -> None:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (6, 12, 12, 1), dtype=np.uint8)
    close = np.clip(images.astype(int) + generator.integers(-3, 4, images.shape), 0, 255).astype(np.uint8)
    nats = -np.log(256) * 144 * np.array([1, 1, 1, 1, 1, 2.0])
    metric = GenerationMetric("x", likely=True)
    metric.update_taken(images[:4], nats[:4], close[:4], weighted=nats[:4] + 1)
    metric.update_taken(images[4:], nats[4:], images[4:], weighted=nats[4:] + 1)
    figures = metric.compute()
    assert figures["bits_per_dim"] == pytest.approx(8 * 7 / 6)
    assert figures["bits_per_dim_weighted"] < figures["bits_per_dim"]
    assert metric.compute(np.array([1, 1, 1, 1, 1, 0]))["bits_per_dim"] == pytest.approx(8.0), "a uniform model needs 8 bits for 8 bits"
    assert figures["psnr"] < 100 and figures["ssim"] > 0.9
    low, high = metric.intervals()["bits_per_dim"]
    assert low < figures["bits_per_dim"] < high
    json.dumps(figures, allow_nan=False)


def test_the_judge_is_right_about_pairs() -> None:
    metric = GenerationMetric("x", likely=False)
    metric.update_judge(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0]))
    assert metric.compute()["told_apart"] == pytest.approx((0.5 + 0.75 + 1.0) / 3)


GOOD = {"fid_x": 10.0, "spread_x": 0.8, "told_apart": 0.7}


@pytest.mark.parametrize(
    ("now", "best", "said"),
    [
        (GOOD, {}, ""),
        (GOOD, GOOD, ""),
        ({**GOOD, "spread_x": 0.001}, {}, ""),
        ({**GOOD, "spread_x": 0.001}, {**GOOD, "spread_x": 0.002}, ""),
        ({**GOOD, "spread_x": 0.001}, GOOD, "collapsed"),
        ({**GOOD, "fid_x": 79.0}, GOOD, ""),
        ({**GOOD, "fid_x": 81.0}, GOOD, "diverged"),
        ({**GOOD, "fid_x": 50.0, "told_apart": 1.0}, GOOD, "tells all made images apart"),
        ({"bits_per_dim": 3.0}, {"bits_per_dim": 1.0}, ""),
        ({"fid_x": None}, GOOD, ""),
    ],
)
def test_faults(now: dict[str, float], best: dict[str, float], said: str) -> None:
    found = fault(now, best)
    assert said in found and bool(found) == bool(said)


def test_names() -> None:
    assert [name_of(name) for name in ("classifier", "resnet18.a1_in1k", "/a/b/my.safetensors", "runs/photos-1")] == [
        "classifier",
        "resnet18",
        "my",
        "photos-1",
    ]


def test_intervals_are_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REPEATS", 5)
    real, made = sets()
    metric = GenerationMetric("x", likely=False)
    metric.update(list(made), list(real))
    assert metric.intervals(1) == metric.intervals(1) != metric.intervals(2)
