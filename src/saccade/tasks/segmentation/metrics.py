"""How well classes of pixels are told: overlaps over the whole set, and how closely edges are met. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.segmentation import Segmentation
from saccade.tasks.segmentation import edges
from saccade.tasks.segmentation.edges import Pair

Array = NDArray[Any]
PAIRS = 1 << 19  # pixels of which pairs of classes are counted at once: a number of 64 bits is made of each
SECONDS = 10.0  # that a bootstrap may take, about: see `resamples`


class SegmentationMetric:
    """The metric of the room (`saccade.task.Metric`).

    `compute` gives, of all pixels of all images together, but for those that do not count: `miou`, the mean over classes of intersection by
    union; `dice`, that of 2 intersection by the sum of both; `pixel_accuracy`. Then of the edges of classes: `boundary_f1`, the mean over
    classes of the F1 score of pixels of an edge that lie within TOLERANCE of one of the other (Csurka et al. 2013, "What is a good
    evaluation measure for semantic segmentation?"; here over all images together), and `hausdorff_95`, the mean over classes of the mean
    over images that have the class in truth and answer of the 95th percentile of the distances from the edge of one to the
    nearest of the other, in pixels, the larger of both ways. Classes that are nowhere are left out of means.
    """

    primary = "miou"
    higher_is_better = True

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._images = 0
        self._cells: list[Array] = []  # of each image the cells of its confusion matrix that are not 0: image, place, count
        self._edges: list[Array] = []  # of each image and class: image, class, met and all edge pixels of answer and truth, distance

    @property
    def resamples(self) -> int:
        """1,000 of a bootstrap where that takes seconds, 50 at least."""
        each = 1e-4 + 2e-8 * sum(len(one) for one in self._cells) + 2e-7 * len(self.classes)
        return int(min(1000, max(50, SECONDS / each)))

    def update(self, results: Sequence[Segmentation], truths: Sequence[Packed]) -> None:
        """Take up answers and the truth of each, of the same size."""
        for result, truth in zip(results, truths, strict=True):
            if result.size != truth.size:
                raise ValueError(f"answer and truth must be of one size, got {result.size} and {truth.size}")
            counts = _confused(result, truth, len(self.classes))
            seen = np.flatnonzero(counts)
            self._cells.append(np.column_stack([np.full(len(seen), self._images), seen, counts.ravel()[seen]]))
            there = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
            rows = edges.compared(_bands(result, truth), truth.size, there)
            self._edges.append(np.column_stack([np.full(len(rows), self._images), rows]))
            self._images += 1

    def row(self, result: Segmentation, truth: Packed) -> dict[str, Any]:
        """source, size, masks: run lengths by class; miou: of this image, over the classes that it has, and pixel_accuracy."""
        counts = _confused(result, truth, len(self.classes))
        overlap, _ = _overlaps(counts)
        said = result.mask
        shapes = {self.classes[label]: run_lengths.from_mask(said == label).counts.decode() for label in result.labels.tolist()}
        accuracy = _share(counts.trace(), counts.sum())
        return {"source": result.source, "size": list(result.size), "masks": shapes, "miou": mean(overlap), "pixel_accuracy": accuracy}

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` `[N]` count each image that often (None: once)."""
        return {name: mean(values) for name, values in self.figures(weights).items()}

    def figures(self, weights: Array | None = None) -> dict[str, NDArray[np.float64]]:
        """What the figures are the means of: `[K]` each, NaN where there is none; of `pixel_accuracy` `[1]`."""
        counts = self._counts(weights)
        overlap, dice = _overlaps(counts)
        f1, distance = self._met(weights)
        accuracy = np.array([counts.trace() / counts.sum() if counts.sum() else np.nan])
        return {"miou": overlap, "dice": dice, "pixel_accuracy": accuracy, "boundary_f1": f1, "hausdorff_95": distance}

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class pixels iou dice precision recall boundary_f1 hausdorff_95`, in class order."""
        counts = self._counts(None)
        overlap, dice = _overlaps(counts)
        f1, distance = self._met(None)
        rows = []
        for label, name in enumerate(self.classes):
            right, said, there = counts[label, label], counts[:, label].sum(), counts[label].sum()
            row = {"class": name, "pixels": int(there), "iou": _number(overlap[label]), "dice": _number(dice[label])}
            row |= {"precision": _share(right, said), "recall": _share(right, there)}
            rows.append(row | {"boundary_f1": _number(f1[label]), "hausdorff_95": _number(distance[label])})
        return rows

    def details(self) -> dict[str, Any]:
        """classes; confusion: pixels `[K][K]`, rows truth, columns answer."""
        return {"classes": list(self.classes), "confusion": self._counts(None).astype(np.int64).tolist()}

    def _counts(self, weights: Array | None) -> NDArray[np.float64]:
        """The confusion matrix of all images, `[K, K]`."""
        kinds = len(self.classes)
        if not self._cells:
            return np.zeros((kinds, kinds))
        image, place, count = (self._cells[0] if len(self._cells) == 1 else np.concatenate(self._cells)).T
        self._cells = [np.column_stack([image, place, count])]
        much = count if weights is None else count * weights[image]
        table: NDArray[np.float64] = np.bincount(place, much.astype(np.float64), kinds**2).astype(np.float64).reshape(kinds, kinds)
        return table

    def _met(self, weights: Array | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Boundary F1 and Hausdorff distance of each class, NaN where it has none: `[K]` each."""
        kinds = len(self.classes)
        if not self._edges:
            return np.full(kinds, np.nan), np.full(kinds, np.nan)
        rows = self._edges[0] if len(self._edges) == 1 else np.concatenate(self._edges)
        self._edges = [rows]
        often = np.ones(len(rows)) if weights is None else weights[rows[:, 0].astype(np.int64)].astype(np.float64)
        label = rows[:, 1].astype(np.int64)
        hit, said, found, there = (np.bincount(label, often * rows[:, column], kinds) for column in (2, 3, 4, 5))
        known = np.isfinite(rows[:, 6])
        apart, times = (np.bincount(label[known], often[known] * values, kinds) for values in (rows[known, 6], 1.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = np.where(said > 0, hit / said, 0.0), np.where(there > 0, found / there, 0.0)
            f1 = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
            return np.where(said + there > 0, f1, np.nan), apart / np.where(times > 0, times, np.nan)


def _bands(result: Segmentation, truth: Packed) -> Iterator[Pair]:
    """The classes told and the true ones, from the top: of masks of one size, which are expanded in the same bands."""
    return zip(result.packed.bands(), truth.bands(), strict=True)


def _confused(result: Segmentation, truth: Packed, kinds: int) -> NDArray[np.int64]:
    """`confusion` of a whole image."""
    counts = np.zeros((kinds, kinds), np.int64)
    for said, right in _bands(result, truth):
        counts += confusion(said, right, kinds)
    return counts


def confusion(said: NDArray[np.uint8], right: NDArray[np.uint8], kinds: int) -> NDArray[np.int64]:
    """How many pixels of each class (rows) were told to be of each (columns), without those that do not count: `[K, K]`."""
    table, rows = np.zeros((IGNORED + 1) ** 2, np.int64), max(1, PAIRS // max(1, right.shape[1]))
    for top in range(0, len(right), rows):
        pairs = right[top : top + rows].astype(np.int32) * (IGNORED + 1) + said[top : top + rows]
        table += np.bincount(pairs.ravel(), minlength=len(table))  # as they are and picked then, as masking both first takes longer
    return table.reshape(IGNORED + 1, IGNORED + 1)[:kinds, :kinds]


def _overlaps(counts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection by union, and Dice, of each class; NaN where it is nowhere."""
    both, each = counts.diagonal().astype(np.float64), (counts.sum(0) + counts.sum(1)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return both / np.where(each > 0, each - both, np.nan), 2 * both / np.where(each > 0, each, np.nan)


def mean(values: NDArray[np.float64]) -> float | None:
    """Over those that there are."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
