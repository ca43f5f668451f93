"""Accuracy, top-5, macro F1, calibration error and log loss of a classifier, weighted by image. NumPy only.

N images, K classes. The definitions are scikit-learn's where it has them (a test holds both equal); own bincounts serve
because a bootstrap calls `compute` a thousand times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.results import Classification

BINS = 15
THRESHOLDS = 201
LOST = 0.005  # of the accuracy, for answers at an exit
KEPT = 20  # scores of this many best classes stand in a row; with the truth's, every figure can be computed from them
EDGES = np.linspace(0, 1, BINS + 1).astype(np.float32)
LEAST = float(np.finfo(np.float32).eps)  # the log loss clips probabilities here, as scikit-learn does for float32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Columns:
    """One value an image, each `[N]`; score: probability of `label`, the answer; scored: whether scores are known."""

    truth: Ints
    label: Ints
    score: Floats
    nll: Floats
    top5: NDArray[np.bool_]
    bin: Ints
    scored: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[_Columns]) -> _Columns:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class _Early:
    """What all exits say: how sure the answer of each is, and whether it is right, `[N, E]`; right: whether the last layer's is, `[N]`."""

    sure: NDArray[np.float32]
    hit: NDArray[np.bool_]
    right: NDArray[np.bool_]

    def left(self, threshold: float, weight: Floats) -> tuple[float, float]:
        """The accuracy where each image leaves at the first exit that is as sure as that, and the share of those that do."""
        goes = self.sure >= threshold
        some, first = goes.any(1), goes.argmax(1)
        hit = np.where(some, self.hit[np.arange(len(first)), first], self.right)
        return float(weight @ hit) / float(weight.sum()), float(weight @ some) / float(weight.sum())

    def threshold(self, weight: Floats) -> float | None:
        """The least of THRESHOLDS quantiles from which on no threshold loses more than LOST; None where the largest does."""
        least = float(weight @ self.right) / float(weight.sum()) - LOST - 1e-9
        found = None
        for value in np.unique(np.quantile(self.sure, np.linspace(0, 1, THRESHOLDS), method="nearest"))[::-1].tolist():
            if self.left(value, weight)[0] < least:
                break
            found = value
        return found


class ClassificationMetric:
    """The metric of the room (`saccade.task.Metric`) for single-label classification.

    `compute` gives, in this order:
    accuracy; top5_accuracy: truth among the five best, None with fewer than six classes, where it says nothing;
    f1_macro: mean F1 of the classes that occur among truths or answers (as scikit-learn and torchmetrics; a class in
    neither has no F1); ece: expected calibration error of the best score, in 15 bins of equal width closed on the right (Guo et al.
    2017, "On calibration of modern neural networks"); nll: mean -log of the truth's probability, clipped at float32's epsilon.
    All are None without an image; top5_accuracy, ece and nll also where an answer came without scores.
    Where all answers have what each exit would say (`Classification.early`) there are also exit_threshold: how sure an exit must be so that
    at most half a percentage point of accuracy is lost, the least from which on that holds, None where it never does; exit_accuracy,
    exit_share: the accuracy with it, and the share of images that leave before the end. All other figures are the last layer's.
    """

    primary = "accuracy"
    higher_is_better = True
    resamples = 1000

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._parts: list[_Columns] = []
        self._early: list[_Early] = []

    def update(self, results: Sequence[Classification], truths: Sequence[int]) -> None:
        """Take up results and the true class index of each; raises ValueError where they do not fit `classes`."""
        truth = self._indices("truths", truths, len(results))
        if not len(truth):
            return
        probabilities = np.stack([result.probabilities for result in results])
        if probabilities.shape[1] != len(self.classes):
            raise ValueError(f"results must have {len(self.classes)} classes, got {probabilities.shape[1]}")
        best = np.stack([result.labels[:5] for result in results])
        images = np.arange(len(truth))
        score = probabilities[images, best[:, 0]]
        self._parts.append(
            _Columns(
                truth=truth,
                label=best[:, 0],
                score=score.astype(np.float64),
                nll=-np.log(np.clip(probabilities[images, truth].astype(np.float64), LEAST, 1.0)),
                top5=(best == truth[:, None]).any(axis=1),
                bin=np.clip(np.searchsorted(EDGES, score, side="left") - 1, 0, BINS - 1),
                scored=np.ones(len(truth), np.bool_),
            )
        )

        told = [result.early for result in results if result.early is not None]
        if len(told) == len(results):
            early = np.stack(told)
            self._early.append(_Early(early.max(2), early.argmax(2) == truth[:, None], best[:, 0] == truth))

    def update_labels(self, labels: Sequence[int], truths: Sequence[int]) -> None:
        """Take up answers without scores (class indices) and the truth of each."""
        truth = self._indices("truths", truths, len(labels))
        label = self._indices("labels", labels, len(labels))
        none, unknown = np.zeros(len(truth), np.bool_), np.zeros(len(truth))
        self._parts.append(_Columns(truth, label, unknown, unknown, none, np.zeros_like(truth), none))

    def row(self, result: Classification, truth: int) -> dict[str, Any]:
        """source, truth, label, score, correct, scores; exit, where the network has some.

        truth and label are class names. scores maps classes to probabilities, best first: the best 20 and the truth. They
        are the shortest decimals that give the same float32 again.
        """
        kept = result.labels[:KEPT].tolist()
        if truth not in kept:
            kept.append(int(truth))
        names = result.classes
        scores = {names[i]: float(str(p)) for i, p in zip(kept, result.probabilities[kept], strict=True)}
        label = names[kept[0]]
        return {
            "source": result.source,
            "truth": names[truth],
            "label": label,
            "score": scores[label],
            "correct": label == names[truth],
            "scores": scores,
            **({} if result.exit is None else {"exit": result.exit}),
        }

    def compute(self, weights: NDArray[Any] | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` `[N]`, not below 0, count each image that often (None: once)."""
        columns = self._columns()
        weight = self._weights(weights, len(columns.truth))
        total = float(weight.sum())
        names = ("accuracy", "top5_accuracy", "f1_macro", "ece", "nll")
        if total == 0:
            return dict.fromkeys(names)
        hit = columns.truth == columns.label
        figures: dict[str, float | None] = dict.fromkeys(names)
        figures["accuracy"] = float(weight @ hit) / total
        figures["f1_macro"] = self._f1_macro(columns, weight)
        if not columns.scored.all():
            return figures
        if len(self.classes) > 5:
            figures["top5_accuracy"] = float(weight @ columns.top5) / total
        gaps = np.bincount(columns.bin, weight * (hit - columns.score), BINS)
        figures["ece"] = float(np.abs(gaps).sum()) / total
        figures["nll"] = float(weight @ columns.nll) / total
        return figures | self._exits(weight)

    def _exits(self, weight: Floats) -> dict[str, float | None]:
        if sum(len(one.right) for one in self._early) != len(weight):
            return {}
        early = _Early(*(np.concatenate([getattr(one, f.name) for one in self._early]) for f in fields(_Early)))
        threshold = early.threshold(weight)
        accuracy, share = (None, None) if threshold is None else early.left(threshold, weight)
        return {"exit_threshold": threshold, "exit_accuracy": accuracy, "exit_share": share}

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class images precision recall f1`, in class order.

        None where undefined: precision of a class never answered, recall of one without images, F1 of one with neither.
        """
        confusion = self._confusion()
        hit, images, answers = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        return [
            {
                "class": name,
                "images": int(images[i]),
                "precision": _share(hit[i], answers[i]),
                "recall": _share(hit[i], images[i]),
                "f1": _share(2 * hit[i], images[i] + answers[i]),
            }
            for i, name in enumerate(self.classes)
        ]

    def details(self) -> dict[str, Any]:
        """classes; confusion: counts, rows truth, columns answer; reliability: the 15 bins (none where scores are unknown)."""
        return {"classes": list(self.classes), "confusion": self._confusion().tolist(), "reliability": self._reliability()}

    def _columns(self) -> _Columns:
        if len(self._parts) != 1:
            self._parts = [_Columns.joined(self._parts) if self._parts else _empty()]
        return self._parts[0]

    def _indices(self, what: str, values: Sequence[int], count: int) -> Ints:
        found = np.asarray(values)
        if found.shape != (count,) or (count and found.dtype.kind not in "iu"):
            raise ValueError(f"{what} must be {count} class indices, got {found.dtype} of shape {found.shape}")
        if count and not (found.min() >= 0 and found.max() < len(self.classes)):
            raise ValueError(f"{what} must be from 0 to {len(self.classes) - 1}, got {found.min()} to {found.max()}")
        return found.astype(np.int64)

    def _weights(self, weights: NDArray[Any] | None, count: int) -> Floats:
        if weights is None:
            return np.ones(count)
        weights = np.asarray(weights)
        if weights.shape != (count,) or weights.dtype.kind not in "iu" or (count and weights.min() < 0):
            raise ValueError(f"weights must be {count} integers, not below 0, got {weights.dtype} of shape {weights.shape}")
        return weights.astype(np.float64)

    def _f1_macro(self, columns: _Columns, weight: Floats) -> float:
        k = len(self.classes)
        hit = np.bincount(columns.truth, weight * (columns.truth == columns.label), k)
        both = np.bincount(columns.truth, weight, k) + np.bincount(columns.label, weight, k)
        occurs = both > 0
        return float(np.mean(2 * hit[occurs] / both[occurs]))

    def _confusion(self) -> Ints:
        columns, k = self._columns(), len(self.classes)
        return np.bincount(columns.truth * k + columns.label, minlength=k * k).reshape(k, k)

    def _reliability(self) -> list[dict[str, Any]]:
        columns = self._columns()
        if not columns.scored.all():
            return []
        count = np.bincount(columns.bin, minlength=BINS)
        right = np.bincount(columns.bin, columns.truth == columns.label, BINS)
        sure = np.bincount(columns.bin, columns.score, BINS)
        return [
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "count": int(count[i]),
                "accuracy": _share(right[i], count[i]),
                "confidence": _share(sure[i], count[i]),
            }
            for i in range(BINS)
        ]


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _empty() -> _Columns:
    ints, floats, flags = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_)
    return _Columns(ints, ints, floats, floats, flags, ints, flags)
