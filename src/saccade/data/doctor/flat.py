"""All objects of a set as arrays, gathered once, so that no check goes through them in Python; and pairs of neighbours among many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saccade.data.annotations import Annotations, Item, Object
from saccade.data.findings import Finding

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Size: TypeAlias = tuple[int, int]  # height, width
_NO_BOX = (np.nan,) * 4


class Flat:
    """What N objects of a set are, in the order of the images and their lists.

    objects: themselves; item, place: int64 `[N]`, the image's index and the place in its list; label: int64 `[N]`;
    box: float64 `[N, 4]`, NaN where none is stated; stated: bool `[N]`, whether one is; size: float64 `[N, 2]`, height and width of the
    image, NaN where they are not known.
    """

    def __init__(self, annotations: Annotations, sizes: Sequence[Size | None] | None = None) -> None:
        self.items = annotations.items
        self.objects: list[Object] = list(chain.from_iterable(item.objects for item in self.items))
        counts = np.fromiter((len(item.objects) for item in self.items), np.int64, len(self.items))
        n = len(self.objects)
        self.item: Integers = np.repeat(np.arange(len(self.items)), counts)
        self.place: Integers = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
        self.label: Integers = np.fromiter((one.label for one in self.objects), np.int64, n)
        boxes = [one.box for one in self.objects]
        self.stated: Flags = np.fromiter((box is not None for box in boxes), np.bool_, n)
        self.box: Floats = np.fromiter(chain.from_iterable(box or _NO_BOX for box in boxes), np.float64, 4 * n).reshape(n, 4)
        known = sizes or [item.size for item in self.items]
        pairs = np.fromiter(chain.from_iterable(size or (np.nan, np.nan) for size in known), np.float64, 2 * len(self.items))
        self.size: Floats = pairs.reshape(-1, 2)[self.item]
        self.rings = Rings(self.objects)

    def finding(self, code: str, index: int, message: str) -> Finding:
        """Of the object at `index`: in its annotation file where that has lines, else by its image and its place in the list."""
        one, item, place = self.objects[index], self.items[self.item[index]], int(self.place[index])
        return of_object(code, item, one, place, message)


class Rings:
    """All outlines of a set. owner: int64 `[R]`, the object; start: int64 `[R + 1]`, first point of each; points: float64 `[P, 2]`."""

    def __init__(self, objects: Sequence[Object]) -> None:
        shaped = [(index, one.shape) for index, one in enumerate(objects) if isinstance(one.shape, tuple)]
        rings = [ring for _, shape in shaped for ring in shape]
        self.owner: Integers = np.repeat([index for index, _ in shaped], [len(shape) for _, shape in shaped]).astype(np.int64)
        lengths = np.fromiter(map(len, rings), np.int64, len(rings)) // 2
        self.start: Integers = np.concatenate([[0], np.cumsum(lengths)])
        whole = (ring if len(ring) % 2 == 0 else ring[:-1] for ring in rings)
        values = np.fromiter(chain.from_iterable(whole), np.float64, 2 * int(self.start[-1]))
        self.points: Floats = values.reshape(-1, 2)

    @property
    def length(self) -> Integers:
        """Points of each ring: int64 `[R]`."""
        return np.diff(self.start)

    def bounds(self, n: int) -> Floats:
        """Of each of n objects the box around its outlines: float64 `[n, 4]`, NaN where it has none, or one with points that are NaN."""
        found = np.full((n, 4), np.nan)
        filled = np.flatnonzero(self.length)
        if len(filled):
            starts = self.start[filled]
            low, high = np.minimum.reduceat(self.points, starts), np.maximum.reduceat(self.points, starts)
            owners, first = np.unique(self.owner[filled], return_index=True)  # rings of one object stand beside each other
            found[owners, :2], found[owners, 2:] = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
        return found


def of_object(code: str, item: Item, one: Object, place: int, message: str) -> Finding:
    """A finding on one object of an image."""
    if one.line:
        return Finding(code, item.where, f"object {place + 1} of {item.path}: {message}", one.line, place)
    return Finding(code, item.path, message, 0, place)


def of_item(code: str, item: Item, message: str) -> Finding:
    """A finding on what is said of an image."""
    return Finding(code, item.where, f"{item.path}: {message}", item.line) if item.line else Finding(code, item.path, message)


def neighbours(group: NDArray[Any], low: NDArray[Any], high: NDArray[Any], most: int) -> Iterator[tuple[Integers, Integers]]:
    """Pairs (i, j) of the same group whose spans meet, low[i] <= low[j] <= high[i], as index arrays, a batch at a time.

    Sorted by group and `low`, one is compared with its next, then with the one after it, up to `most` steps away.
    """
    order = np.lexsort((low, group))
    group, low, high = group[order], low[order], high[order]
    left = np.arange(len(order) - 1)
    for step in range(1, most + 1):
        left = left[left + step < len(order)]
        left = left[(group[left] == group[left + step]) & (low[left + step] <= high[left])]
        if not len(left):
            return
        yield order[left], order[left + step]
