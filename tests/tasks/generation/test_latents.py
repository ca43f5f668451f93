"""Latents: keyed, truncated, joined by arcs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from saccade.tasks.generation import latents


def test_a_row_depends_on_seed_and_place_alone() -> None:
    whole = latents.draw(7, 5, 12)
    assert whole.shape == (5, 12) and whole.dtype == np.float32
    assert np.array_equal(latents.draw(7, 2, 12, first=3), whole[3:])
    assert not np.array_equal(latents.draw(8, 5, 12), whole)
    assert latents.draw(7, 0, 12).shape == (0, 12)
    assert stats.kstest(latents.draw(0, 500, 20).ravel(), "norm").pvalue > 0.01


def test_classes_are_drawn_by_frequency() -> None:
    found = latents.labels(3, 4000, np.array([0.2, 0.0, 0.8]))
    assert np.bincount(found, minlength=3) / 4000 == pytest.approx([0.2, 0, 0.8], abs=0.02)
    assert np.array_equal(latents.labels(3, 10, np.array([0.2, 0.0, 0.8]), first=20), found[20:30])


@pytest.mark.parametrize("most", [0.1, 0.7, 2.0])
def test_truncated_numbers_have_the_truncated_distribution(most: float) -> None:
    drawn = latents.draw(0, 400, 10)
    found = latents.truncate(drawn, most)
    assert np.abs(found).max() <= most
    assert stats.kstest(found.ravel(), stats.truncnorm(-most, most).cdf).pvalue > 0.01
    assert (np.argsort(found.ravel(), kind="stable") == np.argsort(drawn.ravel(), kind="stable")).mean() > 0.99, "their order stays"


def test_an_arc_keeps_lengths_and_ends() -> None:
    a, b = latents.draw(0, 2, 64)
    way = latents.slerp(a, b, 9)
    assert way.shape == (9, 64)
    np.testing.assert_allclose(way[[0, -1]], [a, b], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), np.linspace(np.linalg.norm(a), np.linalg.norm(b), 9), rtol=1e-5)
    unit = way / np.linalg.norm(way, axis=1, keepdims=True)
    angles = np.arccos(np.clip((unit[1:] * unit[:-1]).sum(1), -1, 1))
    np.testing.assert_allclose(angles, angles.mean(), rtol=1e-4)


@pytest.mark.parametrize("b", [[0.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
def test_where_there_is_no_arc_it_is_a_line(b: list[float]) -> None:
    way = latents.slerp(np.array([1.0, 0.0]), np.array(b), 3)
    np.testing.assert_allclose(way[:, 0], np.linspace(1.0, b[0], 3), atol=1e-6)
    assert np.isfinite(way).all()
