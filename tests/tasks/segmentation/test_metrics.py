"""Figures of classes of pixels: equal to torchmetrics', to plain NumPy, and to hand-made cases; the same whatever the batch."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from saccade.core import class_masks
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.segmentation import Segmentation
from saccade.tasks.segmentation import edges, metrics
from saccade.tasks.segmentation.edges import TOLERANCE
from saccade.tasks.segmentation.metrics import SegmentationMetric, confusion

CLASSES = ("background", "cat", "dog", "owl")


def answer(mask: np.ndarray, name: str = "x") -> Segmentation:
    return Segmentation(Packed.of(mask.astype(np.uint8)), CLASSES, name)


def some(n: int, seed: int = 0, *, void: bool = True) -> tuple[list[Segmentation], list[Packed]]:
    """Blocks of classes, moved a little, of several sizes."""
    draws = np.random.default_rng(seed)
    said, right = [], []
    for number in range(n):
        height, width = ((17, 11), (40, 33), (64, 48))[number % 3]
        truth = draws.integers(0, 3, (height // 5 + 1, width // 5 + 1), dtype=np.uint8).repeat(5, 0).repeat(5, 1)[:height, :width]
        other = np.roll(truth, int(draws.integers(0, 3)), int(draws.integers(0, 2)))
        if void:
            truth = np.where(draws.random(truth.shape) < 0.05, IGNORED, truth).astype(np.uint8)
        said.append(answer(other, str(number)))
        right.append(Packed.of(truth))
    return said, right


def measured(said: list[Segmentation], right: list[Packed]) -> SegmentationMetric:
    metric = SegmentationMetric(CLASSES)
    metric.update(said, right)
    return metric


def test_equal_to_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    said, right = some(7)
    flat = [
        torch.from_numpy(np.concatenate([mask.ravel() for mask in several]).astype(np.int64))
        for several in ([one.mask for one in said], [one.values for one in right])
    ]
    found = measured(said, right).compute()
    each = multiclass_jaccard_index(*flat, num_classes=4, average=None, ignore_index=IGNORED)
    assert found["miou"] == pytest.approx(float(each[:3].mean()), abs=1e-6)  # no owl is anywhere
    accuracy = multiclass_accuracy(*flat, num_classes=4, average="micro", ignore_index=IGNORED)
    assert found["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)


def test_equal_to_plain_counting() -> None:
    said, right = some(5, 1)
    overlaps, dice = [], []
    for label in range(3):
        both = either = sums = 0
        for one, truth in zip(said, right, strict=True):
            counted = truth.values != IGNORED
            a, b = (one.mask == label) & counted, (truth.values == label) & counted
            both, either, sums = both + (a & b).sum(), either + (a | b).sum(), sums + a.sum() + b.sum()
        overlaps.append(both / either)
        dice.append(2 * both / sums)
    metric = measured(said, right)
    assert metric.compute()["miou"] == pytest.approx(np.mean(overlaps))
    assert metric.compute()["dice"] == pytest.approx(np.mean(dice))
    assert [row["iou"] for row in metric.per_class()] == pytest.approx([*overlaps, None])


def slow_edges(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and Hausdorff 95 of the edges of two shapes, by distance transforms."""

    def edge(shape: np.ndarray) -> np.ndarray:
        padded = np.pad(shape, 1, mode="edge")
        around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        return shape & np.any([neighbour != shape for neighbour in around], axis=0)

    first, second = edge(one), edge(other)
    near = max(1.0, TOLERANCE * np.hypot(*one.shape))
    there, back = distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]
    return (there <= near).mean(), (back <= near).mean(), max(np.percentile(there, 95), np.percentile(back, 95))


def test_edges() -> None:
    truth, said = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    truth[10:30, 10:40] = 1
    said[13:30, 10:44] = 1
    metric = SegmentationMetric(("background", "cat"))
    metric.update([Segmentation(Packed.of(said), ("background", "cat"))], [Packed.of(truth)])
    rows = metric.per_class()
    for label in (0, 1):
        precision, recall, apart = slow_edges(said == label, truth == label)
        assert rows[label]["boundary_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert rows[label]["hausdorff_95"] == pytest.approx(apart)
    assert metric.compute()["hausdorff_95"] == pytest.approx(np.mean([row["hausdorff_95"] for row in rows]))


def test_perfect_and_hopeless() -> None:
    _, right = some(3, void=False)
    perfect = measured([answer(one.values) for one in right], right).compute()
    assert perfect == {"miou": 1.0, "dice": 1.0, "pixel_accuracy": 1.0, "boundary_f1": 1.0, "hausdorff_95": 0.0}
    wrong = measured([answer(np.full(one.size, 3)) for one in right], right).compute()
    assert wrong == {"miou": 0.0, "dice": 0.0, "pixel_accuracy": 0.0, "boundary_f1": 0.0, "hausdorff_95": None}


def test_nothing_counts() -> None:
    void = Packed.of(np.full((5, 4), IGNORED, np.uint8))
    metric = measured([answer(np.ones((5, 4)))], [void])
    assert set(metric.compute().values()) == {None}
    assert metric.row(answer(np.ones((5, 4))), void)["miou"] is None
    assert set(SegmentationMetric(CLASSES).compute().values()) == {None}


def test_edges_beside_what_does_not_count_are_none() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 8:12] = IGNORED
    truth[:, 12:] = 1
    said = np.zeros((20, 20), np.uint8)
    said[:, 10:] = 1  # its edge lies where nothing counts
    found = measured([answer(said)], [Packed.of(truth)]).compute()
    assert found["miou"] == 1.0 and found["boundary_f1"] is None and found["hausdorff_95"] is None


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(1, 5))
def test_weights_repeat_images_and_batches_change_nothing(weights: list[int], size: int) -> None:
    said, right = some(6, 2)
    whole, parts = measured(said, right), SegmentationMetric(CLASSES)
    for start in range(0, 6, size):
        parts.update(said[start : start + size], right[start : start + size])
    assert parts.compute() == whole.compute()
    twice = measured(
        [one for one, n in zip(said, weights, strict=True) for _ in range(n)],
        [one for one, n in zip(right, weights, strict=True) for _ in range(n)],
    )
    assert whole.compute(np.array(weights)) == pytest.approx(twice.compute())


def test_confusion() -> None:
    said, right = np.array([[0, 1, 1, 2]], np.uint8), np.array([[0, 1, 2, IGNORED]], np.uint8)
    assert confusion(said, right, 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="of one size"):
        measured([answer(np.zeros((3, 4)))], [Packed.of(np.zeros((4, 3), np.uint8))])


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_an_image_read_in_bands_has_the_same_figures(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges between bands among them; what is held of a large image is a band and its edges."""
    said, right = some(6, seed=3)
    whole = measured(said, right)
    expected = whole.compute(), whole.per_class(), whole.details()
    monkeypatch.setattr(class_masks, "BAND", 11 * rows)
    monkeypatch.setattr(edges, "BAND", 0)  # so that no distance is found by a transform of the whole
    again = measured(said, right)
    assert again.compute() == pytest.approx(expected[0])
    assert again.details() == expected[2]
    for one, other in zip(again.per_class(), expected[1], strict=True):
        assert one == pytest.approx(other)


def test_a_large_mask_is_measured_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than twice the bytes of its image's pixels, whatever the number of classes; bands are a hundredth of it."""
    side = 2500
    monkeypatch.setattr(class_masks, "BAND", side**2 // 100)
    monkeypatch.setattr(metrics, "PAIRS", side**2 // 100)
    monkeypatch.setattr(edges, "BAND", 0)
    truth = np.random.default_rng(0).integers(0, 4, (side // 250, side // 250), dtype=np.uint8).repeat(250, 0).repeat(250, 1)
    said, right = answer(np.roll(truth, 3, 0)), Packed.of(truth)
    del truth
    metric = SegmentationMetric(CLASSES)
    tracemalloc.start()
    try:
        metric.update([said], [right])
        row = metric.row(said, right)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row["pixel_accuracy"] > 0.9
    assert peak < 2 * 3 * side**2, f"{peak:,} bytes"
