"""Suppression: the NumPy way and torchvision's are the same; classes never touch each other."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torchvision.ops  # noqa: F401  # the other way is taken where this is loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.core.nms import WAYS, nms, suppressed


def boxes_of(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    corner, side = draws.integers(0, 60, (n, 2)), draws.integers(0, 40, (n, 2))
    scores = np.round(draws.random(n), 1).astype(np.float32)
    return np.concatenate([corner, corner + side], 1).astype(np.float32), scores, draws.integers(0, classes, n)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 60), st.integers(1, 4), st.sampled_from([0.3, 0.5, 0.65, 1.0]))
def test_both_ways_are_the_same(seed: int, n: int, classes: int, threshold: float) -> None:
    boxes, scores, labels = boxes_of(seed, n, classes)
    fast = nms(boxes, scores, labels, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "torchvision.ops")
        plain = nms(boxes, scores, labels, threshold)
    assert plain.tolist() == fast.tolist()
    assert (np.diff(scores[plain]) <= 0).all()


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_what_stays_does_not_overlap_and_what_goes_does(seed: int, n: int) -> None:
    boxes, scores, labels = boxes_of(seed, n, 2)
    kept = nms(boxes, scores, labels, 0.5)
    over = np.where(labels[:, None] == labels, iou(boxes), 0)
    for place in range(n):
        surer = [one for one in kept if one != place and over[place, one] > 0.5 and scores[one] >= scores[place]]
        assert (place in kept) != bool(surer)


def iou(boxes: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    common = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - low).clip(0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    whole = area[:, None] + area - common
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def test_two_classes_may_stand_on_one_another() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], np.float32)
    assert nms(boxes, np.array([0.5, 0.9, 0.7], np.float32), np.array([0, 1, 1]), 0.5).tolist() == [1, 0]


STACK = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [2, 0, 12, 10], [50, 50, 60, 60]], np.float32)
SURE = np.array([0.9, 0.8, 0.6, 0.3], np.float32)


def test_suppression_whatever_the_class() -> None:
    labels = np.array([0, 1, 1, 0])
    assert suppressed(STACK, SURE, labels, "class", 0.1, 9)[0].tolist() == [0, 1, 2, 3]
    kept, scores = suppressed(STACK, SURE, labels, "agnostic", 0.1, 9)
    assert kept.tolist() == [0, 1, 3], "80/120 is above 0.65, 50/100 is not"
    assert scores.tolist() == SURE[[0, 1, 3]].tolist()
    assert suppressed(STACK, SURE, labels, "none", 0.5, 2)[0].tolist() == [0, 1]


def test_soft_suppression_by_hand() -> None:
    """Equation 3 of Bodla et al. 2017: the second overlaps the first by 1/2, the third the first by 2/3 and the second by 40/110."""
    kept, scores = suppressed(STACK, SURE, np.zeros(4, np.int64), "soft", 0.001, 9)
    second, third = 0.8 * np.exp(-0.25 / 0.5), 0.6 * np.exp(-((2 / 3) ** 2) / 0.5) * np.exp(-((40 / 110) ** 2) / 0.5)
    assert kept.tolist() == [0, 1, 3, 2]
    np.testing.assert_allclose(scores, [0.9, second, 0.3, third], rtol=1e-6)
    assert suppressed(STACK, SURE, np.zeros(4, np.int64), "soft", 0.25, 9)[0].tolist() == [0, 1, 3], "what fell too low is gone"
    assert suppressed(STACK, SURE, np.array([0, 1, 2, 0]), "soft", 0.001, 9)[1].tolist() == SURE.tolist(), "other classes do not count"


@given(st.integers(0, 1 << 32), st.integers(0, 40), st.sampled_from(WAYS), st.integers(1, 40))
def test_what_every_way_keeps(seed: int, n: int, way: str, most: int) -> None:
    boxes, scores, labels = boxes_of(seed, n, 3)
    kept, found = suppressed(boxes, scores, labels, way, 0.2, most)
    assert len(kept) == len(found) == len(set(kept.tolist())) <= most
    assert (np.diff(found) <= 0).all() and (found >= 0.2).all() and (found <= scores[kept]).all()
    if n and scores.max() >= 0.2:
        assert kept[0] == int(scores.argmax()) or scores[kept[0]] == scores.max(), "the surest stays as it is"
