"""Average precision of objects found in images: COCO's matching and its figures, NumPy only.

The rules are those of cocoapi's cocoeval (evaluateImg, accumulate): in each image and class, detections by falling score take the truth
that they overlap most, at each of ten thresholds; precision is read at 101 recalls. Tests hold the figures equal to pycocotools' and
faster-coco-eval's to 1e-6. It is done here because their matches cannot be read, and weights by image (bootstrap, paired comparison)
need them. All groups of image and class are matched at once, a rank of detections at a time.

I images, K classes, T thresholds, A ranges of area; D detections and G truths of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels, both ends belong
MOST = 100  # detections of a class in an image that count for the average
FIRST = (1, 10, MOST)  # of which recall is told
MISSED, HIT, IGNORED = 0, 1, 2  # what became of a detection
ROOM = 1 << 24  # elements of the largest array at work


@dataclass(frozen=True)
class Image:
    """What was found in an image and what is in it.

    scores, labels, areas: `[D]` of detections; truths, truth_areas, crowd: `[G]` (labels, pixels, bool); ignored: bool `[G]`, truths that
    need not be found; overlaps: float64 `[D, G]`, see `overlaps`.
    """

    scores: Array
    labels: Array
    areas: Array
    truths: Array
    truth_areas: Array
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    overlaps: Floats


def area(boxes: Array) -> Floats:
    """Of boxes `[N, 4]`: float64 `[N]`."""
    found: Floats = (boxes[:, 2:].astype(np.float64) - boxes[:, :2]).prod(1)
    return found


def overlaps(found: Array, truths: Array, crowd: NDArray[np.bool_]) -> Floats:
    """Intersection of boxes `[D, 4]` and `[G, 4]` over their union, of a crowd over the detection's own area: float64 `[D, G]`."""
    found, truths = found.astype(np.float64), truths.astype(np.float64)
    low = np.maximum(found[:, None, :2], truths[None, :, :2])
    common = (np.minimum(found[:, None, 2:], truths[None, :, 2:]) - low).clip(0).prod(2)
    own = area(found)[:, None]
    whole = np.where(crowd, own, own + area(truths) - common)
    found_over: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return found_over


@dataclass(frozen=True)
class Matches:
    """The detections of one class in all images, by falling score.

    scores `[D]`; image `[D]`; rank `[D]`, place among those of its image; outcome: uint8 `[D, A, T]`, MISSED, HIT or IGNORED;
    positives: int64 `[I, A]`, truths to be found.
    """

    scores: Array
    image: Array
    rank: Array
    outcome: NDArray[np.uint8]
    positives: Array


class AveragePrecision:
    """COCO's figures of `images`; each needs at least one class, and labels below `classes`."""

    def __init__(self, images: Sequence[Image], classes: int) -> None:
        self._images, self._classes = images, classes

    @cached_property
    def matches(self) -> list[Matches]:
        """One for each class, of all detections."""
        groups = [_groups(number, image) for number, image in enumerate(self._images)]
        flat = [group for several in groups for group in several]
        _match(flat)
        by_class: list[list[_Group]] = [[] for _ in range(self._classes)]
        for group in flat:
            by_class[group.label].append(group)
        return [_of_class(several, len(self._images)) for several in by_class]

    def tables(self, weights: Array | None = None) -> tuple[Floats, Floats]:
        """Average precision `[K, A, T]` and recall `[K, A, T, len(FIRST)]`, NaN where a class has no truth; integer `weights` `[I]` repeat
        images."""
        weights = np.ones(len(self._images), np.int64) if weights is None else np.asarray(weights, np.int64)
        precision = np.full((self._classes, len(AREAS), len(THRESHOLDS)), np.nan)
        recall = np.full((*precision.shape, len(FIRST)), np.nan)
        for label, found in enumerate(self._surest):
            positives = weights @ found.positives
            if positives.any():
                known = positives > 0
                precision[label, known], recall[label, known] = _read(found, np.flatnonzero(known), weights, positives[known])
        return precision, recall

    @cached_property
    def _surest(self) -> list[Matches]:
        """The same of the MOST surest of each image."""
        kept = [(found, found.rank < MOST) for found in self.matches]
        return [Matches(found.scores[few], found.image[few], found.rank[few], found.outcome[few], found.positives) for found, few in kept]


def curve(found: Matches, weights: Array | None = None, threshold: int = 0) -> tuple[Floats, Floats, Floats]:
    """Scores, hits and false alarms, the latter two added up from the surest on, of detections of any area: float64 `[N]` each."""
    counts = found.outcome[:, 0, threshold] != IGNORED
    if weights is not None:
        counts &= weights[found.image] > 0
    weight = np.ones(int(counts.sum())) if weights is None else weights[found.image[counts]].astype(np.float64)
    hit = found.outcome[counts, 0, threshold] == HIT
    return found.scores[counts], np.cumsum(hit * weight), np.cumsum(~hit * weight)


def _read(found: Matches, places: Array, weights: Array, positives: Array) -> tuple[Floats, Floats]:
    """Average precision `[P, T]` and recall `[P, T, len(FIRST)]` of a class in the ranges of area at `places` `[P]`, where it has
    `positives` `[P]` truths, at least one each. Rows below are pairs of range and threshold; hits are whole numbers, so that nothing is
    rounded where a recall is just reached."""
    shape = len(places), len(THRESHOLDS)
    if not len(found.scores):
        return np.zeros(shape), np.zeros((*shape, len(FIRST)))
    outcome = found.outcome[:, places].reshape(len(found.scores), -1).T
    weight = weights[found.image]
    right = (outcome == HIT) * weight
    hits, false = np.cumsum(right, axis=1), np.cumsum((outcome == MISSED) * weight, axis=1)
    precision = hits / np.maximum(hits + false, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    needed = np.stack([np.searchsorted(np.arange(count + 1) / count, RECALLS, side="left") for count in positives.tolist()])
    rows, most = np.arange(len(outcome))[:, None], int(positives.max()) + 1
    # All rows in one search: each has its own range of numbers.
    at = np.searchsorted((hits + rows * most).ravel(), (needed.repeat(shape[1], 0) + rows * most).ravel(), side="left")
    at = at.reshape(len(outcome), -1) - rows * hits.shape[1]
    read = np.where(at < hits.shape[1], precision[rows, at.clip(max=hits.shape[1] - 1)], 0.0)
    total = np.stack([right[:, found.rank < first].sum(1) for first in FIRST], axis=1) / positives.repeat(shape[1])[:, None]
    return read.mean(1).reshape(shape), total.reshape(*shape, len(FIRST))


# Matching


@dataclass
class _Group:
    """Detections and truths of one class in one image, and, once matched, what became of the former."""

    image: int
    label: int
    scores: Array
    areas: Array
    overlaps: Floats
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_areas: Array
    outcome: NDArray[np.uint8]


def _groups(number: int, image: Image) -> list[_Group]:
    found = []
    for label in np.union1d(image.labels, image.truths).tolist():
        own, truths = np.flatnonzero(image.labels == label), np.flatnonzero(image.truths == label)
        own = own[np.argsort(-image.scores[own], kind="stable")]
        outcome = np.zeros((len(own), len(AREAS), len(THRESHOLDS)), np.uint8)
        overlapping = image.overlaps[np.ix_(own, truths)]
        found.append(
            _Group(
                number,
                int(label),
                image.scores[own],
                image.areas[own],
                overlapping,
                image.crowd[truths],
                image.ignored[truths] | image.crowd[truths],
                image.truth_areas[truths],
                outcome,
            )
        )
    return found


def _match(groups: Sequence[_Group]) -> None:
    """Decide the outcome of all detections: groups of about as many truths together, so that little is padded."""
    sizes: dict[int, list[_Group]] = {}
    for group in groups:
        if len(group.scores) and len(group.truth_areas):
            sizes.setdefault(int(len(group.truth_areas) - 1).bit_length(), []).append(group)
    for power, several in sizes.items():
        several.sort(key=lambda group: -len(group.scores))
        step = max(1, ROOM // (max(len(AREAS) * len(THRESHOLDS), len(several[0].scores)) << power))
        for start in range(0, len(several), step):
            _match_together(several[start : start + step])
    ranges = np.array(list(AREAS.values()))
    for group in groups:
        outside = (group.areas[:, None] < ranges[:, 0]) | (group.areas[:, None] > ranges[:, 1])
        group.outcome[(group.outcome == MISSED) & outside[:, :, None]] = IGNORED


def _match_together(groups: Sequence[_Group]) -> None:
    """The groups come by falling number of detections: those that have one of a rank stand in front."""
    count, width = len(groups), max(len(group.truth_areas) for group in groups)
    deep = len(groups[0].scores)
    overlap, crowd, free = np.full((count, deep, width), -1.0), np.zeros((count, width), bool), np.ones((count, len(AREAS), width), bool)
    for number, group in enumerate(groups):
        n, g = group.overlaps.shape
        overlap[number, :n, :g], crowd[number, :g] = group.overlaps, group.crowd
        for place, (low, high) in enumerate(AREAS.values()):
            free[number, place, :g] = group.ignored | (group.truth_areas < low) | (group.truth_areas > high)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    blocked = np.zeros((count, len(AREAS), len(THRESHOLDS), width), bool)  # taken already, and no crowd
    at = np.arange(count)[:, None, None], np.arange(len(AREAS))[None, :, None], np.arange(len(THRESHOLDS))[None, None, :]
    outcome = np.zeros((deep, count, len(AREAS), len(THRESHOLDS)), np.uint8)
    fewer = np.searchsorted([-len(group.scores) for group in groups], -np.arange(1, deep + 1), side="right")
    for rank, now in enumerate(fewer.tolist()):
        near = overlap[:now, rank, None, None, :]
        fits = (near >= least) & ~blocked[:now]
        wanted = fits & ~free[:now, :, None, :]
        chosen = np.where(wanted.any(3, keepdims=True), wanted, fits)  # a truth that counts goes before one that is ignored
        # Of equal overlaps the last one, as in cocoeval.
        best = width - 1 - np.where(chosen, near, -1.0)[..., ::-1].argmax(3)
        hit = np.asarray(chosen.any(3))
        places = at[0][:now], at[1], at[2]
        blocked[(*places, best)] |= hit & ~crowd[places[0], best]
        outcome[rank, :now] = np.where(hit, np.where(free[places[0], places[1], best], IGNORED, HIT), MISSED)
    for number, group in enumerate(groups):
        group.outcome[:] = outcome[: len(group.scores), number]


def _of_class(groups: Sequence[_Group], images: int) -> Matches:
    positives = np.zeros((images, len(AREAS)), np.int64)
    for group in groups:
        for place, (low, high) in enumerate(AREAS.values()):
            positives[group.image, place] = (~group.ignored & (group.truth_areas >= low) & (group.truth_areas <= high)).sum()
    groups = [group for group in groups if len(group.scores)]
    if not groups:
        none = np.zeros(0, np.int64)
        return Matches(np.zeros(0), none, none, np.zeros((0, len(AREAS), len(THRESHOLDS)), np.uint8), positives)
    scores = np.concatenate([group.scores for group in groups])
    order = np.argsort(-scores, kind="stable")
    image = np.concatenate([np.full(len(group.scores), group.image) for group in groups])
    rank = np.concatenate([np.arange(len(group.scores)) for group in groups])
    outcome = np.concatenate([group.outcome for group in groups])
    return Matches(scores[order], image[order], rank[order], outcome[order], positives)
