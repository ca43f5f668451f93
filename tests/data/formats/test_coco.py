"""COCO JSON: layouts, ids of every kind, what is wrong in it, round trips, and files that mean harm."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, written
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.run_lengths import Rle
from saccade.data import shapes
from saccade.data.annotations import Annotations, Item, Object, Picture
from saccade.data.formats import coco
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree

CATS = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "owl"}]


def content(images: Mapping[int, str], *annotations: Mapping[str, Any], categories: Any = CATS) -> dict[str, Any]:
    rows = [{"id": i, "file_name": name, "height": 17, "width": 11} for i, name in images.items()]
    return {"images": rows, "annotations": list(annotations), "categories": categories}


def box(image: int, category: int = 2, *, at: Any = (1, 2, 3, 4), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(at) if isinstance(at, tuple) else at, **more}


def made(root: Path, files: Mapping[str, Any], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value if isinstance(value, str) else json.dumps(value))
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def one(tmp_path: Path, *annotations: Mapping[str, Any], task: str = "instances", categories: Any = CATS) -> Annotations:
    made(tmp_path, {"a.json": content({1: "1.png"}, *annotations, categories=categories)}, "1.png")
    return coco.read(FolderTree(tmp_path), task)


def test_classes_in_order_of_id_and_ids_with_holes(tmp_path: Path) -> None:
    found = one(tmp_path, box(1, 90), box(1, 2, iscrowd=1), box(1, 7, at=(0.5, 1.25, 2, 2)))
    assert found.classes == ("cat", "dog", "owl")
    assert found.items[0].objects == (
        Object(2, (1, 2, 4, 6)),
        Object(0, (1, 2, 4, 6), crowd=True),
        Object(1, (0.5, 1.25, 2.5, 3.25)),
    )
    assert (found.items[0].size, found.items[0].where, found.items[0].split) == ((17, 11), "a.json", "")
    assert not found.problems and not found.notes


@pytest.mark.parametrize(
    ("sheet", "image", "path", "split"),
    [
        ("annotations/instances_train2017.json", "1.png", "train2017/1.png", "train"),
        ("annotations/instances_val2017.json", "1.png", "images/val2017/1.png", "val"),
        ("annotations/instances_val.json", "1.png", "images/1.png", "val"),
        ("annotations/test.json", "test/1.png", "images/test/1.png", "test"),
        ("train/_annotations.coco.json", "1.png", "train/1.png", "train"),
        ("valid/_annotations.coco.json", "1.png", "valid/1.png", "val"),
        ("labels.json", "in/1.png", "in/1.png", ""),
        ("labels.json", "1.png", "data/1.png", ""),
        ("labels.json", "train/1.png", "train/1.png", "train"),
        ("result.json", "images\\1.png", "images/1.png", ""),
        ("result.json", "/home/me/set/images/1.png", "images/1.png", ""),
        ("annotations/x.json", "../images/1.png", "images/1.png", ""),
        ("labels.json", "./IN/1.PNG", "in/1.png", ""),
        ("_annotations.coco.json", "100%25 ä.png", "100%25 ä.png", ""),
    ],
)
def test_layouts(tmp_path: Path, sheet: str, image: str, path: str, split: str) -> None:
    found = open_annotations(made(tmp_path, {sheet: content({1: image}, box(1))}, path))
    assert (found.format, found.task) == ("coco", "detect")
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(path, split, 1)]
    assert not found.problems


def test_the_same_name_in_two_splits_stays_with_its_split(tmp_path: Path) -> None:
    sheets = {f"annotations/instances_{split}2017.json": content({1: "1.png", 2: "2.png"}, box(1), box(2)) for split in ("train", "val")}
    found = coco.read(FolderTree(made(tmp_path, sheets, "train2017/1.png", "val2017/1.png", "val2017/2.png")), "detect")
    assert [(item.path, item.split) for item in found.items] == [
        ("train2017/1.png", "train"),
        ("val2017/1.png", "val"),
        ("val2017/2.png", "val"),
    ]
    assert codes(found) == ["missing-image"]  # train's 2.png is not val's


def test_files_agree_by_name(tmp_path: Path) -> None:
    first = content({1: "1.png"}, box(1, 2))
    second = content({1: "2.png"}, box(1, 1), box(1, 2), categories=[{"id": 1, "name": "owl"}, {"id": 2, "name": "bee"}])
    found = coco.read(FolderTree(made(tmp_path, {"train.json": first, "val.json": second}, "1.png", "2.png")), "detect")
    assert found.classes == ("cat", "dog", "owl", "bee")
    assert [[one.label for one in item.objects] for item in found.items] == [[0], [2, 3]]
    assert [item.split for item in found.items] == ["train", "val"]


@pytest.mark.parametrize(
    ("first", "second", "ids"),
    [
        ({"cat": 2, "dog": 7, "owl": 90}, {}, (2, 7, 90)),
        ({"cat": 0, "dog": 1}, {"cat": 5, "dog": 6}, (0, 1)),  # the first file counts
        ({"cat": 1}, {"dog": 1}, ()),  # one number for two classes is none
        ({"cat": "c1", "dog": "c2"}, {}, ()),
        ({"cat": 10**30}, {}, ()),
        ({"cat": -3, "dog": 4}, {}, (-3, 4)),
    ],
)
def test_the_ids_of_classes_are_known(tmp_path: Path, first: Any, second: Any, ids: tuple[int, ...]) -> None:
    sheets = {
        f"{name}.json": content({1: f"of_{name}.png"}, categories=[{"id": identity, "name": called} for called, identity in names.items()])
        for name, names in (("train", first), ("val", second or first))
    }
    found = coco.read(FolderTree(made(tmp_path, sheets, "of_train.png", "of_val.png")), "detect")
    assert found.ids == ids


def test_ids_with_holes_come_back(tmp_path: Path) -> None:
    source = one(tmp_path / "in", box(1, 90), box(1, 7), task="detect")
    written(source, "coco", tmp_path / "out")
    facts = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert facts["categories"] == [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 90, "name": "owl"}]
    assert [row["category_id"] for row in facts["annotations"]] == [90, 7]
    again = coco.read(FolderTree(tmp_path / "out"), "detect")
    assert (again.ids, again.classes) == ((2, 7, 90), ("cat", "dog", "owl"))


def test_captions_keypoints_and_panoptic_are_passed_over(tmp_path: Path) -> None:
    captions = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}
    panoptic = content({1: "1.png"}) | {"annotations": [{"image_id": 1, "segments_info": [{"id": 1, "bbox": [0, 0, 1, 1]}]}]}
    sheets = {
        "captions_train.json": captions,
        "person_keypoints_train.json": content({1: "1.png"}, box(1), box(1)),
        "panoptic.json": panoptic,
    }
    sheets["instances_train.json"] = content({1: "1.png"}, box(1))
    made(tmp_path, {f"annotations/{name}": value for name, value in sheets.items()} | {"package.json": {"name": "x"}}, "1.png")
    assert [len(item.objects) for item in coco.read(FolderTree(tmp_path), "detect").items] == [1]


def test_the_group_that_roboflow_lists_is_no_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "RBC", "supercategory": "cells"}]
    found = one(tmp_path, box(1, 1), categories=categories)
    assert found.classes == ("RBC",) and "'cells'" in found.notes[0]
    assert one(tmp_path, box(1, 1), box(1, 0), categories=categories).classes == ("cells", "RBC")


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    mask = np.zeros((17, 11), bool)
    mask[2:5, 3:9] = True
    rle = run_lengths.from_mask(mask)
    runs = [3 * 17 + 2, *[3, 14] * 5, 3, 17 * 2 + 12]
    plain_runs = {"size": [17, 11], "counts": runs}
    packed = {"size": [17, 11], "counts": rle.counts.decode()}
    rows = [
        {"segmentation": value} for value in ([[1, 1, 5, 1, 5, 5], [7, 7, 9, 7, 9, 9]], [1, 1, 5, 1, 5, 5], plain_runs, packed, [], [[]])
    ]
    found = one(tmp_path, *(box(1) | row for row in rows))
    ring = (1.0, 1.0, 5.0, 1.0, 5.0, 5.0)
    expected = [(ring, (7.0, 7.0, 9.0, 7.0, 9.0, 9.0)), (ring,), rle, rle, None, None]
    assert [one.shape for one in found.items[0].objects] == expected and not found.problems
    assert coco.fits(FolderTree(tmp_path)) == ("instances", "detect")
    assert [one.shape for one in coco.read(FolderTree(tmp_path), "detect").items[0].objects] == [None] * 6


def test_a_box_that_is_missing_follows_from_the_shape(tmp_path: Path) -> None:
    rows = [box(1, at=None, segmentation=[[1, 1, 5, 1, 5, 6]]), box(1, at=[], segmentation={"size": [17, 11], "counts": [18, 3, 166]})]
    assert [one.box for one in one(tmp_path, *rows, task="detect").items[0].objects] == [(1, 1, 5, 6), (1, 1, 2, 4)]
    assert [one.box for one in one(tmp_path, *rows).items[0].objects] == [None, None]


BAD = [
    ([box(5)], "unknown-image"),
    ([box(1, 3)], "unknown-class"),
    ([box(1, id=4), box(1, at=(5, 5, 1, 1), id=4)], "repeated-id"),
    ([box(1, at=(1, 2, 3))], "bad-annotation"),
    ([box(1, at=(1, 2, "3", 4))], "bad-annotation"),
    ([box(1, at=(True, 2, 3, 4))], "bad-annotation"),
    ([box(1, at=(1, 2, 10**400, 4))], "not-finite"),
    ([box(1, at=(1e308, 2, 1e308, 4))], "not-finite"),
    ([box(1, at={})], "bad-annotation"),
    ([box(1, at=None)], "bad-annotation"),
    ([box(1, segmentation=[[1, 2, 3]])], "bad-annotation"),
    ([box(1, segmentation=["1", 2])], "bad-annotation"),
    ([box(1, segmentation="x")], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11]})], "bad-annotation"),
    ([box(1, segmentation={"size": [17], "counts": [187]})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 12], "counts": [204]})], "mask-size"),
    ([box(1, segmentation={"size": [17, 11], "counts": [186]})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": [-1, 188]})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": [2**70, 1]})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": []})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": "ooo"})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": "\u00e9"})], "bad-annotation"),
    ([box(1, segmentation={"size": [17, 11], "counts": "oooooooooooo1"})], "bad-annotation"),
    ([None], "bad-annotation"),
    ([{"image_id": 1, "category_id": [2]}], "bad-annotation"),
]


@pytest.mark.parametrize(("rows", "code"), BAD)
def test_what_is_wrong_with_an_annotation_is_found_and_the_rest_read(tmp_path: Path, rows: list[Any], code: str) -> None:
    found = one(tmp_path, *rows, box(1, 90))
    assert codes(found) == [code]
    assert found.items[0].objects[-1] == Object(2, (1, 2, 4, 6))
    assert len(found.items[0].objects) == (3 if code == "repeated-id" else 1)
    assert found.problems[0].path == "a.json" and "annotation " in found.problems[0].message


def test_what_is_wrong_with_images_and_categories(tmp_path: Path) -> None:
    rows = content({1: "1.png", 2: "gone.png"}, box(1), box(2), box(3))
    rows["images"] += [{"id": 1, "file_name": "2.png"}, {"id": 3, "file_name": "in/../1.png"}, {"id": 4}, {"file_name": "2.png"}, 5]
    rows["categories"] = [*CATS, {"id": 2, "name": "bat"}, {"id": 4, "name": "cat"}, {"id": 5, "name": " "}, {"id": None, "name": "x"}]
    found = coco.read(FolderTree(made(tmp_path, {"a.json": rows}, "1.png", "2.png")), "detect")
    bad = ["bad-annotation"] * 5
    assert codes(found) == [*bad, *["duplicate-id"] * 2, "missing-image", "repeated-class", "repeated-image"]
    assert found.classes == ("cat", "dog", "owl") and [len(item.objects) for item in found.items] == [2]
    assert found.notes == ("1 images without an annotation file that names them are left out",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [], "annotations": [], "categories": [NaN]}', "NaN"),
        ('{"images": [], "annotations": [1e999], "categories": []}', "1e999"),
        ('{"images": [], "annotations": [], "annotations": [], "categories": []}', "twice"),
        ('{"images": [], "annotations": {}, "categories": []}', "annotations, a list"),
        ('[["images", "annotations", "categories"]]', "images, a list"),
        ('{"images": "annotations" "categories"}', "valid JSON"),
        ('"images" "annotations" "categories"' + "[" * 100000, "valid JSON"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        coco.read(FolderTree(made(tmp_path, {"a.json": text}, "1.png")), "detect")
    assert "a.json" in caught.value.where


def test_nothing_there(tmp_path: Path) -> None:
    assert coco.fits(FolderTree(tmp_path)) == ()
    with pytest.raises(UserError, match="no COCO annotations"):
        coco.read(FolderTree(tmp_path), "detect")


@given(sets(coco.HOLDS, "detect"))
def test_boxes_come_back_within_a_billionth_of_a_pixel(drawn: Any) -> None:
    round_trip(drawn, "detect", coco.read)


@given(sets(coco.HOLDS, "instances"))
def test_outlines_and_masks_come_back(drawn: Any) -> None:
    round_trip(drawn, "instances", coco.read)


def round_trip(drawn: Any, task: str, read: Callable[[FolderTree, str], Annotations]) -> None:
    with folder() as place:
        source = on_disk(place / "in", task, drawn)
        output = written(source, "coco", place / "out")
        found = read(FolderTree(place / "out"), task)
        assert found.classes == source.classes and not found.problems and not found.notes
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 1e-9)
        assert open_annotations(place / "out").format == "coco"


def test_what_is_written(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.png", (17, 11))
    picture(tmp_path / "in/mask.png", (17, 11))
    tree = FolderTree(tmp_path / "in")
    ring = (1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0)
    objects = (Object(1, (0, 0, 2.5, 4)), Object(0, shape=(ring,)), Object(0, shape=Picture("mask.png")))
    image = tree.find("1.png")
    assert image
    written(Annotations("made", "instances", ("a", "b"), (Item(image, "val", objects=objects),), tree), "coco", tmp_path / "out")
    assert (tmp_path / "out/val/1.png").read_bytes() == (tmp_path / "in/1.png").read_bytes()
    facts = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert facts["images"] == [{"id": 1, "file_name": "1.png", "height": 17, "width": 11}]
    assert facts["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    first, second, third = facts["annotations"]
    assert first == {"id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0, "bbox": [0, 0, 2.5, 4], "area": 10}
    assert (second["bbox"], second["area"], second["segmentation"]) == ([1, 1, 4, 4], 16, [list(ring)])
    assert (third["bbox"], third["area"]) == ([0, 0, 11, 17], 187)
    assert run_lengths.to_mask(Rle((17, 11), third["segmentation"]["counts"].encode())).all()


def test_an_empty_set_is_written_and_read(tmp_path: Path) -> None:
    written(Annotations("made", "detect", ("a",), (), FolderTree(tmp_path)), "coco", tmp_path / "out")
    found = open_annotations(tmp_path / "out", format="coco")
    assert (found.classes, found.items) == (("a",), ())


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    found = coco.read(FolderTree(made(tmp_path, {"a.json": content({1: name}, box(1))}, name)), "detect")
    assert [item.path for item in found.items] == [name]


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_one_line_or_findings(seed: int) -> None:
    rle = {"size": [17, 11], "counts": run_lengths.from_mask(np.eye(17, 11, dtype=bool)).counts.decode()}
    good = content({1: "1.png", 2: "2.png"}, box(1, segmentation=[[1, 2, 3, 4, 5, 6]], id=1), box(2, segmentation=rle, iscrowd=1))
    with folder() as place:
        (place / "a.json").write_bytes(mutated(json.dumps(good).encode(), seed))
        with contextlib.suppress(UserError):
            found = coco.read(FolderTree(place), "instances")
            assert all(str(problem) for problem in found.problems)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "size", "counts", "x"]), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "image_id", "category_id", "bbox", "segmentation", "iscrowd"]), JSON), max_size=3),
    JSON,
    JSON,
)
def test_rows_of_any_json(annotations: list[Any], image: Any, category: Any) -> None:
    rows = content({1: "1.png"}, *(box(1) | row for row in annotations))
    rows["images"].append(image)
    rows["categories"] = [*CATS, category]
    with folder() as place:
        found = coco.read(FolderTree(made(place, {"a.json": rows}, "1.png")), "instances")
        assert all(len(str(problem)) < 400 for problem in found.problems)


def test_the_excerpt_of_coco_in_its_own_clothes(shared_data: Path, tmp_path: Path) -> None:
    """100 images' worth of COCO 2014: 839 annotations; the pictures themselves are not at hand, so small ones stand for them."""
    source = json.loads((shared_data / "metrics-truth/cocoapi/instances_val2014_100.json").read_text())
    made(tmp_path, {"annotations/instances_val2014.json": source})
    for row in source["images"]:
        (tmp_path / "val2014").mkdir(exist_ok=True)
        (tmp_path / "val2014" / row["file_name"]).write_bytes(b"x")
    found = open_annotations(tmp_path)
    assert (found.task, len(found.items), len(found.classes), codes(found)) == ("instances", 100, 80, [])
    objects = [(item, one) for item in found.items for one in item.objects]
    assert len(objects) == 839 and {item.split for item in found.items} == {"val"}
    stated = [row["area"] for row in source["annotations"]]
    areas = [float(run_lengths.to_mask(shapes.rle(one, item.size or (0, 0), found.tree)).sum()) for item, one in objects]
    assert sum(areas) == pytest.approx(sum(stated), rel=0.01)
