"""Average precision as Pascal VOC counts it, at an overlap of 0.5 (Everingham et al. 2010, section 4.2, and 2015, section 3.3).

NumPy only. Other than by COCO's rules a detection is held against the object of its class that it overlaps most, taken or not, so that the
second one of an object is wrong even where another object is near; all detections count. In VOC 2007 precision is read at eleven recalls,
from 2010 on it is the whole area under the curve. What is difficult counts neither as found nor as wrong; crowds are taken the same way.
Overlaps are those of continuous coordinates, where VOC's own tool adds a pixel to every side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.average_precision import Image

Array = NDArray[Any]
Floats = NDArray[np.float64]

NEAR = 0.5
RECALLS = 10  # and 0: eleven


@dataclass(frozen=True)
class _Found:
    """The detections of one class that count, by falling score. image, right: `[D]`; positives: `[I]`, objects of each image."""

    image: Array
    right: NDArray[np.bool_]
    positives: Array


class VocPrecision:
    """Both figures for each of `classes` of `images`."""

    def __init__(self, images: Sequence[Image], classes: int) -> None:
        self._found = _by_class(images, classes)

    def tables(self, weights: Array | None = None) -> tuple[Floats, Floats]:
        """Average precision of 2007 and from 2010 on: float64 `[K]` each, NaN where a class has no object; integer `weights` `[I]` repeat
        images."""
        old, new = np.full(len(self._found), np.nan), np.full(len(self._found), np.nan)
        for label, found in enumerate(self._found):
            counts = np.ones(len(found.positives), np.int64) if weights is None else np.asarray(weights, np.int64)
            positives = int(counts @ found.positives)
            if positives:
                old[label], new[label] = _read(found.right, counts[found.image], positives)
        return old, new


def _read(right: NDArray[np.bool_], weight: Array, positives: int) -> tuple[float, float]:
    hits, shown = np.cumsum(right * weight), np.cumsum(weight)
    precision = hits / np.maximum(shown, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(RECALLS * hits, np.arange(RECALLS + 1) * positives, side="left")  # whole numbers: no recall is just missed
    read = np.append(precision, 0.0)[places]
    return float(read.mean()), float((np.diff(hits, prepend=0) * precision).sum() / positives)


def _by_class(images: Sequence[Image], classes: int) -> list[_Found]:
    """Each detection's object and whether it is near, of all images; then the first of each object, class by class."""
    rows: list[tuple[Array, ...]] = []
    positives = np.zeros((len(images), classes), np.int64)
    first = 0  # of this image's objects among all
    for number, image in enumerate(images):
        np.add.at(positives[number], image.truths[~image.ignored], 1)
        count = len(image.scores)
        near, best, passed = np.zeros(count, bool), np.zeros(count, np.int64), np.zeros(count, bool)
        if count and len(image.truths):
            own = np.where(image.labels[:, None] == image.truths, image.overlaps, -1.0)
            best = own.argmax(1)
            near = own[np.arange(count), best] >= NEAR
            passed = near & image.ignored[best]
        rows.append((image.scores, image.labels, np.full(count, number), near, best + first, passed))
        first += len(image.truths)
    scores, labels, where, near, best, passed = (np.concatenate(part) if rows else np.zeros(0, np.int64) for part in _columns(rows))
    order = np.argsort(-scores, kind="stable")
    order = order[~passed[order].astype(bool)]
    found = []
    for label in range(classes):
        mine = order[labels[order] == label]
        right = np.zeros(len(mine), bool)
        close = np.flatnonzero(near[mine])
        right[close[np.unique(best[mine][close], return_index=True)[1]]] = True
        found.append(_Found(where[mine], right, positives[:, label]))
    return found


def _columns(rows: Sequence[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * 6
