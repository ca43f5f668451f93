"""How well classes that overlap are told: each by itself, as present or not, over the whole set. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.layers import Layers
from saccade.core.segmentation import Segmentation
from saccade.tasks.segmentation.metrics import SegmentationMetric, mean

Array = NDArray[Any]


class LayersMetric:
    """The metric of the room (`saccade.task.Metric`) where a pixel may have several classes.

    Each figure is the mean over classes of what `SegmentationMetric` gives for the pixels that have the class; `pixel_accuracy` is the
    share of all pairs of a pixel and a class of which is told right whether they belong together.
    """

    primary = "miou"
    higher_is_better = True

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._each = [SegmentationMetric(("", name)) for name in self.classes]

    @property
    def resamples(self) -> int:
        """As many as take seconds for all classes together, 50 at least."""
        return max(50, min(one.resamples for one in self._each) // len(self._each))

    def update(self, results: Sequence[Layers], truths: Sequence[Packed]) -> None:
        """Take up answers and the truth of each, sets of classes of the same size."""
        for label, metric in enumerate(self._each):
            metric.update([_alone(result, label) for result in results], [_layer(truth, label) for truth in truths])

    def row(self, result: Layers, truth: Packed) -> dict[str, Any]:
        """source, size, masks: run lengths by class; miou: of this image, over the classes that it has, and pixel_accuracy."""
        alone = LayersMetric(self.classes)
        alone.update([result], [truth])
        figures = alone.compute()
        shapes = {self.classes[label]: run_lengths.from_mask(result.layer(label)).counts.decode() for label in result.labels.tolist()}
        kept = {name: figures[name] for name in ("miou", "pixel_accuracy")}
        return {"source": result.source, "size": list(result.size), "masks": shapes, **kept}

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` `[N]` count each image that often (None: once)."""
        found = [one.figures(weights) for one in self._each]
        return {name: mean(np.array([one[name][-1] for one in found])) for name in found[0]}

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class pixels iou dice precision recall boundary_f1 hausdorff_95`, in class order."""
        return [one.per_class()[1] for one in self._each]

    def details(self) -> dict[str, Any]:
        """classes."""
        return {"classes": list(self.classes)}


def _layer(sets: Packed, label: int) -> Packed:
    """1 where a pixel has a class, else 0; IGNORED stays."""
    return Packed.joined((np.where(band == IGNORED, band, band >> label & 1).astype(np.uint8) for band in sets.bands()), sets.size)


def _alone(result: Layers, label: int) -> Segmentation:
    return Segmentation(_layer(result.packed, label), ("", result.classes[label]), result.source)
