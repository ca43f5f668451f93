"""Sets of objects that are hard: no object in the test images, classes in validation alone or nowhere, images that are all crowd, with none
or a thousand objects; every verb of both rooms answers, or refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.cli.eval import show
from saccade.cli.main import main
from saccade.core.progress import Silent
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here

SIZE = HEIGHT, WIDTH = 48, 64
CLASSES = ("often", "in val", "never")
Box = tuple[int, int, int, int]


def row(number: int, image: int, category: int, box: Box, *, crowd: bool = False) -> dict[str, Any]:
    x, y, width, height = box
    covered = np.zeros(SIZE, bool)
    covered[y : y + height, x : x + width] = True
    changes = np.flatnonzero(np.diff(covered.T.ravel().astype(np.int8), prepend=0, append=0))
    counts = np.diff(changes, prepend=0, append=HEIGHT * WIDTH).tolist()
    shape = {"counts": counts, "size": list(SIZE)} if crowd else [[x, y, x + width, y, x + width, y + height, x, y + height]]
    found = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": width * height, "iscrowd": int(crowd)}
    return found | {"segmentation": shape}


def write(folder: Path, splits: dict[str, Sequence[Sequence[tuple[int, Box, bool]]]]) -> Path:
    """A set in COCO's format: of each split its images, of each image its objects: place of the class, box x, y, width, height, crowd."""
    draws = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, images in splits.items():
        (folder / split).mkdir()
        rows: list[dict[str, Any]] = []
        for number, objects in enumerate(images):
            pixels = draws.integers(90, 140, (*SIZE, 3)).astype(np.uint8)
            for label, (x, y, width, height), crowd in objects:
                pixels[y : y + height, x : x + width] = (200, 60 * label, 40 + 100 * crowd)
                rows.append(row(len(rows), number, label + 1, (x, y, width, height), crowd=crowd))
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
        said = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(len(images))]
        text = {"images": said, "annotations": rows, "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]}
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(text))
    return folder


SQUARE = (0, (10, 10, 20, 20), False)
CROWD = (0, (0, 0, WIDTH, HEIGHT), True)
MANY = [(0, (k % 54, k % 37, 4 + k % 7, 4 + k % 5), False) for k in range(1000)]


@pytest.fixture(scope="session")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only."""
    train = [[SQUARE], [], [CROWD], [SQUARE, CROWD], MANY, [SQUARE], [SQUARE], [SQUARE]]
    val = [[SQUARE], [], [CROWD], MANY, [(1, (5, 8, 30, 30), False)]]
    return write(tmp_path_factory.mktemp("hard") / "set", {"train": train, "val": val, "test": [[], [CROWD], []]})


@pytest.fixture(scope="session", params=["detect", "instances"])
def run(hard: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    """Two passes; read-only but for what verbs write into a run."""
    out = tmp_path_factory.mktemp("runs") / str(request.param)
    options: dict[str, Any] = {"task": request.param, "epochs": 2, "batch": 4, "seed": 1, "device": "cpu"}
    return saccade.train(hard, out=out, progress=Silent(), **options)


def test_it_trains_and_is_measured(run: Run) -> None:
    assert run.record["state"] == "done" and run.report.is_file()
    found = saccade.eval(run.path, split="val", progress=Silent())
    assert found.metrics["map"] is not None and found.metrics["threshold"] is not None
    rows = {one["class"]: one for one in found.per_class}
    assert [rows[name]["objects"] for name in CLASSES][1:] == [1, 0]
    assert rows["in val"]["map"] is not None and rows["never"]["map"] is None
    assert len(found.predictions) == 5


def test_a_test_set_without_objects_tells_what_was_found_there(run: Run, page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run.path), "--split", "test", "--json", "--device", "cpu"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"]["map"] is None and said["metrics"]["recall"] is None and "map" not in said["intervals"]
    assert [one["objects"] for one in said["per_class"]] == [0, 0, 0]
    show(said)
    assert "map_50" in capsys.readouterr().out
    assert page(run.report.read_text()).faults == []


def test_it_predicts(run: Run, hard: Path, place: Path) -> None:
    found = saccade.predict(run.path, hard / "test", out="answers", format="coco", progress=Silent())
    assert len(found) == 3 and not found.failed
    told = saccade.eval_predictions(run.path / "predictions/val.jsonl", hard, split="val", progress=Silent())
    assert told.metrics["map"] == pytest.approx(run.record["metrics"]["map"], abs=1e-3)


def test_an_export_needs_objects_to_be_measured_by(run: Run, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", {"val": [[], [CROWD]]})
    with pytest.raises(UserError, match="has no object to be found in any image of val"):
        saccade.export(run.model, data=bare, out=tmp_path / "onnx", device="cpu", progress=Silent())


@pytest.mark.parametrize("task", ["detect", "instances"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("left", [[], [CROWD]], ids=["nothing", "crowd"])
def test_nothing_to_learn_or_to_validate_on(task: str, split: str, left: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "set", {"train": [[SQUARE]] * 4, "val": [[SQUARE]] * 2, split: [left, []]})
    with pytest.raises(UserError, match=f"has no object to be found in any image of {split}"):
        saccade.train(data, task=task, out=tmp_path / "run", epochs=1, device="cpu", progress=Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_objects_without_area_are_nothing_to_validate_on(task: str, tmp_path: Path) -> None:
    """They are warnings only, and are dropped when images are read."""
    data = write(tmp_path / "set", {"train": [[SQUARE]] * 4, "val": [[(0, (5, 5, 0, 9), False)], []]})
    with pytest.raises(UserError, match="has no object to be found in any image of val"):
        saccade.train(data, task=task, out=tmp_path / "run", epochs=1, device="cpu", progress=Silent())
    assert not (tmp_path / "run").exists()


def test_classes_of_a_list_that_no_training_image_has(tmp_path: Path) -> None:
    """YOLO's classes.txt names more than there are."""
    data = tmp_path / "set"
    for split, count in (("train", 6), ("val", 2)):
        (data / split / "images").mkdir(parents=True)
        (data / split / "labels").mkdir()
        for number in range(count):
            Image.fromarray(np.full((*SIZE, 3), 20 * number, np.uint8)).save(data / split / f"images/{number}.png")
            (data / split / f"labels/{number}.txt").write_text("1 0.5 0.5 0.3 0.4\n" if number else "")
    (data / "classes.txt").write_text("\n".join(CLASSES))
    run = saccade.train(data, out=tmp_path / "run", epochs=1, batch=4, device="cpu", report=False, progress=Silent())
    assert saccade.load(run.path).card.classes == CLASSES
    found = saccade.eval(run.path, progress=Silent())
    assert [one["objects"] for one in found.per_class] == [0, 1, 0] and found.metrics["map"] is not None
