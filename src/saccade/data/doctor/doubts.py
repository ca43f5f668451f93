"""Labels that are probably wrong, by what a model says that has not seen them: confident learning (Northcutt et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.core.errors import UserError
from saccade.core.progress import Progress, Silent
from saccade.core.results import Classification
from saccade.data.annotations import Annotations
from saccade.data.dataset import Dataset
from saccade.data.doctor.flat import Flags, Floats, Integers, of_item
from saccade.data.findings import Finding
from saccade.data.reading import shown

SURE = 10  # times as probable as the label must be what the model says: a model that is often wrong would doubt half of a set
ENOUGH = 20  # images that make a mean of a class


class Predictor(Protocol):
    """What answers for images: what `saccade.load_run` and `saccade.load` give."""

    def predict_each(self, inputs: Any, *, progress: Progress | None = None) -> Iterator[Any]:
        """A Classification for each image, in order, or something else where it cannot be read."""
        ...


class Doubts(NamedTuple):
    """The doubted labels, the most doubtful first. place: which, int64 `[D]`; confidence: the probability of the label as given, float64
    `[D]`; instead: the class that is likelier, int64 `[D]`."""

    place: Integers
    confidence: Floats
    instead: Integers


def doubted(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> Doubts:
    """Labels int `[N]` that out-of-sample probabilities `[N, K]` speak against.

    A class is confidently said where its probability reaches the mean that it has over all images of that label; of several the most
    probable counts. A label is doubted where that is another class (off the diagonal of the paper's confident joint). Rows with values
    that are not finite say nothing. Raises ValueError where the shapes do not fit.
    """
    said, given = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if said.ndim != 2 or given.shape != said.shape[:1] or (len(given) and not 0 <= given.min() <= given.max() < said.shape[1]):
        raise ValueError(f"must be probabilities [N, K] and labels [N] below K, were {said.shape} and {given.shape}")
    rows = np.arange(len(given))
    whole: Flags = np.isfinite(said.sum(1))
    own = said[rows, given]
    count = np.bincount(given[whole], minlength=said.shape[1])
    total = np.bincount(given[whole], own[whole], minlength=said.shape[1])
    threshold = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    confident = np.where(whole[:, None] & (said >= threshold - 1e-12), said, -np.inf)
    likeliest = confident.argmax(1)
    found = np.flatnonzero(confident[rows, likeliest] > confident[rows, given])
    order = found[np.argsort(own[found], kind="stable")]
    return Doubts(order, own[order], likeliest[order])


def check(annotations: Annotations, run: Predictor, progress: Progress) -> list[Finding]:
    """Labels of images that `run` speaks against, the most doubtful first; images that it has learned from are judged mildly.

    Raises UserError where images have not one class each, and where the model is no classifier or lacks one of the classes.
    """
    if annotations.task != "classify" or annotations.multi:
        kind = "images of several labels" if annotations.multi else f"{annotations.task} ({annotations.format})"
        raise UserError(f"is for images of one class each, and this set is for {kind}", where="--run", fix="leave --run out")
    said, kept = _said(annotations, run, progress)
    if not said:
        return []
    items, names = [annotations.items[index] for index in kept], said[0].classes
    place = [names.index(name) for name in annotations.classes]
    probabilities = np.stack([one.probabilities for one in said])
    labels = np.array([place[item.labels[0]] for item in items])
    train = np.zeros(len(annotations.items), bool)
    train[Dataset.of(annotations).splits.get("train", [])] = True  # where the set names no splits, as training would take them
    doubts = _by_split(probabilities, labels, train[kept])
    found = []
    for row, own, instead in zip(doubts.place.tolist(), doubts.confidence.tolist(), doubts.instead.tolist(), strict=True):
        other = float(probabilities[row, instead])
        if other >= SURE * own:
            label = annotations.classes[items[row].labels[0]]
            found.append(of_item("doubted-label", items[row], f"labelled {label}, the model says {names[instead]} ({other:.2f})"))
    return found


def _by_split(probabilities: NDArray[np.floating], labels: NDArray[np.integer], train: Flags) -> Doubts:
    """As `doubted`, for training images and for the others each by themselves: a model is surer of what it may have learned from, and
    would hold others to that. All together where a class has fewer than ENOUGH images on one side."""
    sides = [np.flatnonzero(train), np.flatnonzero(~train)]
    if any(np.bincount(labels[side], minlength=probabilities.shape[1])[np.unique(labels)].min() < ENOUGH for side in sides):
        return doubted(probabilities, labels)
    parts = [doubted(probabilities[side], labels[side]) for side in sides]
    places = np.concatenate([side[part.place] for side, part in zip(sides, parts)])
    confidence, instead = np.concatenate([part.confidence for part in parts]), np.concatenate([part.instead for part in parts])
    order = np.argsort(confidence, kind="stable")
    return Doubts(places[order], confidence[order], instead[order])


def _said(annotations: Annotations, run: Predictor, progress: Progress) -> tuple[list[Classification], list[int]]:
    """The answers, and the indices of the images that they are for: all that can be read."""
    items = annotations.items
    said: list[Classification] = []
    kept: list[int] = []
    progress.start("asking the model", len(items), "images")
    answers = run.predict_each((annotations.tree.image(item.path) for item in items), progress=Silent())
    for index, answer in enumerate(answers):
        progress.advance()
        if getattr(answer, "task", "") not in ("", "classify"):
            raise UserError(f"must be a classifier, but is for {answer.task}", where="--run")
        if isinstance(answer, Classification):
            if not said:
                _check_classes(annotations, answer.classes)
            said.append(answer)
            kept.append(index)
    progress.finish()
    return said, kept


def _check_classes(annotations: Annotations, known: tuple[str, ...]) -> None:
    unknown = [name for name in annotations.classes if name not in known]
    if unknown:
        fix = f"its classes are {', '.join(known[:10])}{' ...' if len(known) > 10 else ''}"
        raise UserError(f"the model has no class {shown(unknown[0])}", where="--run", fix=fix)
