"""Non-maximum suppression: of boxes of one class that show the same object, the surest. NumPy, or torchvision where it is loaded."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    gone = np.zeros(len(boxes), bool)
    kept = []
    for place in range(len(boxes)):
        if gone[place]:
            continue
        kept.append(place)
        others = slice(place + 1, None)
        low, high = np.maximum(boxes[place, :2], boxes[others, :2]), np.minimum(boxes[place, 2:], boxes[others, 2:])
        common = (high - low).clip(0).prod(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gone[others] |= common / (area[place] + area[others] - common) > threshold
    return np.array(kept, np.int64)
