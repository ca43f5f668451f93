"""Validation taken from the training images by a hash of their paths, so that every seed and every run has the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.core.keys import path_hash

LARGE = 2000


def hold_out(paths: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images go to validation: bool [N].

    10 % of large sets (2,000 images and more), 15 % of smaller ones; stratified; at least one of every class that has two.
    """
    share = 0.10 if len(paths) >= LARGE else 0.15
    chosen = np.zeros(len(paths), bool)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label).tolist()
        if len(members) > 1:
            ranked = sorted(members, key=lambda i: path_hash(paths[i]))
            chosen[ranked[: max(1, round(share * len(members)))]] = True
    return chosen
