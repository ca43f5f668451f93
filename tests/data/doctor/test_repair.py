"""Repairs: the written copy of a repaired set shows none of what was repaired, and all else is as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faulty_sets import CASES, SQUARE, clean, with_object
from saccade.core import run_lengths
from saccade.core.progress import Silent
from saccade.data import doctor, formats, scenes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.doctor.repair import fix
from saccade.data.findings import KINDS, Finding
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree
from saccade.data.writing import Output, new_folder

REPAIRED = [(code, one) for code, one in CASES if KINDS[code].repair]


@pytest.mark.parametrize(("code", "one"), REPAIRED, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("line", [0, 12])
def test_objects(tmp_path: Path, code: str, one: Object, line: int) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "007.png")
    made = replace(with_object(replace(one, line=line)), tree=FolderTree(tmp_path))
    fixed, counts = fix(made, doctor.quick(made))
    assert counts == {code: 1}
    assert doctor.quick(fixed) == ()
    untouched = clean().items
    assert [item for item in fixed.items if item.path != "007.png"] == [item for item in untouched if item.path != "007.png"]
    assert fixed.items[7].objects[:2] == untouched[7].objects


def test_edges_change_places_and_are_cut(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "007.png")
    for one, box in ((Object(0, (40, 30, 20, 10)), (20, 10, 40, 30)), (Object(0, (120, 30, 20, -10)), (20, 0, 100, 30))):
        made = replace(with_object(one), tree=FolderTree(tmp_path))
        fixed, _ = fix(made, doctor.quick(made))
        assert fixed.items[7].objects[2].box == box
    ring = (60.0, 10.0, 140.0, 10.0, 140.0, 50.0, 60.0, 50.0)
    made = replace(with_object(Object(0, (60, 10, 140, 50), (ring, SQUARE))), tree=FolderTree(tmp_path))
    (cut, square) = fix(made, doctor.quick(made))[0].items[7].objects[2].shape or ()
    assert sorted(zip(cut[::2], cut[1::2], strict=True)) == [(60, 10), (60, 50), (100, 10), (100, 50)] and square == SQUARE


def test_short_outlines(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "007.png")
    for task, one, left in (
        ("instances", Object(0, (1, 1, 9, 9), ((1, 1),)), None),
        ("detect", Object(0, (1, 1, 9, 9), ((1, 1),)), Object(0, (1, 1, 9, 9))),
        ("instances", Object(0, (1, 1, 40, 40), ((1, 1), SQUARE)), Object(0, (1, 1, 40, 40), (SQUARE,))),
    ):
        made = replace(with_object(one), tree=FolderTree(tmp_path), task=task)
        assert fix(made, doctor.quick(made))[0].items[7].objects[2:] == ((left,) if left else ())


def test_ids_and_splits_and_what_the_reader_left_out() -> None:
    made = clean()
    up = tuple(
        replace(item, objects=tuple(replace(one, label=one.label + 1) for one in item.objects if one.label < 2)) for item in made.items
    )
    problems = (Finding("unknown-class", "a.txt", "no class 3", 4), Finding("missing-image", "a.txt", "gone"))
    shifted = replace(made, items=(up[0], replace(up[0], split="val"), *up[1:]), problems=problems)
    fixed, counts = fix(shifted, doctor.quick(shifted))
    assert counts == {"ids-from-one": 1, "unknown-class": 1, "missing-image": 1, "image-in-two-splits": 1}
    assert fixed.problems == () and len(fixed.items) == 60 and fixed.items[0].split == "train"
    assert {one.label for item in fixed.items for one in item.objects} == {0, 1}


def test_a_written_copy(tmp_path: Path) -> None:
    """Every kind at once, on the disk."""
    made = scenes.made("detect", ["train"] * 40 + ["val"] * 20, (64, 80), 0)
    with new_folder(tmp_path / "bad") as folder:
        formats.find("coco").write(made, Output(folder, made))
    bad = open_annotations(tmp_path / "bad")
    items: list[Item] = list(bad.items)
    worse = [(70.0, 1.0, 90.0, 20.0), (20.0, 1.0, 10.0, 30.0), (3.0, 3.0, 3.0, 9.0), (90.0, 1.0, 99.0, 9.0), (79.5, 1.0, 99.0, 1.5)]
    items[3] = replace(items[3], objects=(*items[3].objects, *[Object(1, box) for box in worse], items[3].objects[0]))
    items[5] = replace(items[5], size=(64, 81))
    (tmp_path / "bad" / items[9].path).write_bytes(b"?")
    faulty = replace(bad, items=tuple(items))
    report = doctor.examine(faulty, progress=Silent())
    fixed, counts = fix(faulty, report.findings)
    codes = ("box-over-edge", "inverted-box", "empty-box", "box-outside", "stated-size", "unreadable-image", "duplicate-object")
    assert counts == {**dict.fromkeys(codes, 1), "box-over-edge": 2}
    with new_folder(tmp_path / "good") as folder:
        formats.find("coco").write(fixed, Output(folder, fixed))
    good = open_annotations(tmp_path / "good")
    assert len(good.items) == 59
    assert doctor.examine(good, progress=Silent()).findings == ()


def test_masks(tmp_path: Path) -> None:
    made = scenes.made("segment", ["train"] * 8, (32, 40), 0)
    for item in made.items:
        for path in (item.path, item.mask):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(made.tree.read(path))
    on_disk: Annotations = replace(made, tree=FolderTree(tmp_path))
    (tmp_path / on_disk.items[1].mask).unlink()
    Image.new("L", (31, 40)).save(tmp_path / on_disk.items[2].mask)
    Image.new("L", (40, 32), 99).save(tmp_path / on_disk.items[3].mask)
    fixed, counts = fix(on_disk, doctor.examine(on_disk, progress=Silent()).findings)
    assert counts == {"missing-mask": 1, "mask-size": 1, "mask-value": 1}
    assert [item.path[-5] for item in fixed.items] == list("145678") and fixed.legend.ignored == {99}
    ignored = replace(made, legend=replace(made.legend, ignored=frozenset(made.legend.values)))
    assert fix(ignored, doctor.examine(ignored, progress=Silent()).findings) == (ignored, {})
    empty = Object(0, shape=run_lengths.from_mask(np.zeros((32, 40), bool)))
    instances = scenes.made("instances", ["train"] * 8, (32, 40), 0)
    more = replace(instances, items=(replace(instances.items[0], objects=(empty,)), *instances.items[1:]))
    fixed, counts = fix(more, doctor.examine(more, progress=Silent()).findings)
    assert counts == {"empty-mask": 1} and fixed.items[0].objects == ()


EDGES = st.one_of(st.sampled_from([0.0, 10.0, 80.0, 100.0, -1e300, 1e300, math.nan, math.inf]), st.floats(-150, 250), st.floats())
SHAPES = st.one_of(st.none(), st.lists(st.lists(EDGES, max_size=13).map(tuple), max_size=3).map(tuple))
OBJECTS = st.builds(Object, st.integers(0, 2), st.one_of(st.none(), st.tuples(EDGES, EDGES, EDGES, EDGES)), SHAPES, line=st.integers(0, 1))


@settings(max_examples=80)
@given(st.lists(OBJECTS, max_size=6), st.sampled_from(["detect", "instances"]))
def test_whatever_objects_there_are(objects: list[Object], task: str) -> None:
    """Nothing is raised, each object is found once of each code, and what is repaired is found no more."""
    made = clean(1)
    items = (replace(made.items[0], objects=tuple(objects)),)
    made = replace(made, items=items, task=task)
    flat = doctor.Flat(made)
    found = [*doctor.boxes.check(flat), *doctor.boxes.crossings(flat)]
    by_code = [(one.code, one.path, one.line, one.object) for one in found if one.code != "short-polygon"]
    assert len(set(by_code)) == len(by_code)
    fixed, _ = fix(made, found)
    assert not [one for one in doctor.quick(fixed) if KINDS[one.code].repair]
