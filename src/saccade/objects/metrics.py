"""Average precision and what stands beside it: the best threshold, confusion with the background, errors by kind. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import average_precision as ap
from saccade.core import run_lengths
from saccade.core.average_precision import AveragePrecision, Image
from saccade.core.results import Detections, Instances
from saccade.core.voc import VocPrecision
from saccade.data.sample import Objects

Array = NDArray[Any]
FIGURES = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
VOC = ("map_voc07", "map_voc12")
FREQUENT = (1, 11, 101)  # images of a class from which it is rare, common, frequent
GROUPS = ("map_rare", "map_common", "map_frequent")
AT_BEST = ("f1", "precision", "recall", "threshold")
SECONDS = 10.0  # that a bootstrap may take, about: see `resamples`
POINTS = 101  # of a curve in a report
NEAR, FAR = 0.5, 0.1  # overlaps: from NEAR an object is found, below FAR a detection shows the background (Bolya et al. 2020)


class ObjectsMetric:
    """The metric of both rooms (`saccade.task.Metric`): by the overlap of masks where answers have them, else of boxes.

    `compute` gives COCO's twelve figures (`core.average_precision`; areas are those of the boxes or masks), None where no class
    has an object of that kind; Pascal VOC's (`core.voc`); where it is known in how many training images each class is, and that differs,
    means over the rare classes (in 1 to 10), the common (to 100) and the frequent ones, as LVIS has them (Gupta et al. 2019); then, at an
    overlap of 0.5 and over all classes, F1 score, precision and recall from a threshold of the
    scores on, which is the model's own, or, where it has none yet, that at which F1 is best. Crowds and what is
    marked difficult need not be found.
    """

    primary = "map"
    higher_is_better = True

    def __init__(self, classes: Sequence[str], threshold: float | None = None) -> None:
        self.classes, self._threshold = tuple(classes), threshold
        self._images: list[Image] = []
        self._figures: AveragePrecision | None = None
        self._voc: VocPrecision | None = None
        self._groups: dict[str, Array] = {}

    def by_frequency(self, images: Sequence[int]) -> None:
        """Tell of rare, common and frequent classes too. images: of the training set, how many each class is in."""
        group = np.searchsorted(FREQUENT, np.asarray(images), side="right")
        several = len(np.unique(group[np.asarray(images) > 0])) > 1
        self._groups = {name: (group == place + 1) for place, name in enumerate(GROUPS)} if several else {}

    @property
    def resamples(self) -> int:
        """1,000 of a bootstrap where that takes seconds, fewer for very many classes and detections, 50 at least."""
        found = sum(len(image.scores) for image in self._images) * len(ap.AREAS) * len(ap.THRESHOLDS)
        return int(min(1000, max(50, SECONDS / (2e-4 * len(self.classes) + 1e-8 * found))))

    def update(self, results: Sequence[Detections], truths: Sequence[Objects]) -> None:
        """Take up what was found in images and what is in them."""
        for result, truth in zip(results, truths, strict=True):
            overlaps, areas = compared(result, truth)
            ignored = truth.crowd | truth.difficult
            self._images.append(Image(result.scores, result.labels, areas[0], truth.labels, areas[1], truth.crowd, ignored, overlaps))
        self._figures = self._voc = None

    def row(self, result: Detections, truth: Objects) -> dict[str, Any]:
        """source, size, boxes, labels, scores, and masks; truth: boxes, labels, masks, and ignored: what need not be found."""
        said = result.to_dict()
        kept = ("source", "size", "boxes", "labels", "category_ids", "scores", "masks")
        boxes = [[round(value, 2) for value in box] for box in truth.boxes.tolist()]
        right: dict[str, Any] = {"boxes": boxes, "labels": [self.classes[label] for label in truth.labels.tolist()]}
        right |= {"masks": [mask.counts.decode() for mask in truth.masks]} if "masks" in said else {}
        right["ignored"] = (truth.crowd | truth.difficult).tolist()
        return {name: said[name] for name in kept if name in said} | {"truth": right}

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` `[N]` count each image that often (None: once)."""
        precision, recall = self._all.tables(weights)
        values = [precision[:, 0], precision[:, 0, 0], precision[:, 0, 5], *(precision[:, place] for place in (1, 2, 3))]
        values += [*(recall[:, 0, :, place] for place in range(3)), *(recall[:, place, :, 2] for place in (1, 2, 3))]
        figures = {name: _mean(value) for name, value in zip(FIGURES, values, strict=True)}
        if self._voc is None:
            self._voc = VocPrecision(self._images, len(self.classes))
        figures |= {name: _mean(value) for name, value in zip(VOC, self._voc.tables(weights), strict=True)}
        figures |= {name: _mean(precision[chosen, 0]) for name, chosen in self._groups.items()}
        return figures | dict(zip(AT_BEST, self._told(weights), strict=True))

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class objects map map_50 precision recall f1`, in class order, the last three at the threshold of all classes; and
        `best_f1 best_precision best_recall best_threshold` at the class's own."""
        precision, _ = self._all.tables()
        threshold = self._told(None)[3]
        rows = []
        for label, name in enumerate(self.classes):
            found = self._all.matches[label]
            share = _at(found, threshold)
            best = self._best([label], None)
            rows.append(
                {
                    "class": name,
                    "objects": int(found.positives[:, 0].sum()),
                    "map": _mean(precision[label, 0]),
                    "map_50": _mean(precision[label, 0, :1]),
                    **dict(zip(("precision", "recall", "f1"), share, strict=True)),
                    **{f"best_{name}": value for name, value in zip(AT_BEST, best, strict=True)},
                }
            )
        return rows

    def details(self) -> dict[str, Any]:
        """classes; curves: of each class, precision at 101 recalls at an overlap of 0.5;
        confusion: counts `[K + 1][K + 1]` at the threshold, rows truth, columns answer, the last of each the background; errors: how many
        detections and objects went wrong, by kind."""
        threshold = self._told(None)[3]
        return {
            "classes": list(self.classes),
            "curves": [_curve(found) for found in self._all.matches],
            "confusion": self._confusion(threshold).tolist(),
            "errors": self._errors(threshold),
        }

    @property
    def _all(self) -> AveragePrecision:
        if self._figures is None:
            self._figures = AveragePrecision(self._images, len(self.classes))
        return self._figures

    def _told(self, weights: Array | None) -> tuple[float | None, float | None, float | None, float | None]:
        """F1 score, precision and recall of all classes from the model's threshold on, and the threshold; the best where it has none."""
        if self._threshold is None:
            return self._best(None, weights)
        counts = np.ones(len(self._images), np.int64) if weights is None else weights
        positives = sum(float(counts @ found.positives[:, 0]) for found in self._all.matches)
        hit = wrong = 0.0
        for found in self._all.matches:
            scores, hits, false = ap.curve(found, weights)
            shown = int((scores >= self._threshold).sum())
            hit, wrong = (hit + float(hits[shown - 1]), wrong + float(false[shown - 1])) if shown else (hit, wrong)
        precision = hit / (hit + wrong) if hit + wrong else None
        f1 = 2 * hit / (hit + wrong + positives) if positives else None
        return f1, precision, hit / positives if positives else None, self._threshold

    def _best(self, labels: Sequence[int] | None, weights: Array | None) -> tuple[float | None, float | None, float | None, float | None]:
        """The best F1 score of these classes (None: of all), precision and recall there, and the score from which detections count."""
        chosen = [self._all.matches[label] for label in (range(len(self.classes)) if labels is None else labels)]
        counts = np.ones(len(self._images), np.int64) if weights is None else weights
        positives = sum(float(counts @ found.positives[:, 0]) for found in chosen)
        curves = [ap.curve(found, weights) for found in chosen]
        scores = np.concatenate([score for score, _, _ in curves]) if curves else np.zeros(0)
        if not positives or not len(scores):
            return (0.0 if positives else None), None, (0.0 if positives else None), None
        order = np.argsort(-scores, kind="stable")
        hits, false = (np.cumsum(np.concatenate([np.diff(curve[part], prepend=0.0) for curve in curves])[order]) for part in (1, 2))
        scores = scores[order]
        last = np.append(scores[1:] < scores[:-1], True)  # detections of one score stay together
        f1 = np.where(last, 2 * hits / (hits + false + positives), -1.0)
        best = int(f1.argmax())
        lower = scores[best + 1] if best + 1 < len(scores) else 0.0
        shown = hits[best] + false[best]
        return float(f1[best]), float(hits[best] / shown) if shown else None, float(hits[best] / positives), float(scores[best] + lower) / 2

    def _confusion(self, threshold: float | None) -> NDArray[np.int64]:
        """Detections from the threshold on take the object that they overlap most, of whatever class, at least by NEAR, surest first."""
        nothing = len(self.classes)
        counts = np.zeros((nothing + 1, nothing + 1), np.int64)
        for image in self._images:
            free = ~image.ignored
            for place in np.argsort(-image.scores, kind="stable"):
                if threshold is None or image.scores[place] < threshold:
                    break
                near = image.overlaps[place]
                open_ = np.where(free, near, 0.0)
                best = int(open_.argmax()) if len(near) else 0
                if len(near) and open_[best] >= NEAR:
                    counts[image.truths[best], image.labels[place]] += 1
                    free[best] = False
                elif not (near[image.ignored] >= NEAR).any():
                    counts[nothing, image.labels[place]] += 1
            np.add.at(counts[:, nothing], image.truths[free], 1)
        return counts

    def _errors(self, threshold: float | None) -> dict[str, int]:
        """Kinds of error (Bolya et al. 2020, "TIDE", section 2.2) of detections from the threshold on: of the right class but misplaced,
        well placed but of another class, both, a second one of an object, on the background; and objects that were missed."""
        kinds = dict.fromkeys(("localization", "classification", "both", "duplicate", "background", "missed"), 0)
        for number, image in enumerate(self._images):
            taken = self._taken(number, threshold)
            for place in np.flatnonzero(image.scores >= threshold) if threshold is not None else ():
                if place in taken:
                    continue
                near = image.overlaps[place]
                if (near[image.ignored] >= NEAR).any():
                    continue
                same = np.where(image.truths == image.labels[place], near, 0.0).max(initial=0.0)
                other = np.where(image.truths == image.labels[place], 0.0, near).max(initial=0.0)
                kinds[_kind(float(same), float(other))] += 1
            kinds["missed"] += int((~image.ignored).sum()) - len(set(taken.values()))
        return kinds

    def _taken(self, number: int, threshold: float | None) -> dict[int, int]:
        """Detection -> the object of its class that it takes at an overlap of NEAR, from the threshold on, surest first."""
        image, taken = self._images[number], {}
        free = ~image.ignored
        for place in np.argsort(-image.scores, kind="stable").tolist():
            if threshold is None or image.scores[place] < threshold:
                break
            near = np.where(free & (image.truths == image.labels[place]), image.overlaps[place], 0.0)
            if len(near) and near.max() >= NEAR:
                taken[place] = int(near.argmax())
                free[taken[place]] = False
        return taken


def compared(result: Detections, truth: Objects) -> tuple[Array, tuple[Array, Array]]:
    """The overlaps of an answer with the truth, `[D, G]`, and the areas of both: of masks where the answer has them, else of boxes."""
    if not isinstance(result, Instances):
        return ap.overlaps(result.boxes, truth.boxes, truth.crowd), (ap.area(result.boxes), ap.area(truth.boxes))
    first, second = (np.array([run_lengths.covered(mask) for mask in masks], np.float64) for masks in (result.masks, truth.masks))
    return run_lengths.overlaps(result.masks, truth.masks, truth.crowd), (first, second)


def _kind(same: float, other: float) -> str:
    """Of an error, by the largest overlaps with objects of the same class and of others."""
    if same >= NEAR:
        return "duplicate"
    if other >= NEAR:
        return "classification"
    if same >= FAR:
        return "localization"
    return "both" if other >= FAR else "background"


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _at(found: ap.Matches, threshold: float | None) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 of one class at a threshold; None where undefined."""
    positives = int(found.positives[:, 0].sum())
    scores, hits, false = ap.curve(found)
    shown = int((scores >= threshold).sum()) if threshold is not None else 0
    hit, wrong = (float(hits[shown - 1]), float(false[shown - 1])) if shown else (0.0, 0.0)
    f1 = 2 * hit / (hit + wrong + positives) if hit + wrong + positives else None
    return (hit / (hit + wrong) if shown else None), (hit / positives if positives else None), f1


def _curve(found: ap.Matches) -> list[float]:
    """Precision at POINTS recalls from 0 to 1, as it is read for the average; nothing where there is no object."""
    positives = int(found.positives[:, 0].sum())
    if not positives:
        return []
    _, hits, false = ap.curve(found)
    precision = np.maximum.accumulate((hits / np.maximum(hits + false, 1))[::-1])[::-1]
    at = np.searchsorted(hits / positives, np.linspace(0, 1, POINTS), side="left")
    return [round(float(precision[place]), 4) if place < len(precision) else 0.0 for place in at]
