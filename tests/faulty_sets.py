"""A clean set that lies nowhere, and objects that are wrong in it, by what they are found to be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from saccade.data.annotations import Annotations, Item, Object, Ring
from saccade.data.tree import File, FolderTree

SQUARE: Ring = (10, 10, 40, 10, 40, 40, 10, 40)


def clean(n: int = 60, splits: tuple[str, ...] = ("train", "val")) -> Annotations:
    """Images of 80x100 with two boxes each, one outlined, of three classes."""
    items = []
    for i in range(n):
        objects = (Object(i % 3, (10, 10, 40, 40), (SQUARE,)), Object((i + 1) % 3, (50.5, 20, 100, 80)))
        items.append(Item(File(f"{i:03}.png", 1, 1), splits[i // 3 % len(splits)], objects=objects, size=(80, 100), where=f"{i:03}.txt"))
    return Annotations("made", "instances", ("cat", "dog", "owl"), tuple(items), FolderTree(Path("nowhere")), opened=Path("made"))


def with_object(one: Object, at: int = 7) -> Annotations:
    """The clean set with one more object in one image."""
    made = clean()
    items = list(made.items)
    items[at] = replace(items[at], objects=(*items[at].objects, one))
    return replace(made, items=tuple(items))


FAULTS = {
    "not-finite": [Object(0, (1, math.nan, 5, 5)), Object(0, (1, 1, math.inf, 5)), Object(0, shape=((1, 1, math.nan, 5, 7, 7),))],
    "inverted-box": [Object(0, (40, 10, 20, 30)), Object(0, (20, 30, 40, 10))],
    "box-outside": [Object(0, (100, 10, 120, 30)), Object(0, (-20, 10, 0, 30)), Object(0, (10, 80, 20, 99)), Object(0, (10, -9, 20, -1))],
    "box-over-edge": [
        Object(0, (60, 10, 101.5, 30)),
        Object(0, (-1.1, 10, 20, 30)),
        Object(0, (1, 10, 20, 82)),
        Object(0, shape=((1, 1, 50, 1, 50, 90),)),
        Object(0, (1, 1, 50, 80), ((1, 1, 50, 1, 50, 90),)),
    ],
    "tiny-box": [Object(0, (20, 10, 21, 11)), Object(0, (20, 10, 20.5, 10.1))],
    "empty-box": [Object(0, (20, 10, 20, 30)), Object(0, (10, 30, 40, 30)), Object(0, shape=((1, 1, 9, 1, 5, 1),))],
    "duplicate-object": [Object(1, (10.4, 10, 40, 39.6), (SQUARE,)), Object(2, (50.5, 20, 100, 80))],
    "short-polygon": [Object(0, shape=((1, 1, 5, 5),)), Object(0, (1, 1, 5, 5), (SQUARE, (1, 1))), Object(0, shape=((),))],
    "crossing-polygon": [Object(0, shape=((10, 10, 40, 40, 40, 10, 10, 30),)), Object(0, shape=(SQUARE, (60, 60, 70, 71, 70, 60, 60, 70)))],
}
CASES = [(code, one) for code, objects in FAULTS.items() for one in objects]
