"""Pascal VOC's average precision: against cases counted by hand, and against its own procedure written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import average_precision as ap
from saccade.core.average_precision import Image
from saccade.core.voc import VocPrecision


def image(found: list[tuple[float, int, list[float]]], truths: list[tuple[int, list[float]]], difficult: tuple[int, ...] = ()) -> Image:
    boxes = np.array([box for _, _, box in found], np.float64).reshape(-1, 4)
    there = np.array([box for _, box in truths], np.float64).reshape(-1, 4)
    ignored = np.array([place in difficult for place in range(len(truths))], bool)
    labels = np.array([label for _, label, _ in found], np.int64), np.array([label for label, _ in truths], np.int64)
    scores, none = np.array([score for score, _, _ in found], np.float32), np.zeros(len(truths), bool)
    return Image(scores, labels[0], ap.area(boxes), labels[1], ap.area(there), none, ignored, ap.overlaps(boxes, there, none))


A, B, C, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10], [80.0, 80, 90, 90]


def figures(*images: Image, classes: int = 1, weights: Any = None) -> list[list[float]]:
    return [table.tolist() for table in VocPrecision(images, classes).tables(weights)]


def test_by_hand() -> None:
    """Right, wrong, right of three objects: precision 1 to a recall of 1/3, 2/3 to 2/3, then 0."""
    one = image([(0.9, 0, A), (0.8, 0, FAR), (0.7, 0, B)], [(0, A), (0, B), (0, C)])
    (old,), (new,) = figures(one)
    assert old == pytest.approx((4 * 1 + 3 * 2 / 3) / 11), "recalls 0 to 0.3, then 0.4 to 0.6"
    assert new == pytest.approx(1 / 3 + 2 / 9)


def test_a_recall_that_is_just_reached_counts() -> None:
    """3 of 10 is 0.3, whatever floating point makes of it."""
    boxes = [[20.0 * place, 0, 20 * place + 10, 10] for place in range(10)]
    one = image([(0.9 - place / 100, 0, boxes[place]) for place in range(3)], [(0, box) for box in boxes])
    (old,), (new,) = figures(one)
    assert (old, new) == (pytest.approx(4 / 11), pytest.approx(0.3))


def test_a_second_one_of_an_object_is_wrong_even_beside_another() -> None:
    """COCO would give it the free object; VOC holds it against the one that it overlaps most."""
    near = [0.0, 3, 10, 13]  # overlaps A by 70/130, and so do the detections
    one = image([(0.9, 0, A), (0.8, 0, [0.0, 1, 10, 11])], [(0, A), (0, near)])
    (old,), (new,) = figures(one)
    assert new == pytest.approx(0.5) and old == pytest.approx(6 / 11)


def test_what_is_difficult_is_neither_right_nor_wrong() -> None:
    one = image([(0.9, 0, B), (0.8, 0, B), (0.7, 0, A)], [(0, A), (0, B)], difficult=(1,))
    assert figures(one) == [[1.0], [1.0]]
    assert np.isnan(figures(image([(0.9, 0, B)], [(0, B)], difficult=(0,)))).all()


def test_nothing_found_nothing_there_and_other_classes() -> None:
    assert figures(image([], [(0, A)])) == [[0.0], [0.0]]
    old, new = figures(image([(0.9, 1, A)], [(0, A)]), image([], []), classes=2)
    assert (old[0], new[0]) == (0, 0) and np.isnan([old[1], new[1]]).all()
    assert np.isnan(VocPrecision([], 2).tables()[0]).all()


def procedure(images: list[Image], label: int) -> tuple[float, float]:
    """As VOC's tool does it: all detections by falling score, each against the object that it overlaps most."""
    rows = [
        (float(score), number, place)
        for number, one in enumerate(images)
        for place, score in enumerate(one.scores)
        if one.labels[place] == label
    ]
    rows.sort(key=lambda row: -row[0])
    taken: set[tuple[int, int]] = set()
    marks = []
    for _, number, place in rows:
        one, best, most = images[number], -1, -1.0
        for other in np.flatnonzero(one.truths == label):
            if one.overlaps[place, other] > most:
                best, most = int(other), float(one.overlaps[place, other])
        if most >= 0.5 and one.ignored[best]:
            continue
        marks.append(most >= 0.5 and (number, best) not in taken)
        taken |= {(number, best)} if marks[-1] else set()
    positives = sum(int(((one.truths == label) & ~one.ignored).sum()) for one in images)
    if not positives:
        return float("nan"), float("nan")
    hits = np.cumsum(marks) if marks else np.zeros(0)
    precision, recall = hits / np.arange(1, len(marks) + 1), hits / positives
    old = np.mean([max(precision[recall >= step / 10 - 1e-9], default=0.0) for step in range(11)])
    steps = np.concatenate([[0], recall, [1]])
    falling = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    new = float((np.diff(steps) * falling[1:]).sum())
    return float(old), new


@given(st.integers(0, 1 << 32), st.integers(1, 5))
def test_it_is_the_procedure(seed: int, count: int) -> None:
    draws = np.random.default_rng(seed)

    def boxes(n: int) -> list[list[float]]:
        corner = draws.integers(0, 20, (n, 2))
        return np.concatenate([corner, corner + draws.integers(5, 15, (n, 2))], 1).astype(float).tolist()

    images = []
    for _ in range(count):
        truths = [(int(draws.integers(2)), box) for box in boxes(int(draws.integers(0, 6)))]
        found = [(float(score), int(draws.integers(2)), box) for score, box in zip(draws.permutation(12) / 13, boxes(12), strict=True)]
        images.append(image(found, truths, tuple(np.flatnonzero(draws.random(len(truths)) < 0.2).tolist())))
    scores = [one.scores + np.float32(number / 1000) for number, one in enumerate(images)]  # no two alike
    images = [
        Image(own, *[getattr(one, name) for name in list(Image.__annotations__)[1:]]) for own, one in zip(scores, images, strict=True)
    ]
    expected = [procedure(images, label) for label in range(2)]
    np.testing.assert_allclose(np.transpose(figures(*images, classes=2)), expected, atol=1e-12)
    weights = draws.integers(0, 3, count)
    repeated = [one for one, times in zip(images, weights, strict=True) for _ in range(times)]
    ours, again = figures(*images, classes=2, weights=weights), figures(*repeated, classes=2)
    np.testing.assert_allclose(ours, again, atol=1e-12)
