"""Classes that overlap: the loss by its definition, gradients, void; the metric class by class, equal to that of one class alone and to
torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.core.class_masks import IGNORED, Packed
from saccade.core.config import SegmentationConfig
from saccade.core.layers import Layers
from saccade.core.moment import Moment
from saccade.core.segmentation import Segmentation
from saccade.data.loader import Batch
from saccade.tasks.segmentation.augmentation import gathered
from saccade.tasks.segmentation.layers import LayersMetric
from saccade.tasks.segmentation.loss import losses
from saccade.tasks.segmentation.metrics import SegmentationMetric

CONFIG = SegmentationConfig(multi=True)
CLASSES = ("a", "b", "c")


def sets(seed: int, *, void: bool = False) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, 8, (5, 4), dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    if void:
        found[:4] = IGNORED
    return found


def batch(*masks: np.ndarray) -> Batch:
    return Batch(torch.zeros(len(masks), 3, 15, 12, dtype=torch.uint8), gathered(list(masks)), np.arange(len(masks)))


def test_loss() -> None:
    logits = torch.from_numpy(np.random.default_rng(5).normal(0, 2, (1, 3, 15, 12))).float()
    mask = sets(0)
    found = losses(logits, batch(mask), CONFIG)
    truth = torch.from_numpy(np.stack([mask >> k & 1 for k in range(3)])[None].astype(np.float32))
    assert found.weight == 1 and set(found.parts) == {"cross_entropy", "dice"}
    assert float(found.parts["cross_entropy"]) == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, truth)), rel=1e-5)
    shares = logits.sigmoid()
    overlap = 1 - (2 * (shares * truth).sum((2, 3)) + 1) / (shares.square().sum((2, 3)) + truth.sum((2, 3)) + 1)
    assert float(found.parts["dice"]) == pytest.approx(float(overlap.mean()), rel=1e-5)


def test_loss_is_a_sum_over_images_and_void_counts_nowhere() -> None:
    logits = torch.from_numpy(np.random.default_rng(5).normal(0, 2, (2, 3, 15, 12))).float()
    masks = sets(0, void=True), sets(1)
    together = losses(logits, batch(*masks), CONFIG)
    alone = [losses(logits[i : i + 1], batch(masks[i]), CONFIG) for i in range(2)]
    assert float(together.total) == pytest.approx(sum(float(one.total) for one in alone), rel=1e-5)
    changed = logits.clone()
    changed[0, :, :4] += 50
    assert float(losses(changed, batch(*masks), CONFIG).total) == pytest.approx(float(together.total), rel=1e-6)
    nothing = torch.full((1, 3, 15, 12), 2.0, requires_grad=True)
    empty = losses(nothing, batch(np.full((15, 12), IGNORED, np.uint8)), CONFIG)
    empty.total.backward()  # type: ignore[no-untyped-call]
    assert float(empty.total.detach()) == 0 and nothing.grad is not None and torch.isfinite(nothing.grad).all()


def test_metric_is_that_of_each_class_alone() -> None:
    metric, alone = LayersMetric(CLASSES), [SegmentationMetric(("", name)) for name in CLASSES]
    for seed in range(4):
        said, right = sets(seed), sets(seed + 10, void=seed == 2)
        metric.update([Layers(Packed.of(said), CLASSES, str(seed))], [Packed.of(right)])
        for k, one in enumerate(alone):
            truth = np.where(right == IGNORED, right, right >> k & 1).astype(np.uint8)
            one.update([Segmentation(Packed.of(said >> k & 1), ("", CLASSES[k]))], [Packed.of(truth)])
    rows = [one.per_class()[1] for one in alone]
    assert metric.per_class() == rows
    figures = metric.compute()
    for name, key in (("miou", "iou"), ("dice", "dice"), ("boundary_f1", "boundary_f1"), ("hausdorff_95", "hausdorff_95")):
        assert figures[name] == pytest.approx(np.mean([row[key] for row in rows])), name
    assert metric.compute(np.ones(4, np.int64)) == figures != metric.compute(np.array([4, 0, 0, 0]))


def test_equal_to_torchmetrics() -> None:
    from torchmetrics.functional.classification import multilabel_jaccard_index

    metric, said, right = LayersMetric(CLASSES), sets(3), sets(7)
    metric.update([Layers(Packed.of(said), CLASSES, "x")], [Packed.of(right)])
    spread = [torch.from_numpy(np.stack([one >> k & 1 for k in range(3)], -1).reshape(-1, 3)) for one in (said, right)]
    assert metric.compute()["miou"] == pytest.approx(float(multilabel_jaccard_index(*spread, num_labels=3)))
    row = metric.row(Layers(Packed.of(said), CLASSES, "x"), Packed.of(right))
    assert row["miou"] == pytest.approx(metric.compute()["miou"])
    np.testing.assert_array_equal(Layers.from_dict(row, CLASSES).mask, said)
    assert Layers.from_dict(row | {"frame": 3, "time": 0.5}, CLASSES).moment == Moment(3, 0.5)


def test_nothing_there() -> None:
    metric = LayersMetric(CLASSES)
    assert set(metric.compute().values()) == {None}
    metric.update([Layers(Packed.of(np.zeros((4, 4), np.uint8)), CLASSES)], [Packed.of(np.zeros((4, 4), np.uint8))])
    assert metric.compute()["miou"] is None and metric.compute()["pixel_accuracy"] == 1
