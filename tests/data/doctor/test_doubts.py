"""Confident learning: an example by hand, and labels that were made wrong."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.data.doctor.doubts import doubted


def test_by_hand() -> None:
    """Thresholds are the means 0.7 and 0.55: the last one's own class is unlikely, but the other does not reach its threshold."""
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    found = doubted(said, labels)
    assert found.place.tolist() == [5, 2] and found.confidence.tolist() == [0.1, 0.4] and found.instead.tolist() == [0, 1]


@pytest.mark.parametrize("k", [2, 5])
def test_labels_made_wrong_are_found(k: int) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, k, 3000)
    scores = rng.normal(0, 1, (3000, k)) + 4 * np.eye(k)[true]
    said = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = rng.random(3000) < 0.08
    labels = np.where(wrong, (true + rng.integers(1, k, 3000)) % k, true)
    found = doubted(said, labels)
    hit = wrong[found.place]
    assert hit.mean() > 0.85 and hit.sum() > 0.75 * wrong.sum()
    assert hit[:100].mean() > 0.98 and (np.diff(found.confidence) >= 0).all()
    assert (found.instead[hit] == true[found.place[hit]]).mean() > 0.95


def test_sure_models_and_odd_input() -> None:
    labels = np.array([0, 1, 1, 0])
    assert doubted(np.eye(2)[labels], labels).place.size == 0
    assert doubted(np.full((4, 2), 0.5), labels).place.size == 0
    said = np.eye(2)[labels]
    said[1] = np.nan
    said[2] = [1, 0]
    assert doubted(said, labels).place.tolist() == [2]
    assert doubted(np.zeros((0, 3)), np.zeros(0, int)).place.size == 0
    for bad in (np.zeros((4, 1)), np.zeros((3, 2)), np.zeros(4)):
        with pytest.raises(ValueError, match="must be"):
            doubted(bad, labels)
