"""From every format to every other that can hold the same: nothing changes but what is counted as lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade import data
from saccade.core.errors import UserError
from saccade.data import formats
from saccade.data.annotations import Annotations
from saccade.data.dataset import Dataset
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.pictures import stem

TASKS = ("classify", "detect", "segment", "instances", "panoptic")
PAIRS = [(task, name) for task in TASKS for name in formats.NAMES if task in formats.find(name).TASKS]
WHOLE = {
    "detect": "coco",
    "instances": "coco",
    "segment": "masks",
    "classify": "folder",
    "panoptic": "coco_panoptic",
}  # can hold all there is


def made(task: str, out: Path) -> Path:
    data.make("shapes", out=out, task=task, n=18, size=(40, 56))
    return out


def truths(dataset: Dataset) -> dict[str, Any]:
    """What there is to learn, by the name of the image and its split."""
    found = {}
    for place, item in enumerate(dataset.annotations.items):
        sample = dataset[place]
        name = (item.split, stem(item.path.replace("/", "_")).rpartition("_")[2])
        if dataset.schema.task == "classify":
            found[name] = dataset.schema.classes[sample.target]
        elif dataset.schema.task == "segment":
            found[name] = [dataset.schema.classes[label] for label in np.unique(sample.target)], int(sample.target.astype(int).sum())
        else:
            labels = [dataset.schema.classes[label] for label in sample.target.labels]
            areas = [round(float(area)) for area in np.prod(sample.target.boxes[:, 2:] - sample.target.boxes[:, :2], axis=1)]
            found[name] = Counter(zip(labels, areas, strict=True))
    return found


def test_one_class_for_each_pixel_becomes_masks_by_class(tmp_path: Path) -> None:
    """Which do not become one again: they may overlap."""
    first = made("segment", tmp_path / "first")
    told = data.convert(first, tmp_path / "layers", to="layers", task="segment")
    assert told["lost"] == [] and told["written"]["images"] == 18
    before, after = open_dataset(first, task="segment"), open_dataset(tmp_path / "layers", task="segment")
    assert after.schema.classes == before.schema.classes and after.annotations.multi
    for place in range(18):
        values, sets = before[place].target, after[place].target
        np.testing.assert_array_equal(sets, np.uint8(1) << values.astype(np.uint8))
    with pytest.raises(UserError, match="these overlap"):
        data.convert(tmp_path / "layers", tmp_path / "back", to="masks", task="segment")


@pytest.mark.parametrize(("task", "name"), [pair for pair in PAIRS if pair[1] != "layers"])
def test_there_and_back(tmp_path: Path, task: str, name: str) -> None:
    first = made(task, tmp_path / "first")
    there = data.convert(first, tmp_path / "there", to=name, task=task)
    back = data.convert(tmp_path / "there", tmp_path / "back", to=WHOLE[task], task=task, format=name)
    assert there["written"]["images"] == back["written"]["images"] == 18
    before, after = open_dataset(first, task=task), open_dataset(tmp_path / "back", task=task)
    if "splits" in formats.find(name).HOLDS:
        assert there["lost"] == [] or all("become outlines" in row["what"] for row in there["lost"])
        assert {split: sum(counts) for split, counts in after.schema.counts.items()} == {
            split: sum(counts) for split, counts in before.schema.counts.items()
        }
        if there["lost"] == []:
            assert truths(after) == truths(before)


@pytest.mark.parametrize("name", [name for task, name in PAIRS if task == "detect"])
def test_outlines_become_boxes(tmp_path: Path, name: str) -> None:
    told = data.convert(made("instances", tmp_path / "first"), tmp_path / "boxes", to=name, task="instances")
    objects = sum(len(item.objects) for item in open_annotations(tmp_path / "first").items)
    if "instances" not in formats.find(name).TASKS:
        assert {"what": "outlines and masks of objects", "count": objects} in told["lost"] and told["task"] == "detect"
        found = open_annotations(tmp_path / "boxes", task="detect", format=name)
        assert sum(len(item.objects) for item in found.items) == objects


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"coco holds sets for .*, this one is for segment") as caught:
        data.convert(made("segment", tmp_path / "first"), tmp_path / "x", to="coco")
    assert "masks" in caught.value.fix and not (tmp_path / "x").exists()
    with pytest.raises(UserError, match=r"unknown format 'coca' .did you mean coco"):
        data.convert(tmp_path / "first", tmp_path / "x", to="coca")
    with pytest.raises(UserError, match="new or an empty folder"):
        data.convert(tmp_path / "first", tmp_path / "first", to="masks")


def test_problems_are_counted(tmp_path: Path) -> None:
    (made("segment", tmp_path / "first") / "masks/train/00001.png").unlink()
    told = data.convert(tmp_path / "first", tmp_path / "second", to="masks")
    assert told["lost"] == [{"what": "annotations that cannot be right (data check names them)", "count": 1}]
    assert told["written"]["images"] == 17


def test_marks_that_a_format_has_not_are_counted(tmp_path: Path) -> None:
    annotations: Annotations = open_annotations(made("detect", tmp_path / "first"))
    assert annotations.format == "coco"
    text = (tmp_path / "first/annotations/instances_train.json").read_text()
    (tmp_path / "first/annotations/instances_train.json").write_text(
        text.replace('"iscrowd":0', '"iscrowd":1', 2).replace('"iscrowd": 0', '"iscrowd": 1', 2)
    )
    told = data.convert(tmp_path / "first", tmp_path / "second", to="voc")
    assert {"what": "marks of a crowd", "count": 2} in told["lost"]
