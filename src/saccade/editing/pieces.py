"""Channels of a new tensor by where they come from: runs of (first old channel, count); FRESH for channels that are new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

FRESH = -1
Pieces = Sequence[tuple[int, int]]


def pieces(index: Iterable[int]) -> list[tuple[int, int]]:
    """The runs of an index, of which negative numbers are new channels."""
    found: list[tuple[int, int]] = []
    for place in index:
        start, count = found[-1] if found else (0, 0)
        if count and (start + count == place if start >= 0 else place < 0):
            found[-1] = (start, count + 1)
        else:
            found.append((place if place >= 0 else FRESH, 1))
    return found


def length(runs: Pieces) -> int:
    """How many channels there are."""
    return sum(count for _, count in runs)


def index(runs: Pieces) -> NDArray[np.int64]:
    """The old channel of each, FRESH for new ones."""
    parts = [np.full(count, FRESH) if start < 0 else np.arange(start, start + count) for start, count in runs]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def inverse(runs: Pieces, before: int) -> list[tuple[int, int]] | None:
    """Where each of `before` old channels stands now; None where one is gone."""
    found = np.full(before, FRESH)
    now = index(runs)
    kept = now >= 0
    found[now[kept]] = np.flatnonzero(kept)
    return None if (found < 0).any() else pieces(found.tolist())
