"""Label Studio's JSON: percents, addresses of images, several answers, what is wrong in a result, round trips, hostile files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, written
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Object
from saccade.data.formats import label_studio
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree


def result(kind: str = "rectanglelabels", names: Any = ("cat",), **value: Any) -> dict[str, Any]:
    value = value or {"x": 10, "y": 20, "width": 50, "height": 25.5, "rotation": 0}
    return {"type": kind, "original_width": 100, "original_height": 200, "value": value | {kind: names}}


OUTLINE = result("polygonlabels", ("dog",), points=[[0, 0], [100, 0], [50, 50]], closed=True)


def task(*results: Any, image: str = "1.png") -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 2, "was_cancelled": False, "result": list(results)}]}


def made(root: Path, files: Mapping[str, Any], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value if isinstance(value, str) else json.dumps(value))
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def read(root: Path, for_task: str = "instances") -> Annotations:
    return label_studio.read(FolderTree(root), for_task)


def one(tmp_path: Path, *results: Any, for_task: str = "instances") -> Annotations:
    return read(made(tmp_path, {"a.json": [task(*results)]}, "1.png"), for_task)


def test_percents_become_pixels(tmp_path: Path) -> None:
    found = one(tmp_path, result(), OUTLINE)
    assert found.classes == ("cat", "dog") and not found.problems and not found.notes and found.items[0].size == (200, 100)
    assert found.items[0].objects == (Object(0, (10, 40, 60, 91)), Object(1, shape=((0, 0, 100, 0, 50, 100),)))
    assert [one.box for one in read(tmp_path, "detect").items[0].objects] == [(10, 40, 60, 91), (0, 0, 100, 100)]
    assert label_studio.fits(FolderTree(tmp_path)) == ("instances", "detect")


def test_a_turned_box_turns_about_its_first_corner(tmp_path: Path) -> None:
    found = one(tmp_path, result(x=10, y=20, width=50, height=10, rotation=90))
    (ring,) = found.items[0].objects[0].shape  # type: ignore[misc]
    assert ring == pytest.approx((10, 40, 10, 90, -10, 90, -10, 40))


@pytest.mark.parametrize(
    ("address", "path", "split"),
    [
        ("/data/upload/1/0a1b2c3d-1.png", "1.png", ""),
        ("/data/upload/1/0a1b2c3d-1.png", "images/0a1b2c3d-1.png", ""),
        ("/data/local-files/?d=set/train/1%20b.png", "images/train/1 b.png", "train"),
        ("s3://bucket/folder/1.png", "images/1.png", ""),
        ("https://example.com/val/%C3%A4.png?x=1#y", "val/ä.png", "val"),
        ("http://[1.png", "http:/[1.png", ""),
    ],
)
def test_addresses(tmp_path: Path, address: str, path: str, split: str) -> None:
    found = open_annotations(made(tmp_path, {"project-1.json": [task(result(), image=address)]}, path))
    assert (found.format, found.task) == ("label_studio", "detect") and not found.problems
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(path, split, 1)]


def test_the_first_answer_that_was_not_withdrawn_counts(tmp_path: Path) -> None:
    row = task(result())
    row["annotations"] = [{"was_cancelled": True, "result": []}, *row["annotations"], {"result": [OUTLINE]}]
    found = read(made(tmp_path, {"a.json": [row, task(image="2.png")]}, "1.png", "2.png"))
    assert [len(item.objects) for item in found.items] == [1, 0] and found.classes == ("cat",)
    assert found.notes == ("1 further answers to a task are left out: its first counts",)


def test_other_results_are_counted(tmp_path: Path) -> None:
    found = one(tmp_path, result("brushlabels", format="rle", rle=[1, 2]), result("keypointlabels"), {"type": "choices", "value": {}})
    assert len(found.notes) == 3 and not found.problems and not found.items[0].objects


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (None, "bad-annotation"),
        ({"type": "rectanglelabels"}, "bad-annotation"),
        (result() | {"original_width": 0}, "bad-annotation"),
        (result(names=[]), "bad-annotation"),
        (result(names=[" "]), "bad-annotation"),
        (result(names="cat"), "bad-annotation"),
        (result(x=1, y=2, width=3), "bad-annotation"),
        (result(x=1, y=2, width=3, height="4"), "bad-annotation"),
        (result(x=1, y=2, width=3, height=10**400), "not-finite"),
        (result(x=1e308, y=2, width=1e308, height=4) | {"original_width": 100000}, "not-finite"),
        (result("polygonlabels", points=[[1e308, 1]]) | {"original_width": 100000}, "not-finite"),
        (result("polygonlabels", points=[]), "bad-annotation"),
        (result("polygonlabels", points=[[1]]), "bad-annotation"),
    ],
)
def test_what_is_wrong_with_a_result_is_found_and_the_rest_read(tmp_path: Path, bad: Any, code: str) -> None:
    found = one(tmp_path, result(), bad, result())
    assert codes(found) == [code] and len(found.items[0].objects) == 2
    assert found.problems[0].path == "a.json" and found.problems[0].message.startswith("task 1, result 2: ")


def test_tasks_that_are_wrong(tmp_path: Path) -> None:
    rows = [None, {}, task(image="gone.png"), task(), task(), {"data": {}, "annotations": []}, {"data": 5, "annotations": [5]}]
    found = read(made(tmp_path, {"a.json": rows}, "1.png"))
    assert codes(found) == ["bad-annotation"] * 2 + ["missing-image"] * 3 + ["repeated-image"] and len(found.items) == 1


@pytest.mark.parametrize("text", ['[{"data": NaN, "annotations": [], "result": 1}]', '["data" "annotations" "result"'])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="valid JSON"):
        read(made(tmp_path, {"a.json": text}))


def test_nothing_there(tmp_path: Path) -> None:
    assert label_studio.fits(FolderTree(tmp_path)) == ()
    with pytest.raises(UserError, match="of Label Studio"):
        read(tmp_path)


@given(sets(label_studio.HOLDS, "detect"))
def test_boxes_come_back_within_a_billionth_of_a_pixel(drawn: Any) -> None:
    round_trip(drawn, "detect")


@given(sets(label_studio.HOLDS, "instances"))
def test_outlines_come_back_within_a_billionth_of_a_pixel(drawn: Any) -> None:
    round_trip(drawn, "instances")


def round_trip(drawn: Any, for_task: str) -> None:
    with folder() as place:
        source = on_disk(place / "in", for_task, drawn)
        output = written(source, "label_studio", place / "out")
        found = label_studio.read(FolderTree(place / "out"), for_task)
        if for_task == "instances":  # an outline has no box of its own
            items = tuple(replace(item, objects=tuple(replace(one, box=None) for one in item.objects)) for item in source.items)
            source = replace(source, items=items)
        assert not found.problems and not found.notes
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 1e-9)
        assert open_annotations(place / "out").format == "label_studio"


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_one_line_or_findings(seed: int) -> None:
    good = [task(result(), OUTLINE), task(result(x=1, y=2, width=3, height=4, rotation=45), image="/data/local-files/?d=2.png")]
    with folder() as place, contextlib.suppress(UserError):
        (place / "a.json").write_bytes(mutated(json.dumps(good).encode(), seed))
        found = read(made(place, {}, "1.png", "2.png"), "detect")
        assert all("\n" not in str(problem) for problem in found.problems)
