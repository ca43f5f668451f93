"""Labelled sets on real small pictures for the tests of formats: drawn by hypothesis, written to the disk, compared after a round trip."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from saccade.core import run_lengths
from saccade.data import formats
from saccade.data.annotations import Annotations, Box, Item, Object
from saccade.data.pictures import stem
from saccade.data.tree import FolderTree
from saccade.data.writing import Output

SIZES = ((17, 11), (24, 40), (1, 1), (64, 48))  # (height, width)
NAMES = (
    "1.png",
    "a b.PNG",
    "ä犬.jpg",
    "q'uote\"s.png",
    "50%, #1.bmp",
    "in/1.png",
    "in/deep er/2.JPEG",
    "=1+1.png",
    "a.b.c.png",
    os.fsdecode(b"caf\xe9.png"),
)
CLASSES = ("cat", "rot & weiß", "no", "1", "犬", "a, b", "=SUM(1)", "'quoted'", '"', "<tag>", "x: y", "#", "-", "null")
SPLITS = ("", "train", "val", "test")


def picture(path: Path, size: tuple[int, int]) -> Path:
    """A real picture of (height, width), by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(path)
    return path


def boxes(size: tuple[int, int], *, whole: bool = False) -> st.SearchStrategy[Box]:
    """Boxes inside of an image, of whole or of broken numbers, perhaps of no area."""
    height, width = size
    number = (lambda most: st.integers(0, most).map(float)) if whole else (lambda most: st.floats(0, most))
    pair = lambda most: st.tuples(number(most), number(most)).map(sorted)  # noqa: E731
    return st.tuples(pair(width), pair(height)).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))


def rings(size: tuple[int, int]) -> st.SearchStrategy[tuple[float, ...]]:
    """Outlines of three to six points inside of an image."""
    point = st.tuples(st.floats(0, size[1]), st.floats(0, size[0]))
    return st.lists(point, min_size=3, max_size=6).map(lambda points: tuple(value for one in points for value in one))


def masks(size: tuple[int, int]) -> st.SearchStrategy[Any]:
    """Run lengths of masks of any pixels."""
    return st.integers(0, 2**32).map(lambda seed: run_lengths.from_mask(np.random.default_rng(seed).random(size) < 0.4))


@st.composite
def objects(draw: Any, size: tuple[int, int], classes: int, holds: frozenset[str], task: str) -> Object:
    """One object that a format of `holds` can state."""
    shape: Any = None
    if task == "instances":
        kinds = [st.lists(rings(size), min_size=1, max_size=3 if holds & {"masks", "pieces"} else 1).map(tuple)]
        kinds += [masks(size)] if "masks" in holds else []
        shape = draw(st.one_of(kinds))
    box = draw(boxes(size))
    crowd = "crowd" in holds and draw(st.booleans())
    difficult = "difficult" in holds and draw(st.booleans())
    return Object(draw(st.integers(0, classes - 1)), box, shape, crowd, difficult)


@st.composite
def sets(draw: Any, holds: frozenset[str], task: str) -> tuple[tuple[str, ...], Mapping[str, tuple[tuple[int, int], str, list[Object]]]]:
    """Classes, and by path of an image its size, split and objects; no image, one or many, some without objects."""
    classes = tuple(draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True)))
    images = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5)):
        size = draw(st.sampled_from(SIZES))
        images[name] = (size, draw(st.sampled_from(SPLITS)), draw(st.lists(objects(size, len(classes), holds, task), max_size=4)))
    return classes, images


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, for tests that hypothesis calls many times."""
    path = Path(tempfile.mkdtemp(prefix="saccade-formats-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def on_disk(root: Path, task: str, drawn: tuple[tuple[str, ...], Mapping[str, tuple[tuple[int, int], str, list[Object]]]]) -> Annotations:
    """What `sets` drew, with its pictures."""
    classes, images = drawn
    for name, (size, _, _) in images.items():
        picture(root / name, size)
    files = {file.path: file for file in FolderTree(root).files("", deep=True)}
    items = tuple(Item(files[name], split, objects=tuple(found)) for name, (_, split, found) in sorted(images.items()))
    return Annotations("made", task, classes, items, FolderTree(root))


def written(annotations: Annotations, name: str, out: Path) -> Output:
    """Write a set as format `name` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    output = Output(out, annotations)
    formats.find(name).write(annotations, output)
    return output


def plain(annotations: Annotations, output: Output | None = None, *, ndigits: int = 6) -> dict[str, Any]:
    """What is said of each image, by the stem of its name: split and objects with names for classes; numbers rounded.

    output: names are then those that it gave.
    """
    found = {}
    for item in annotations.items:
        name = output.name(item) if output else item.path.rpartition("/")[2]
        found[stem(name)] = (item.split, [_plain(one, annotations, ndigits) for one in item.objects])
    return found


def _plain(one: Object, annotations: Annotations, ndigits: int) -> tuple[Any, ...]:
    shape: Any = one.shape
    if isinstance(shape, tuple):
        shape = tuple(tuple(round(value, ndigits) for value in ring) for ring in shape)
    box = one.box and tuple(round(value, ndigits) for value in one.box)
    return annotations.classes[one.label], box, shape, one.crowd, one.difficult


def close(first: Any, second: Any, within: float) -> bool:
    """Whether two results of `plain` agree, numbers within so many pixels."""
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= within
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key], within) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(close(a, b, within) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def with_split(annotations: Annotations, split: str) -> Annotations:
    """The same set where images of no split are of this one, for formats that must name one."""
    return replace(annotations, items=tuple(replace(item, split=item.split or split) for item in annotations.items))


def codes(annotations: Annotations) -> list[str]:
    """Of the findings, sorted."""
    return sorted(problem.code for problem in annotations.problems)


def mutated(data: bytes, seed: int) -> bytes:
    """A file with a few bytes changed, cut out or repeated."""
    draw = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        at = int(draw.integers(0, max(1, len(changed))))
        kind = int(draw.integers(0, 4))
        if kind == 0:
            changed[at : at + 1] = bytes([int(draw.integers(0, 256))])
        elif kind == 1:
            del changed[at : at + int(draw.integers(1, 20))]
        elif kind == 2:
            changed[at:at] = changed[at : at + int(draw.integers(1, 30))]
        else:
            changed[at:at] = draw.choice([b"-", b"9", b"null", b"[", b"}", b'"', b"1e999", b"NaN", b"&a;", b"*a"])
    return bytes(changed)


@st.composite
def labelled_sets(draw: Any, root: Path, *, multi: bool) -> Annotations:
    """A set of images with one label each, or with any number, its pictures on the disk."""
    classes = tuple(draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True)))
    names = sorted(draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5)))
    for name in names:
        picture(root / name, draw(st.sampled_from(SIZES)))
    files = {file.path: file for file in FolderTree(root).files("", deep=True)}
    label = st.integers(0, len(classes) - 1)
    labels = st.lists(label, unique=True, max_size=3) if multi else label.map(lambda one: [one])
    items = tuple(Item(files[name], draw(st.sampled_from(SPLITS)), labels=tuple(sorted(draw(labels)))) for name in names)
    return Annotations("made", "classify", classes, items, FolderTree(root), multi=multi)


def said(annotations: Annotations, output: Output | None = None) -> dict[str, tuple[str, list[str]]]:
    """Split and names of the labels of each image, by the stem of its name (that which `output` gave it)."""
    return {
        stem(output.name(item) if output else item.path.rpartition("/")[2]): (
            item.split,
            sorted(annotations.classes[label] for label in item.labels),
        )
        for item in annotations.items
    }
