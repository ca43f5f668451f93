"""Non-maximum suppression: of boxes that show the same object, the surest. NumPy, or torchvision where it is loaded.

Ways, by name: "class": boxes of one class; "agnostic": whatever their classes; "soft": a box of one class that overlaps a surer one is not
dropped, its score falls (Bodla et al. 2017, "Soft-NMS", equation 3, Gaussian); "none": of detectors that answer once for each object.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

WAYS = ("class", "agnostic", "soft", "none")
OVERLAP = 0.65  # intersection over union above which two boxes are of one object, as in YOLO evaluations
SIGMA = 0.5  # of the Gaussian by which scores fall, as in the paper

Floats = NDArray[np.float32]


def suppressed(
    boxes: Floats, scores: Floats, labels: NDArray[np.int64], way: str, least: float, most: int
) -> tuple[NDArray[np.int64], Floats]:
    """Places of the at most `most` boxes that stay, surest first, and their scores, each of at least `least`.

    boxes: `[N, 4]` x1, y1, x2, y2; scores `[N]`; labels `[N]`; way: one of WAYS.
    """
    sure = np.flatnonzero(scores >= least)
    boxes, known, labels = boxes[sure], scores[sure], labels[sure]
    if way == "soft":
        known = _softened(boxes, known, labels, least, most)
    if way in ("soft", "none"):
        order = np.argsort(-known, kind="stable")
        kept = order[known[order] >= least]
    else:
        kept = nms(boxes, known, labels if way == "class" else np.zeros_like(labels), OVERLAP)
    kept = kept[:most]
    return sure[kept], known[kept]


def across(boxes: Floats, scores: Floats, labels: NDArray[np.int64], views: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Places of the boxes that stay where an image was looked at several times, surest first: a box goes where it overlaps a surer one that
    stays, of its class and of another view, by more than `threshold`. As `nms`; views: `[N]`, which one found it."""
    order = np.argsort(-scores, kind="stable")
    boxes, labels, views = boxes[order], labels[order], views[order]
    gone = np.zeros(len(order), bool)
    for place in range(len(order)):
        if not gone[place]:
            rest = slice(place + 1, None)
            twice = (labels[rest] == labels[place]) & (views[rest] != views[place])
            gone[rest] |= twice & (_overlaps(boxes[place], boxes[rest]) > threshold)
    return order[~gone]


def _softened(boxes: Floats, scores: Floats, labels: NDArray[np.int64], least: float, most: int) -> Floats:
    """The scores once each box, from the surest on, has made those of its class that it overlaps less sure."""
    found = scores.astype(np.float32)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        waiting = np.ones(len(places), bool)
        for _ in range(min(most, len(places))):
            left = np.flatnonzero(waiting & (found[places] >= least))
            if not len(left):
                break
            best = left[int(found[places[left]].argmax())]
            waiting[best] = False
            others = places[waiting]
            shared = _overlaps(boxes[places[best]], boxes[others])
            found[others] *= np.exp(-(shared**2) / np.float32(SIGMA))
    return found


def nms(boxes: Floats, scores: Floats, labels: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Places of the boxes that stay, surest first; a box goes where it overlaps a surer one of its class by more than `threshold`.

    boxes: `[N, 4]` x1, y1, x2, y2; scores `[N]`; labels `[N]`. Overlap is intersection over union, computed in float32; of equal scores
    the first is the surer one. Both ways give the same.
    """
    library = sys.modules.get("torchvision.ops")
    kept = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        places = places[np.argsort(-scores[places], kind="stable")]
        chosen = np.ascontiguousarray(boxes[places], np.float32)
        kept.append(places[_greedy(chosen, threshold) if library is None else _by_torchvision(library, chosen, threshold)])
    found: NDArray[np.int64] = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    return found[np.argsort(-scores[found], kind="stable")]


def _by_torchvision(library: object, boxes: Floats, threshold: float) -> NDArray[np.int64]:
    torch = sys.modules["torch"]
    falling = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    kept: NDArray[np.int64] = library.nms(torch.from_numpy(boxes), falling, threshold).numpy()  # type: ignore[attr-defined]
    return kept


def _greedy(boxes: Floats, threshold: float) -> NDArray[np.int64]:
    """Places that stay, of boxes by falling score."""
    gone = np.zeros(len(boxes), bool)
    kept = []
    for place in range(len(boxes)):
        if gone[place]:
            continue
        kept.append(place)
        gone[place + 1 :] |= _overlaps(boxes[place], boxes[place + 1 :]) > threshold
    return np.array(kept, np.int64)


def _overlaps(box: Floats, others: Floats) -> Floats:
    """Intersection over union of a box `[4]` with others `[N, 4]`: `[N]`; 0 where neither has an area."""
    own, theirs = (box[2] - box[0]) * (box[3] - box[1]), (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = (high - low).clip(0).prod(1)
    whole = own + theirs - common
    found: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return found
