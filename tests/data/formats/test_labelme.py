"""labelme: shapes of every type, groups, images, what is wrong in a file, round trips, hostile files."""

from __future__ import annotations

import contextlib
import json
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
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import labelme
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree


def shape(kind: str, *points: tuple[float, float], label: Any = "cat", group: Any = None) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, "group_id": group, "flags": {}}


def sheet(*marked: Any, **more: Any) -> dict[str, Any]:
    return {
        "version": "5.0.1",
        "shapes": list(marked),
        "imagePath": "1.png",
        "imageHeight": 17,
        "imageWidth": 11,
        "imageData": "aGVsbG8=",
    } | more


def made(root: Path, files: Mapping[str, Any], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value if isinstance(value, str) else json.dumps(value))
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def read(root: Path, task: str = "instances") -> Annotations:
    return labelme.read(FolderTree(root), task)


def one(tmp_path: Path, *marked: Any, task: str = "instances", **more: Any) -> Annotations:
    return read(made(tmp_path, {"1.json": sheet(*marked, **more)}, "1.png"), task)


TRIANGLE = ((1, 1), (5, 1), (5.5, 6))


def test_rectangles_and_outlines(tmp_path: Path) -> None:
    marked = [shape("polygon", *TRIANGLE), shape("rectangle", (7, 8), (2, 3), label="a dog"), shape("rotation", *TRIANGLE, (1, 6))]
    found = one(tmp_path, *marked)
    assert found.classes == ("a dog", "cat") and found.items[0].size == (17, 11) and not found.problems and not found.notes
    ring = (1.0, 1.0, 5.0, 1.0, 5.5, 6.0)
    assert found.items[0].objects == (Object(1, shape=(ring,)), Object(0, (2, 3, 7, 8)), Object(1, shape=((*ring, 1.0, 6.0),)))
    assert [one.box for one in read(tmp_path, "detect").items[0].objects] == [(1, 1, 5.5, 6), (2, 3, 7, 8), (1, 1, 5.5, 6)]
    assert labelme.fits(FolderTree(tmp_path)) == ("instances", "detect")


@pytest.mark.parametrize("radius", [0.0, 0.05, 4.0, 1000.0, 3000.0, 1e20])
def test_a_circle_is_within_a_tenth_of_a_pixel(tmp_path: Path, radius: float) -> None:
    found = one(tmp_path, shape("circle", (5, 6), (5 + radius, 6)))
    (ring,) = found.items[0].objects[0].shape  # type: ignore[misc]
    points = np.reshape(ring, (-1, 2))
    middles = (points + np.roll(points, 1, 0)) / 2
    assert np.hypot(*(points - (5, 6)).T) == pytest.approx(radius)
    assert len(points) >= 12 and (radius > 3000 or np.hypot(*(middles - (5, 6)).T).min() >= radius - 0.1)


def test_a_group_is_one_object(tmp_path: Path) -> None:
    small = ((7, 7), (9, 7), (9, 9))
    marked = [shape("polygon", *TRIANGLE, group=1), shape("polygon", *small, label="dog", group=1), shape("polygon", *small, group=1)]
    found = one(tmp_path, *marked, shape("rectangle", (0, 0), (2, 2), group=2), shape("polygon", *small, group=2), shape("polygon", *small))
    small_ring = (7.0, 7.0, 9.0, 7.0, 9.0, 9.0)
    assert [one.shape for one in found.items[0].objects] == [
        ((1.0, 1.0, 5.0, 1.0, 5.5, 6.0), small_ring),
        (small_ring,),
        ((0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0), small_ring),
        (small_ring,),
    ]
    assert read(tmp_path, "detect").items[0].objects[0].box == (1, 1, 9, 9)


def test_points_lines_and_pixels_are_counted(tmp_path: Path) -> None:
    found = one(tmp_path, shape("point", (1, 1)), shape("linestrip", *TRIANGLE), shape("point", (1, 2)), shape("mask", (0, 0), (5, 5)))
    assert found.items[0].objects == () and not found.problems
    assert found.notes == tuple(f"{n} shapes of type {kind} are left out" for n, kind in ((1, "linestrip"), (1, "mask"), (2, "point")))


@pytest.mark.parametrize(
    ("path", "image", "named", "split"),
    [
        ("1.json", "1.png", "gone.png", ""),
        ("train/1.json", "train/1.jpg", "1.png", "train"),
        ("a/1.JSON", "b/x.png", "..\\b\\x.png", ""),
        ("valid/ä '\".json", "valid/ä '\".PNG", "", "val"),
        ("json/1.json", "val/2.png", "/home/me/val/2.png", "val"),
    ],
)
def test_layouts(tmp_path: Path, path: str, image: str, named: str, split: str) -> None:
    found = open_annotations(made(tmp_path, {path: sheet(shape("rectangle", (1, 2), (3, 4)), imagePath=named)}, image))
    assert (found.format, found.task) == ("labelme", "detect")
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(image, split, 1)] and not found.problems


BAD: list[Any] = [
    None,
    {},
    shape("rectangle", (1, 2)),
    shape("polygon"),
    shape("circle", (1, 2)),
    shape("star", (1, 2), (3, 4)),
    shape([], (1, 2), (3, 4)),
    shape("polygon", *TRIANGLE, label=None),
    shape("polygon", *TRIANGLE, label=" "),
    shape("polygon", (1, 2), (3,), (4, 5)),  # type: ignore[arg-type]
    shape("polygon", *TRIANGLE) | {"points": "x"},
    shape("polygon", *TRIANGLE) | {"points": [["1", "2"]]},
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_with_a_shape_is_found_and_the_rest_read(tmp_path: Path, bad: Any) -> None:
    found = one(tmp_path, shape("rectangle", (1, 2), (3, 4)), bad, shape("rectangle", (1, 2), (3, 4)))
    assert codes(found) == ["bad-annotation"] and len(found.items[0].objects) == 2
    assert found.problems[0].path == "1.json" and found.problems[0].message.startswith("shape 2: ")


def test_numbers_beyond_all(tmp_path: Path) -> None:
    found = one(tmp_path, shape("polygon", (10**400, 2), (3, 4)), shape("circle", (-1.7e308, 0), (1.7e308, 0)))
    assert codes(found) == ["not-finite"] * 2


@pytest.mark.parametrize("text", ['{"shapes": [NaN]}', '{"shapes": 5}', '{"shapes": [], "shapes": []}', '{"shapes": ' + "[" * 99999, ""])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    found = read(made(tmp_path, {"1.json": text, "2.json": sheet(), "3.json": "[]", "4.json": "{}"}, "1.png", "2.png"))
    assert codes(found) == ["bad-annotation"] and [item.path for item in found.items] == ["2.png"]


def test_images_that_are_missing_left_over_or_named_twice(tmp_path: Path) -> None:
    files = {"gone.json": sheet(imagePath="gone.png"), "1.json": sheet(), "x/y.json": sheet(imagePath="../1.png")}
    found = read(made(tmp_path, files, "1.png", "2.png"))
    assert codes(found) == ["missing-image", "repeated-image"] and [item.where for item in found.items] == ["1.json"]
    assert found.notes == ("1 images without an annotation file that names them are left out",)


def test_nothing_there(tmp_path: Path) -> None:
    assert labelme.fits(FolderTree(made(tmp_path, {"a.json": {"shapes": []}}))) == ()
    with pytest.raises(UserError, match="no labelme"):
        read(tmp_path / "empty")


@given(sets(labelme.HOLDS, "detect"))
def test_boxes_come_back(drawn: Any) -> None:
    round_trip(drawn, "detect")


@given(sets(labelme.HOLDS | {"masks"}, "instances"))
def test_outlines_come_back(drawn: Any) -> None:
    classes, images = drawn
    only = {name: (size, split, [one for one in found if isinstance(one.shape, tuple)]) for name, (size, split, found) in images.items()}
    round_trip((classes, only), "instances")


def round_trip(drawn: Any, task: str) -> None:
    with folder() as place:
        source = on_disk(place / "in", task, drawn)
        output = written(source, "labelme", place / "out")
        found = labelme.read(FolderTree(place / "out"), task)
        if task == "instances":  # an outline has no box of its own
            items = tuple(replace(item, objects=tuple(replace(one, box=None) for one in item.objects)) for item in source.items)
            source = replace(source, items=items)
        assert not found.problems and not found.notes
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 0)
        assert open_annotations(place / "out").format == "labelme"


def test_what_is_written(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.png", (17, 11))
    tree = FolderTree(tmp_path / "in")
    image = tree.find("1.png")
    assert image
    mask = np.zeros((17, 11), bool)
    mask[1:3, 1:3] = mask[5:9, 4:8] = True
    objects = (Object(0, shape=run_lengths.from_mask(mask)), Object(0, (1, 2, 3, 4)))
    written(Annotations("made", "instances", ("a",), (Item(image, "val", objects=objects),), tree), "labelme", tmp_path / "out")
    facts = json.loads((tmp_path / "out/val/1.json").read_text())
    assert [(row["shape_type"], row["group_id"]) for row in facts["shapes"]] == [("polygon", 1), ("polygon", 1), ("rectangle", None)]
    assert (facts["imagePath"], facts["imageHeight"], facts["imageWidth"]) == ("1.png", 17, 11)
    assert (tmp_path / "out/val/1.png").read_bytes() == (tmp_path / "in/1.png").read_bytes()


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_findings(seed: int) -> None:
    good = sheet(shape("polygon", *TRIANGLE, group=1), shape("circle", (1, 2), (3, 4)), shape("rectangle", (1, 2), (3, 4), group=1))
    with folder() as place:
        made(place, {"2.json": sheet()}, "1.png", "2.png")
        (place / "1.json").write_bytes(mutated(json.dumps(good).encode(), seed))
        with contextlib.suppress(UserError):
            assert all("\n" not in str(problem) for problem in read(place, "detect").problems)
