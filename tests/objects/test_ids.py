"""COCO's own class ids, 1 to 90 with holes: contiguous inside, the data set's outside, in every format and file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.api import labelling
from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.data.converting import convert
from saccade.data.opening import open_dataset
from saccade.prediction.predictions import Lines, Predictions

HOLES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
IDS = tuple(number for number in range(1, 91) if number not in HOLES)
NAMES = tuple(f"thing {number}" for number in IDS)
CARD = Card("detect", NAMES, {}, InputSpec(3, (64, 64), "fit"), metrics={"threshold": 0.3}, ids=IDS)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image for each class, its box as far from the left as its number says; categories stand in no order."""
    root = tmp_path_factory.mktemp("coco")
    images, rows = [], []
    for number in IDS:
        Image.fromarray(np.zeros((20, 100, 3), np.uint8)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 20, "width": 100})
        box = {"bbox": [number, 3, 8, 9], "area": 72, "iscrowd": 0}
        rows.append({"id": number, "image_id": number, "category_id": number, **box})
    categories = [{"id": number, "name": f"thing {number}"} for number in reversed(IDS)]
    (root / "instances.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return root


def told(root: Path) -> dict[int, tuple[str, int | None]]:
    """Left edge of each box -> name of its class, and its number in the set."""
    dataset = open_dataset(root, task="detect")
    truths = [dataset.target(place, dataset.size(place)) for place in range(len(dataset))]
    labels = {round(float(one.boxes[0, 0])): int(one.labels[0]) for one in truths}
    assert sorted(labels.values()) == list(range(len(NAMES))), "contiguous inside"
    ids = dataset.schema.ids or (None,) * len(NAMES)
    return {left: (dataset.schema.classes[label], ids[label]) for left, label in labels.items()}


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "labelme", "cvat", "label_studio", "csv", "metadata", "parquet", "webdataset"])
def test_sets(coco: Path, tmp_path: Path, form: str) -> None:
    """A format without numbers keeps the names."""
    assert told(coco) == {number: (f"thing {number}", number) for number in IDS}
    convert(coco, tmp_path / "there", to=form, task="detect")
    found = told(tmp_path / "there")
    assert {left: name for left, (name, _) in found.items()} == {number: f"thing {number}" for number in IDS}
    if form == "coco":
        assert {left: number for left, (_, number) in found.items()} == {number: number for number in IDS}


def answers() -> list[Any]:
    """An answer for each class, as a model's outputs give it."""
    boxes = np.array([[[number / 2, 1.5, number / 2 + 4, 6]] for number in IDS], np.float32)  # the input is half as large
    outputs = {"boxes": boxes, "scores": np.full((80, 1), 0.9, np.float32), "labels": np.arange(80, dtype=np.float32)[:, None]}
    card = Card.from_json(CARD.to_json())  # as an exported file has it
    return list(finish.results(outputs, card, [(40, 128)] * 80, [f"{number}.png" for number in IDS]))


def test_answers(tmp_path: Path) -> None:
    found = answers()
    assert [int(one.category_ids[0]) for one in found] == list(IDS)
    assert [one.to_dict()["category_ids"] for one in found] == [[number] for number in IDS]
    assert [type(one).from_dict(one.to_dict(), NAMES, IDS).to_dict() for one in found] == [one.to_dict() for one in found]
    Predictions(tuple(found), (), 1.0).save(tmp_path / "x.csv", "csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [(row["label"], int(row["category_id"])) for row in rows] == [(f"thing {number}", number) for number in IDS]
    with Lines(tmp_path / "x.jsonl") as lines:
        for one in found:
            lines.write(one)
    assert [json.loads(line)["category_ids"] for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [[n] for n in IDS]
    theirs = found[-1].to_supervision()
    assert theirs.class_id.tolist() == [79] and theirs.data["class_name"].tolist() == ["thing 90"]


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_answers_as_a_labelled_set(tmp_path: Path, form: str) -> None:
    image = np.zeros((40, 128, 3), np.uint8)
    labelling.write([(image, one) for one in answers()], CARD, tmp_path / "set", form, 10_000)
    found = told(tmp_path / "set")
    assert {left: name for left, (name, _) in found.items()} == {number: f"thing {number}" for number in IDS}
    if form == "coco":
        assert {left: number for left, (_, number) in found.items()} == {number: number for number in IDS}
