"""CVAT for images: marks of every type, groups, labels, what is wrong in a file, round trips, hostile XML."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, written
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Object
from saccade.data.formats import cvat
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree

BOX = '<box label="cat" occluded="0" xtl="1" ytl="2.5" xbr="5" ybr="6" z_order="0"><attribute name="age">3</attribute></box>\n'
POLYGON = '<polygon label="dog" points="1,1;5,1;5.5,6"/>\n'
META = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>\n"


def image(*marks: str, name: str = "1.png", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="11" height="17"{more}>\n{"".join(marks)}</image>\n'


def sheet(*images: str, meta: str = META) -> str:
    return f"<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n<version>1.1</version>\n{meta}{''.join(images)}</annotations>"


def made(root: Path, files: Mapping[str, str], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value)
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def one(tmp_path: Path, *marks: str, meta: str = META, task: str = "instances") -> Annotations:
    return cvat.read(FolderTree(made(tmp_path, {"annotations.xml": sheet(image(*marks), meta=meta)}, "1.png")), task)


def test_boxes_outlines_and_masks(tmp_path: Path) -> None:
    mask = np.zeros((17, 11), bool)
    mask[3, 2:5] = mask[4, 2] = True
    rle = '<mask label="cat" rle="0, 4, 2" left="2" top="3" width="3" height="2"/>\n'
    found = one(tmp_path, BOX, POLYGON, rle)
    assert found.classes == ("dog", "cat") and not found.problems and not found.notes and found.items[0].size == (17, 11)
    assert found.items[0].objects == (
        Object(1, (1, 2.5, 5, 6), line=6),
        Object(0, shape=((1, 1, 5, 1, 5.5, 6),), line=7),
        Object(1, shape=run_lengths.from_mask(mask), line=8),
    )
    boxes = [one.box for one in cvat.read(FolderTree(tmp_path), "detect").items[0].objects]
    assert boxes == [(1, 2.5, 5, 6), (1, 1, 5.5, 6), (2, 3, 5, 5)]
    assert cvat.fits(FolderTree(tmp_path)) == ("instances", "detect")


def test_a_turned_box(tmp_path: Path) -> None:
    turned = '<box label="cat" xtl="2" ytl="4" xbr="6" ybr="6" rotation="90.0"/>'
    (ring,) = one(tmp_path, turned).items[0].objects[0].shape  # type: ignore[misc]
    assert ring == pytest.approx((5, 3, 5, 7, 3, 7, 3, 3))


def test_a_group_is_one_object(tmp_path: Path) -> None:
    piece = POLYGON.replace("<polygon ", '<polygon group_id="3" ')
    found = one(tmp_path, piece, POLYGON, piece, piece.replace("dog", "cat"), BOX.replace("<box ", '<box group_id="3" '))
    assert [len(one.shape or ()) for one in found.items[0].objects] == [2, 1, 1, 0]  # type: ignore[arg-type]


def test_other_marks_are_counted(tmp_path: Path) -> None:
    found = one(tmp_path, '<points label="cat" points="1,2"/>', '<polyline label="cat" points="1,2;3,4"/>', '<tag label="cat"/>', BOX)
    assert found.notes == ("1 shapes of type points are left out", "1 shapes of type polyline are left out")
    assert len(found.items[0].objects) == 1 and not found.problems


@pytest.mark.parametrize(
    ("name", "more", "path", "split"),
    [
        ("1.png", "", "images/1.png", ""),
        ("a/1.png", "", "images/a/1.png", ""),
        ("1.png", ' subset="Train"', "images/Train/1.png", "train"),
        ("1.png", ' subset="default"', "1.png", ""),
        ("val/ä '&amp;.png", "", "val/ä '&.png", "val"),
    ],
)
def test_layouts(tmp_path: Path, name: str, more: str, path: str, split: str) -> None:
    found = open_annotations(made(tmp_path, {"annotations.xml": sheet(image(BOX, name=name, more=more))}, path))
    assert (found.format, found.task) == ("cvat", "detect") and not found.problems
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(path, split, 1)]


@pytest.mark.parametrize(
    ("mark", "code"),
    [
        (BOX.replace("cat", "owl"), "unknown-class"),
        (BOX.replace("cat", ""), "bad-annotation"),
        (BOX.replace('xtl="1"', ""), "bad-annotation"),
        (BOX.replace('xtl="1"', 'xtl="nan"'), "not-finite"),
        (BOX.replace('xtl="1"', 'xtl="1" rotation="x"'), "bad-annotation"),
        (POLYGON.replace("5.5,6", "5.5"), "bad-annotation"),
        (POLYGON.replace("5.5,6", ""), "bad-annotation"),
        ('<mask label="cat" rle="0, 4, 1" left="2" top="3" width="3" height="2"/>\n', "bad-annotation"),
        ('<mask label="cat" rle="0, 4, -1, 3" left="2" top="3" width="3" height="2"/>\n', "bad-annotation"),
        ('<mask label="cat" rle="" left="2" top="3" width="3" height="2"/>\n', "bad-annotation"),
        ('<mask label="cat" rle="6" left="9" top="3" width="3" height="2"/>\n', "mask-size"),
    ],
)
def test_what_is_wrong_with_a_mark_is_found_and_the_rest_read(tmp_path: Path, mark: str, code: str) -> None:
    found = one(tmp_path, BOX, mark, BOX)
    assert codes(found) == [code] and len(found.items[0].objects) == 2
    assert (found.problems[0].path, found.problems[0].line) == ("annotations.xml", 7)


def test_images_that_are_missing_or_listed_twice(tmp_path: Path) -> None:
    text = sheet(image(BOX), image(name="gone.png"), image(BOX), image(name=""))
    found = cvat.read(FolderTree(made(tmp_path, {"a.xml": text}, "1.png")), "detect")
    assert codes(found) == ["missing-image", "missing-image", "repeated-image"] and len(found.items[0].objects) == 1


def test_classes_that_nothing_declares(tmp_path: Path) -> None:
    assert one(tmp_path, BOX, POLYGON, meta="").classes == ("cat", "dog")


@pytest.mark.parametrize("head", ["<!DOCTYPE a [<!ENTITY a 'b'>]>", "<open>"])
def test_files_that_are_none(tmp_path: Path, head: str) -> None:
    with pytest.raises(UserError, match="XML"):
        cvat.read(FolderTree(made(tmp_path, {"a.xml": head + sheet(image()).partition("\n")[2]}, "1.png")), "detect")


def test_nothing_there(tmp_path: Path) -> None:
    assert cvat.fits(FolderTree(tmp_path)) == ()
    with pytest.raises(UserError, match="no CVAT"):
        cvat.read(FolderTree(tmp_path), "detect")


@given(sets(cvat.HOLDS, "detect"))
def test_boxes_come_back(drawn: Any) -> None:
    round_trip(drawn, "detect")


@given(sets(cvat.HOLDS, "instances"))
def test_outlines_and_masks_come_back(drawn: Any) -> None:
    round_trip(drawn, "instances")


def round_trip(drawn: Any, task: str) -> None:
    """But for names that are not valid UTF-8: those change."""
    classes, images = drawn
    with folder() as place:
        source = on_disk(place / "in", task, (classes, {name: value for name, value in images.items() if "\udce9" not in name}))
        output = written(source, "cvat", place / "out")
        found = cvat.read(FolderTree(place / "out"), task)
        if task == "instances":  # an outline has no box of its own
            items = tuple(replace(item, objects=tuple(replace(one, box=None) for one in item.objects)) for item in source.items)
            source = replace(source, items=items)
        assert found.classes == source.classes and not found.problems and not found.notes
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 0)
        assert open_annotations(place / "out").format == "cvat"


def test_a_name_that_xml_cannot_hold_is_written_as_one_that_it_can(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\x01.png")
    source = on_disk(tmp_path / "in", "detect", (("cat",), {name: ((17, 11), "val", [Object(0, (1, 2, 3, 4))])}))
    written(source, "cvat", tmp_path / "out")
    found = open_annotations(tmp_path / "out")
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [("images/caf%E9%01.png", "val", 1)]


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_one_line_or_findings(seed: int) -> None:
    rle = '<mask label="cat" rle="0, 4, 2" left="2" top="3" width="3" height="2"/>\n'
    good = sheet(image(BOX, POLYGON, rle, BOX.replace("<box ", '<box rotation="30" ')), image(name="2.png"))
    with folder() as place, contextlib.suppress(UserError):
        (place / "a.xml").write_bytes(mutated(good.encode(), seed))
        found = cvat.read(FolderTree(made(place, {}, "1.png", "2.png")), "detect")
        assert all("\n" not in str(problem) for problem in found.problems)
