"""Labels that are probably wrong, by what a model says that has not seen them: confident learning (Northcutt et al. 2021, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.data.doctor.flat import Flags, Floats, Integers


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
