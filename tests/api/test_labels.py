"""`train` runs the quick part of the doctor first: errors end it with all findings, warnings are counted by kind, notes are not told."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import saccade
from faulty_sets import FAULTS, clean, with_object
from saccade import data
from saccade.api.sets import check_labels
from saccade.cli.main import main
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.annotations import Annotations, Object, Picture
from saccade.data.dataset import Dataset
from saccade.data.findings import ERROR, KINDS, Finding
from saccade.data.opening import open_dataset
from saccade.data.sample import Objects
from saccade.data.tree import FolderTree

OPTIONS = {"epochs": 1, "size": 16, "device": "cpu", "images": False}
SHORT = ["--epochs", "1", "--size", "16", "--device", "cpu", "--no-images", "--quiet"]
NAMES_THEM = "saccade data check made names them all"


class Said(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def told(annotations: Annotations, *, skip_bad: bool = False) -> list[str]:
    """What is said of a set that is not refused."""
    said = Said()
    check_labels(Dataset.of(annotations), skip_bad=skip_bad, progress=said)
    return said.lines


def test_a_clean_set_is_not_talked_of() -> None:
    assert told(clean()) == []


@pytest.mark.parametrize(("code", "one"), [(code, objects[0]) for code, objects in FAULTS.items() if code != "crossing-polygon"])
def test_errors_end_it_and_warnings_are_told(code: str, one: Object) -> None:
    made = with_object(one)
    if KINDS[code].severity != ERROR:
        (line, where) = told(made)
        assert line.startswith(f"1 {code}: 007.png, object 3: ") and where == NAMES_THEM
        return
    with pytest.raises(UserError, match=rf"1 label or image is not right, the first: 007.png, object 3: .*\[{code}\]") as caught:
        told(made)
    assert caught.value.fix == f"{NAMES_THEM}; or leave them out with --skip-bad"
    assert [found["code"] for found in caught.value.findings] == [code]
    assert told(made, skip_bad=True)[-1] == "left out 1 labels or images that are not right"


DROPPED = ["not-finite", "box-outside", "inverted-box", "short-polygon", "empty-box"]


@pytest.mark.parametrize("one", [one for code in DROPPED for one in FAULTS[code]])
@pytest.mark.parametrize("with_masks", [False, True])
def test_what_is_said_to_be_left_out_is(one: Object, with_masks: bool) -> None:
    item, size, tree = clean().items[7], (80, 100), FolderTree(Path("nowhere"))
    whole = Objects.of(item, size, tree, with_masks=with_masks)
    found = Objects.of(replace(item, objects=(*item.objects, one)), size, tree, with_masks=with_masks)
    assert np.array_equal(found.boxes, whole.boxes) and found.masks == whole.masks


def test_warnings_are_counted_by_kind() -> None:
    made = clean()
    items = [
        replace(item, objects=(*item.objects, Object(0, (60, 10, 103, 30)))) if i in (3, 5, 8) else item
        for i, item in enumerate(made.items)
    ]
    items[9] = replace(items[9], objects=(*items[9].objects, Object(1, (5, 5, 5, 9), line=4)))
    lines = told(replace(made, items=tuple(items), problems=(Finding("repeated-id", "a.json", "id 3 stands twice"),)))
    assert lines == [
        "3 box-over-edge: a box that reaches over the edge of its image (first: 003.png, object 3)",
        "1 empty-box: 009.txt:4: object 3 of 009.png: a box from (5, 5) to (5, 9) has no area",
        "1 repeated-id: a.json: id 3 stands twice",
        NAMES_THEM,
    ]


def test_notes_are_not_told() -> None:
    made = clean()
    bare = replace(made, items=(replace(made.items[0], objects=()), *made.items[1:]), classes=(*made.classes, "never"))
    assert told(bare) == []


def test_classes_counted_from_one_cannot_be_left_out() -> None:
    """Every label is another class's then; one that the reader has set right goes on."""
    made = clean()
    shifted = [replace(item, objects=tuple(replace(one, label=one.label or 1) for one in item.objects)) for item in made.items]
    problems = (Finding("unknown-class", "a.txt", "no class 3", 4),)
    for skip_bad in (False, True):
        with pytest.raises(UserError, match=r"2 labels or images are not right.*--fix DST repairs them"):
            told(replace(made, items=tuple(shifted), problems=problems), skip_bad=skip_bad)
    assert told(replace(made, problems=(Finding("ids-from-one", "a.yaml", "read as counted from 1"),)), skip_bad=True)


# Masks: their headers are looked at


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    out = tmp_path / "masked"
    data.make("shapes", out=out, task="segment", n=24, size=(16, 20))
    return out


def test_masks_of_classes(masked: Path) -> None:
    made = open_dataset(masked)
    check_labels(made, skip_bad=False, progress=Silent())
    first, second, third = (item.mask for item in made.annotations.items[:3])
    Image.new("L", (10, 16)).save(masked / first)
    (masked / second).write_bytes(b"?")
    (masked / made.annotations.items[4].path).write_bytes(b"?")  # named when it is decoded
    with pytest.raises(UserError, match="2 labels or images are not right") as caught:
        check_labels(made, skip_bad=False, progress=Silent())
    assert [(found["code"], found["path"]) for found in caught.value.findings if found["severity"] == ERROR] == [
        ("mask-size", first),
        ("missing-mask", second),
    ]
    assert "16x10 (height x width), its image 16x20" in str(caught.value)
    (masked / third).unlink()
    with pytest.raises(UserError, match="3 labels"):
        check_labels(made, skip_bad=False, progress=Silent())


def test_masks_of_objects(tmp_path: Path) -> None:
    """Pictures and run lengths of another size are named once, and left out of what is learned."""
    square = np.zeros((80, 100), bool)
    square[10:40, 10:40] = True
    Image.fromarray(square).save(tmp_path / "whole.png")
    Image.fromarray(square[:50]).save(tmp_path / "cut.png")
    Image.new("L", (100, 80)).save(tmp_path / "007.png")
    for shape in (Picture("cut.png"), run_lengths.from_mask(square[:50])):
        fine = with_object(Object(0, (5, 5, 60, 60), Picture("whole.png")))
        item = replace(fine.items[7], objects=(*fine.items[7].objects, Object(1, (1, 1, 30, 30), shape)))
        made = replace(fine, items=(*fine.items[:7], item, *fine.items[8:]), tree=FolderTree(tmp_path))
        with pytest.raises(UserError, match=r"1 label .*007.png, object 4: .*the mask is 50x100 .*\[mask-size\]"):
            told(made)
        learned = Objects.of(item, (80, 100), made.tree, with_masks=True)
        assert learned.labels.tolist() == [1, 2, 0] and all(mask.size == (80, 100) for mask in learned.masks)


# Real runs


@pytest.mark.long
def test_training_tells_warnings_and_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "set"
    data.make("shapes", out=root, n=60, size=(16, 16))
    rare = root / "train/rare"
    rare.mkdir()
    for number, path in enumerate(sorted((root / "train").glob("*/*.png"))[:3]):
        shutil.copy(path, rare / f"{number}.png")
    said = Said()
    run = saccade.train(root, out=tmp_path / "run", progress=said, **OPTIONS)
    assert run.metrics["accuracy"] is not None
    (line,) = [line for line in said.lines if "rare-class" in line]
    assert line == "1 rare-class: set: 1 classes have fewer than 5 images: 'rare'"
    assert f"saccade data check {root} names them all" in said.lines


def test_errors_with_json_are_the_complete_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    data.make("shapes", out=root, n=60, size=(16, 16))
    spoiled = sorted((root / "train").glob("*/*.png"))[:25]
    for path in spoiled:
        path.write_bytes(b"?")
    assert main(["train", str(root), "--out", str(tmp_path / "run"), "--json", *SHORT]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "25 images cannot be read" in error["message"] and "and 5 more" in error["message"]
    assert [found["path"] for found in error["findings"]] == [path.relative_to(root).as_posix() for path in spoiled]
    assert {(found["code"], found["severity"]) for found in error["findings"]} == {("unreadable-image", "error")}
    assert not (tmp_path / "run").exists()


def test_folders_of_classes_cost_nothing_to_speak_of() -> None:
    items = tuple(replace(item, objects=(), labels=(i % 3,)) for i, item in enumerate(clean(6).items * 10_000))
    dataset = Dataset.of(replace(clean(), task="classify", items=items))
    began = time.perf_counter()
    check_labels(dataset, skip_bad=False, progress=Silent())
    assert time.perf_counter() - began < 3
