"""The array half of decoding: the named arrays that a session gives, as results. NumPy, once for all who predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import object_masks, pixel_classes, run_lengths, segments
from saccade.core.card import Card
from saccade.core.errors import UserError, unknown
from saccade.core.geometry import to_source
from saccade.core.nms import WAYS, suppressed
from saccade.core.pixel_classes import numbers
from saccade.core.results import OBJECTS, Classification, Detections, Instances, Result

Array = NDArray[Any]

NEEDED = {  # outputs by task
    "classify": ("probabilities",),
    "detect": ("boxes", "scores", "labels"),
    "instances": ("boxes", "scores", "labels"),  # and one of the forms of masks
    "segment": ("logits",),
    "panoptic": segments.NEEDED,  # or those of instances, and "pixels"
}
BY_RANK = ("boxes", "labels", "weights", "grids")  # outputs whose rows stand in the order of the scores
LEAST = 0.001  # score below which a detection is none, for figures over all scores too
THRESHOLD = 0.25  # score from which one is told, where the model's card has no threshold of its own
MOST = 300  # detections of an image
SLACK = 1e-2  # how far 16-bit rounding may carry a probability, or a row's sum, beyond 1


def results(
    outputs: Mapping[str, Any],
    card: Card,
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]] | None = None,
    *,
    complete: bool = False,
) -> list[Result]:
    """One result for each image of a batch, in its order.

    outputs: what the room's `decode` gives, as anything `np.asarray` takes; for "classify" that is "probabilities", float32 `[B, K]`, for
    "detect" "boxes" `[B, N, 4]` in pixels of the model's input, "scores" and "labels" `[B, N]`, a score of 0 where there is none, for
    "instances" also the masks in one of the forms of `core.object_masks`, for "segment" "logits" `[B, K, h, w]`, one at each pixel of
    the input, for "panoptic" what `core.segments` takes: of queries, or as for "instances" and "pixels" `[B, K, h, w]`. sizes: (height,
    width) of the original images; sources: what each is called; notes: remarks on each. complete: also what is too unsure to be told, as
    figures over all scores of objects need it; of pixels, then, not how sure they are. Raises UserError where the outputs are not those of
    the card (its file is at fault), ValueError where the lists differ in length.
    """
    if card.task not in NEEDED:
        known = " or ".join(map(repr, NEEDED))
        raise UserError(f"the task must be {known}, the model's card says {card.task!r}", fix="a newer saccade may know it")
    for name in _needed(card.task, outputs):
        if name not in outputs:
            raise UserError(f"the model must give {name!r}, it gives {', '.join(map(repr, outputs)) or 'nothing'}")
    notes = [()] * len(sources) if notes is None else notes
    if not len(sizes) == len(sources) == len(notes):
        raise ValueError(f"sizes, sources and notes must be equally many, got {len(sizes)}, {len(sources)} and {len(notes)}")
    if card.task == "classify":
        found = classifications(outputs["probabilities"], card.classes, sizes, sources, notes)
        return list(_with_exits(found, outputs))
    if card.task == "segment":
        return list(pixel_classes.segmentations(numbers(outputs["logits"], "logits"), card, sizes, sources, notes, doubts=not complete))
    if card.task == "panoptic":
        if "pixels" not in outputs:
            return list(segments.panoptics(outputs, card, sizes, sources, notes))
        things: Any = detections(outputs, card, sizes, sources, notes, told_from(card))
        return list(segments.filled(things, numbers(outputs["pixels"], "pixels"), card))
    return list(detections(outputs, card, sizes, sources, notes, LEAST if complete else told_from(card)))


def _needed(task: str, outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what a task's results are made of."""
    masked = task == "instances" or (task == "panoptic" and "pixels" in outputs)
    return (*NEEDED["instances"], *object_masks.form(outputs)) if masked else NEEDED[task]


def detections(
    outputs: Mapping[str, Any],
    card: Card,
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]],
    least: float,
) -> list[Detections]:
    """Detections of at least a score, at most MOST an image, in pixels of the original images, after suppression (`core.nms`) by class, or
    as the card's architecture says: "nms", one of its ways, or False for none; "boxes": "masks": those about the masks."""
    boxes, scores, labels = (numbers(outputs[name], name) for name in NEEDED["detect"])
    masks = object_masks.of(outputs, len(sources), scores.shape[1:]) if card.task != "detect" else None
    if boxes.shape != (len(sources), *scores.shape[1:], 4) or scores.shape != labels.shape or scores.ndim != 2:
        raise UserError(
            f"the model must give boxes [B, N, 4] and scores and labels [B, N] for {len(sources)} images, got {boxes.shape}, "
            f"{scores.shape} and {labels.shape}"
        )
    good = np.isfinite(boxes).all((1, 2)) & np.isfinite(scores).all(1) & ((labels >= 0) & (labels < len(card.classes))).all(1)
    if not good.all():
        fix = "try --precision fp32; if that gives the same, the weights are broken"
        raise UserError("boxes and scores must be finite, and labels classes", where=sources[int(np.flatnonzero(~good)[0])], fix=fix)
    found = []
    way = way_of(card)
    for place, (source, size, remarks) in enumerate(zip(sources, sizes, notes, strict=True)):
        # From LEAST on: of what is told the surer ones suppress the same.
        kept, known = suppressed(boxes[place], scores[place], labels[place].astype(np.int64), way, LEAST, MOST)
        whole = to_source(boxes[place][kept], size, card.input.size)
        shown = (known >= least) & (whole[:, 2:] > whole[:, :2]).all(1)  # what lies in the padding alone is nothing
        kept, known, whole = kept[shown], known[shown], whole[shown]
        told = whole, known, labels[place][kept].astype(np.int64), card.classes, source, size, tuple(remarks), None, card.ids
        if masks is None:
            found.append(Detections(*told))
        else:
            answer = Instances(*told, masks.drawn(place, kept, boxes[place][kept], size, card.input.size))
            answer = answer.chosen(np.array([run_lengths.covered(mask) > 0 for mask in answer.masks], bool))  # so is an empty mask
            found.append(_about_masks(answer) if card.architecture.get("boxes") == "masks" else answer)
    return found


def _about_masks(answer: Instances) -> Instances:
    """With boxes about the masks, to the pixel: of models that find objects by masks alone, whose own take in what lies beyond the
    image."""
    boxes = np.array([run_lengths.patch(mask).box for mask in answer.masks], np.float32).reshape(-1, 4)
    return replace(answer, boxes=boxes)


def told_from(card: Card) -> float:
    """The score from which an object is told."""
    return max(LEAST, card.metrics.get("threshold") or THRESHOLD)


def way_of(card: Card) -> str:
    """How doubles are suppressed; raises UserError where a card names no way."""
    way = card.architecture.get("nms", "class")
    if way is False:  # as cards of detectors that answer once for each object have it
        return "none"
    if way not in WAYS:
        raise UserError(f"the model's nms must be {', '.join(WAYS)} or false, its card says {way!r}", fix="the file is at fault")
    return str(way)


def by_way(card: Card, way: str) -> Card:
    """The card with another way to suppress doubles; raises UserError where there is no such way, or nothing to suppress."""
    if way not in WAYS:
        raise unknown("way to suppress doubles", way, WAYS, where="nms")
    if card.task not in OBJECTS:
        raise UserError(f"is for models that find objects, this one is for {card.task}", where="nms", fix="leave it out")
    return replace(card, architecture={**card.architecture, "nms": way})


def classifications(
    probabilities: Any,
    classes: tuple[str, ...],
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]] | None = None,
) -> list[Classification]:
    """Classifications of float32 `[B, K]`; labels by falling score, ties by class index. Errors as in `results`."""
    notes = [()] * len(sources) if notes is None else notes
    rows = _checked(probabilities, classes, sources)
    labels = np.argsort(-rows, axis=1, kind="stable")
    scores = np.take_along_axis(rows, labels, axis=1)
    return [
        Classification(labels[i], scores[i], rows[i], classes, source, size, tuple(remarks))
        for i, (source, size, remarks) in enumerate(zip(sources, sizes, notes, strict=True))
    ]


def _with_exits(found: list[Classification], outputs: Mapping[str, Any]) -> list[Classification]:
    """Of a network with exits: where each image left, "exit" `[B]`, and what all of them say, "early" `[B, E, K]`."""
    if "exit" in outputs:
        found = [replace(one, exit=int(number)) for one, number in zip(found, np.asarray(outputs["exit"]), strict=True)]
    if "early" in outputs:
        found = [replace(one, early=rows) for one, rows in zip(found, numbers(outputs["early"], "early"), strict=True)]
    return found


def _checked(probabilities: Any, classes: tuple[str, ...], sources: Sequence[str]) -> NDArray[np.float32]:
    rows = numbers(probabilities, "probabilities")
    shape = (len(sources), len(classes))
    if rows.shape != shape or not classes:
        raise UserError(
            f"the model must give probabilities of shape {shape} (images, classes of its card), got {rows.shape}",
            fix="the weights and the card of this file do not belong together",
        )
    # A NaN fails both comparisons.
    bad = ~((rows >= 0) & (rows <= 1 + SLACK)).all(axis=1) | (rows.sum(axis=1) > 1 + SLACK)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        finite = bool(np.isfinite(rows[first]).all())
        got = f"{rows[first].min():.3g} to {rows[first].max():.3g}, sum {rows[first].sum():.3g}" if finite else "NaN or infinity"
        raise UserError(
            f"probabilities must be finite, from 0 to 1 and sum to 1, got {got} for {int(bad.sum())} of {len(rows)} images",
            where=sources[first],
            fix="the outputs may lack their softmax" if finite else "try --precision fp32; if that gives the same, the weights are broken",
        )
    return rows
