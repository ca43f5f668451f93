"""The outline of a piece of pixels, along their edges."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rings(piece: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """bool `[h, w]`, connected by sides -> its outer ring, then those of its holes: corners `[N, 2]` (x, y), not closed, each pixel a
    square of side 1 from (column, row) on. A hole may touch the outer ring, or another, in a point; no ring meets itself.
    """
    after = _edges(piece)
    found = []
    for start in sorted(after):  # the first of those that are left has no neighbour before it, so one way leads on
        if start not in after:
            continue
        ring, (place, heading) = [start], _next(after, start, (0, 0))
        while place != start:
            ring.append(place)
            place, heading = _next(after, place, heading)
        found.append(_corners(np.array(ring, np.float64)))
    return sorted(found, key=lambda ring: -abs(area(ring)))  # the outer one surrounds the others


def area(ring: NDArray[np.floating[Any]]) -> float:
    """Twice signed: above 0 where it runs from x to y (the shoelace formula)."""
    x, y = (ring - ring[0]).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _edges(piece: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Sides of pixels that have none of the piece beyond, from corner to corner, the piece on their right as they are seen (y down)."""
    wide = np.pad(piece, 1)
    inner = wide[1:-1, 1:-1]
    sides = (
        (wide[:-2, 1:-1], (0, 0), (1, 0)),  # above, from left to right
        (wide[1:-1, 2:], (1, 0), (1, 1)),  # right, down
        (wide[2:, 1:-1], (1, 1), (0, 1)),  # below, to the left
        (wide[1:-1, :-2], (0, 1), (0, 0)),  # left, up
    )
    after: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for beyond, first, last in sides:
        rows, columns = np.nonzero(inner & ~beyond)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            after[column + first[0], row + first[1]].append((column + last[0], row + last[1]))
    return after


def _next(
    after: dict[tuple[int, int], list[tuple[int, int]]], place: tuple[int, int], heading: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The next corner, and the way to it. Where two ways part, pixels of the piece meet in a corner: to the left, over to the other one."""
    ways = after[place]
    left = (place[0] + heading[1], place[1] - heading[0])
    chosen = left if left in ways else ways[0]
    ways.remove(chosen)
    if not ways:
        del after[place]
    return chosen, (chosen[0] - place[0], chosen[1] - place[1])


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the points that lie on a straight line between others."""
    before, behind = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    kept: NDArray[np.float64] = ring[(before != behind).any(1)]
    return kept
