"""Detectors from Python: train, measure, predict, explain, export, verify, the report; and that answers depend on the image alone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.api.sets import as_the_model_sees, read_split
from saccade.core import finish, nms
from saccade.core.average_precision import overlaps
from saccade.core.card import Card, InputSpec
from saccade.core.errors import Interrupted
from saccade.core.geometry import FILL
from saccade.core.progress import Silent
from saccade.core.results import Detections
from saccade.core.rundir import RunDir
from saccade.data.opening import open_dataset
from saccade.prediction import pipeline
from saccade.prediction.session import Session
from saccade.prediction.sources import Source
from small_jobs import Stopping

SIZES = [(64, 64), (64, 96), (96, 64), (50, 90), (33, 47)]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 scenes of 64x96 pixels in COCO's format, in three splits; read-only."""
    target = tmp_path_factory.mktemp("scenes") / "set"
    saccade.data.make("shapes", task="detect", n=60, size=(64, 96), out=target, seed=2)
    return target


def train(data: Path, out: Path, **options: Any) -> Run:
    return saccade.train(data, out=out, **{"epochs": 2, "batch": 8, "device": "cpu", "seed": 1, "progress": Silent(), **options})


@pytest.fixture(scope="session")
def finder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two passes over the scenes; read-only but for what verbs write into a run."""
    return train(scenes, tmp_path_factory.mktemp("runs") / "finder")


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of five shapes with a coloured square each, in class 7 or 90 of a COCO file whose ids have holes; read-only."""
    target = tmp_path_factory.mktemp("mixed") / "set"
    draws = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 15)):
        (target / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            height, width = SIZES[number % len(SIZES)]
            pixels = draws.integers(90, 140, (height, width, 3)).astype(np.uint8)
            side, red = int(draws.integers(12, 24)), number % 2
            y, x = int(draws.integers(0, height - side)), int(draws.integers(0, width - side))
            pixels[y : y + side, x : x + side] = (230, 20, 20) if red else (20, 20, 230)
            Image.fromarray(pixels).save(target / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 90 if red else 7,
                    "bbox": [x, y, side, side],
                    "area": side**2,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": 7, "name": "blue"}, {"id": 13, "name": "none"}, {"id": 90, "name": "red"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (target / "annotations").mkdir(exist_ok=True)
        (target / f"annotations/instances_{split}.json").write_text(text)
    return target


@pytest.fixture(scope="session")
def learned(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Enough passes to find the squares."""
    return train(mixed, tmp_path_factory.mktemp("runs") / "learned", epochs=25)


# Training and what it leaves


def test_what_a_run_leaves(finder: Run, page: Any) -> None:
    facts = finder.to_dict()
    assert facts["task"] == "detect"
    names = {"map", "map_50", "map_75", "map_small", "map_medium", "mar_100", "f1", "precision", "recall", "threshold"}
    assert set(facts["metrics"]) >= names
    rows = [json.loads(line) for line in (finder.path / "predictions/val.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all(set(row) == {"source", "size", "boxes", "labels", "category_ids", "scores", "truth"} for row in rows)
    html = finder.report.read_text()
    found = page(html)
    assert found.faults == []
    assert "object detection" in html and "What it finds" in html and "mAP" in html
    assert html.count("data:image/") >= 8, "images with their boxes, and plots"
    assert "Not one mistake" not in html


def test_it_learns_where_and_what(learned: Run, mixed: Path) -> None:
    figures = learned.record["metrics"]
    assert figures["map_50"] > 0.7, figures
    answers: Any = saccade.predict(learned.path, mixed / "val", progress=Silent())
    assert answers[0].classes == ("blue", "none", "red")
    said = [(Path(one.source).stem, one.names[0]) for one in answers if len(one)]
    assert len(said) >= 10 and np.mean([name == ("red" if int(stem) % 2 else "blue") for stem, name in said]) > 0.8


def test_it_goes_on_to_the_bit(finder: Run, scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(scenes, tmp_path / "r", progress=Stopping(7))
    again = saccade.train(out=tmp_path / "r", resume=True, workers=2, progress=Silent())
    for name in ("best.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (finder.path / name).read_bytes()
    plain = [[{**row, "time": None} for row in RunDir(run.path).metrics()] for run in (again, finder)]
    assert plain[0] == plain[1]


def test_sets_at_the_edge(tmp_path: Path) -> None:
    """Images without objects, one that is all crowd, one with a thousand objects, one of zero area; one class."""
    draws = np.random.default_rng(1)
    images, annotations = [], []
    for number in range(12):
        split = "train" if number < 8 else "val"
        (tmp_path / "set" / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(tmp_path / f"set/{split}/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
        count = {0: 0, 1: 1, 2: 1000, 3: 1, 9: 0, 10: 1}.get(number, 2)
        for k in range(count):
            box = (
                [0, 0, 64, 48] if number in (1, 10) else [*draws.integers(0, 40, 2).tolist(), *((0, 5) if number == 3 else (7 + k % 5, 6))]
            )
            crowd = int(number in (1, 10))
            shape = {"segmentation": {"counts": [0, 64 * 48], "size": [48, 64]}} if crowd else {}
            row = {"id": len(annotations), "image_id": number, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            annotations.append(row | shape)
    (tmp_path / "set/annotations").mkdir()
    for split, chosen in (("train", range(8)), ("val", range(8, 12))):
        text = {
            "images": [images[n] for n in chosen],
            "annotations": [one for one in annotations if one["image_id"] in chosen],
            "categories": [{"id": 1, "name": "thing"}],
        }
        (tmp_path / f"set/annotations/instances_{split}.json").write_text(json.dumps(text))
    for task in ("detect", "instances"):
        run = train(tmp_path / "set", tmp_path / task, task=task, epochs=1, batch=4)
        assert run.record["state"] == "done"
        found = saccade.eval(run.path, progress=Silent())
        assert found.metrics["map"] is not None and found.per_class[0]["objects"] == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "resnet18"}, "unknown model"),
        ({"set": {"augment.mixup": 0.5}}, "mixup is no change of detect"),
        ({"model": "small_detector", "pretrained": True}, "no published weights"),
    ],
)
def test_what_is_refused(scenes: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        train(scenes, tmp_path / "r", **options)
    assert words in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_sets_without_objects_are_refused(tmp_path: Path) -> None:
    saccade.data.make("shapes", task="detect", n=18, size=(16, 16), out=tmp_path / "set")
    file = tmp_path / "set/annotations/instances_train.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "annotations": []}))
    with pytest.raises(UserError, match="has no object to be found in any image of train"):
        train(tmp_path / "set", tmp_path / "r")


# The same answer in any company


def pairs_of(one: Detections, other: Detections, border: float = 1e-4) -> None:
    """Equal to 1e-4 in scores and 0.05 px, but for candidates at the border of what is told or kept."""
    least = finish.LEAST + border
    one, other = one.above(least), other.above(least - 2 * border)
    assert len(other) >= len(one) - 1
    near = overlaps(one.boxes, other.boxes, np.zeros(len(other), bool))
    for place in range(len(one)):
        same = (np.abs(other.boxes - one.boxes[place]).max(1) <= 0.05) & (other.labels == one.labels[place])
        same &= np.abs(other.scores - one.scores[place]) <= 1e-4
        assert same.any() or near[place].max(initial=0) > nms.OVERLAP - 1e-3, (one.boxes[place], one.scores[place])


def test_an_answer_does_not_depend_on_its_neighbours(learned: Run, mixed: Path) -> None:
    """Evaluation by 1, 3 and 8 images of five shapes."""
    model = saccade.load(learned.path)
    dataset = open_dataset(mixed)
    split, _ = read_split(dataset, "val", as_the_model_sees(model.card.input), skip_bad=False, progress=Silent(), workers=1)
    answers: list[dict[str, Detections]] = []
    for least in (1, 3, 8):
        found: dict[str, Detections] = {}
        for images, _, names, sizes in split.batches(least):
            assert len({image.shape for image in images}) == 1
            results: Any = finish.results(model.session("fp32").run(images), model.card, sizes, names, complete=True)
            found |= {one.source: one for one in results}
        answers.append(found)
    assert answers[0].keys() == answers[1].keys() == answers[2].keys() and len(answers[0]) == 15
    for other in answers[1:]:
        for name, one in answers[0].items():
            pairs_of(one, other[name])
    figures = [saccade.eval(learned.path, split="val", progress=Silent()).metrics for _ in range(2)]
    assert figures[0] == figures[1]


class Oracle:
    """Finds what is pure red, in the pixels that a model would be given."""

    card = Card("detect", ("red",), {}, InputSpec(3, (128, 128), "fit"))
    streams, batch = 1, 8

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        boxes = np.zeros((len(images), 1, 4), np.float32)
        scores = np.zeros((len(images), 1), np.float32)
        for row, image in enumerate(images):
            red = (image[0] > 160) & (image[1] < 95)
            if red.any():
                y, x = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
                boxes[row, 0], scores[row, 0] = (x[0], y[0], x[-1] + 1, y[-1] + 1), 0.9
        return {"boxes": boxes, "scores": scores, "labels": np.zeros_like(scores)}


def seen(*images: np.ndarray) -> list[np.ndarray]:
    oracle: Session = Oracle()
    found: Any = list(pipeline.stream(oracle, [Source(image, str(n)) for n, image in enumerate(images)]))
    return [one.boxes[0] for one in found]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(60, 300), st.integers(60, 300)),
    st.tuples(*[st.floats(0.05, 0.95)] * 4),
    st.integers(1, 60),
    st.sampled_from([2, 3]),
)
def test_boxes_follow_the_image(size: tuple[int, int], shares: tuple[float, ...], room: int, factor: int) -> None:
    """Scaled, padded, mirrored and turned: within the pixels that resampling blurs."""
    height, width = size
    y, x = sorted(shares[:2]), sorted(shares[2:])
    y1, x1 = int(y[0] * height), int(x[0] * width)
    y2, x2 = max(y1 + 12, int(y[1] * height)), max(x1 + 12, int(x[1] * width))
    if y2 > height or x2 > width:
        return
    image = np.full((height, width, 3), 20, np.uint8)
    image[y1:y2, x1:x2] = (255, 0, 0)
    box = np.array([x1, y1, x2, y2], np.float64)
    slack = 2.0 * max(1.0, max(size) / 128)
    padded = np.pad(image, ((room, 0), (0, room), (0, 0)), constant_values=FILL)
    slack_padded = 2.0 * max(1.0, max(padded.shape) / 128)
    whole = seen(image, image.repeat(factor, 0).repeat(factor, 1), padded, image[:, ::-1].copy(), np.rot90(image).copy())
    np.testing.assert_allclose(whole[0], box, atol=slack)
    np.testing.assert_allclose(whole[1], box * factor, atol=slack * factor)
    np.testing.assert_allclose(whole[2], np.add(box, [0, room, 0, room]), atol=slack_padded)
    np.testing.assert_allclose(whole[3], [width - x2, y1, width - x1, y2], atol=slack)
    np.testing.assert_allclose(whole[4], [y1, width - x2, y2, width - x1], atol=slack)


# The other verbs


def test_predictions_in_every_format(learned: Run, mixed: Path, place: Path) -> None:
    found = saccade.predict(learned.path, mixed / "val", out="answers", format="csv", progress=Silent())
    rows = list(csv.reader(io.StringIO(Path("answers/predictions.csv").read_text())))
    assert rows[0] == ["source", "label", "score", "x1", "y1", "x2", "y2", "category_id"]
    assert {(row[1], row[7]) for row in rows[1:]} <= {("blue", "7"), ("none", "13"), ("red", "90")}, "the set's own numbers"
    assert len(rows) - 1 == sum(map(len, found))  # type: ignore[arg-type]
    saccade.predict(learned.path, mixed / "val", out="answers", format="jsonl", progress=Silent())
    plain = [json.loads(line) for line in Path("answers/predictions.jsonl").read_text().splitlines()]
    assert [one["source"] for one in plain] == [one.source for one in found]
    assert all(len(one["boxes"]) == len(one["scores"]) == len(one["labels"]) == one["count"] for one in plain)
    assert [one["category_ids"] for one in plain] == [[{"blue": 7, "none": 13, "red": 90}[name] for name in one["labels"]] for one in plain]
    assert "<td>" in found._repr_html_()


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_answers_are_a_labelled_set(learned: Run, mixed: Path, tmp_path: Path, form: str) -> None:
    """It opens as any other, with the images and what was found; arrays and doubled names too."""
    images: list[Any] = [*sorted((mixed / "val").glob("*.png")), mixed / "train/1.png", np.asarray(Image.open(mixed / "val/3.png"))]
    found = saccade.predict(learned.path, images, out=tmp_path / "labels", format=form, progress=Silent())
    dataset = open_dataset(tmp_path / "labels", task="detect")
    assert dataset.annotations.format == form and set(dataset.schema.classes) <= {"blue", "none", "red"}
    assert len(dataset) == len(images) == len({Path(path).name for path in dataset.paths})
    if form == "coco":
        sheet = json.loads((tmp_path / "labels/annotations/instances.json").read_text())
        assert [(one["id"], one["name"]) for one in sheet["categories"]] == [(7, "blue"), (13, "none"), (90, "red")]
        assert all(one["score"] >= saccade.load(learned.path).card.metrics["threshold"] for one in sheet["annotations"])  # type: ignore[operator]
        assert {one["category_id"] for one in sheet["annotations"]} == {7, 90}
    told = sorted((*np.round(box, 0), name) for one in found for box, name in zip(one.boxes.tolist(), one.names))  # type: ignore[union-attr]
    written = []
    for index in range(len(dataset)):
        truth = dataset.target(index, dataset.size(index))
        written += [(*np.round(box, 0), dataset.schema.classes[label]) for box, label in zip(truth.boxes, truth.labels)]
    assert len(written) == len(told) > 10
    near = [max(abs(a - b) for a, b in zip(one[:4], other[:4])) for one, other in zip(sorted(written), told)]
    assert np.mean(np.array(near) <= 1) > 0.9
    with pytest.raises(UserError, match="must be a new or an empty folder"):
        saccade.predict(learned.path, images, out=tmp_path / "labels", format=form, progress=Silent())
    with pytest.raises(UserError, match="labels need a folder"):
        saccade.predict(learned.path, images, format=form, progress=Silent())


def test_pictures_of_answers(learned: Run, mixed: Path, place: Path) -> None:
    """Written among the images themselves: they are not taken for more of them; a broken image has none."""
    (place / "broken.png").write_bytes(b"none")
    Image.open(mixed / "val/1.png").save("one.png")
    found = saccade.predict(learned.path, ".", out="answers", format="png", progress=Silent())
    assert [one.source for one in found] == ["one.png"] and len(found.failed) == 1
    (picture,) = Path("answers").iterdir()
    assert picture.name == "000001-one.png"
    with Image.open(picture) as shown:
        assert max(shown.size) >= 320
    with pytest.raises(UserError, match="pictures of answers need a folder"):
        saccade.predict(learned.path, ".", format="png", progress=Silent())


def test_a_run_that_is_asked_otherwise_keeps_its_own_answers(finder: Run) -> None:
    before = [(path, path.stat().st_mtime_ns) for path in (finder.path / "predictions/val.jsonl", finder.report)]
    plain, soft = (saccade.eval(finder.path, split="val", nms=way, progress=Silent()) for way in ("class", "soft"))
    assert plain.metrics["map"] == pytest.approx(finder.record["metrics"]["map"], abs=1e-6)
    low, high = plain.intervals["map_small"]  # over resampled images, of each size of objects too
    assert low <= plain.metrics["map_small"] <= high and {"map", "map_50"} <= set(plain.intervals)  # type: ignore[operator]
    assert [row["scores"] for row in soft.predictions] != [row["scores"] for row in plain.predictions]
    assert [(path, path.stat().st_mtime_ns) for path, _ in before] == before


def test_predictions_of_others(learned: Run, mixed: Path, place: Path) -> None:
    own = learned.path / "predictions/val.jsonl"
    found = saccade.eval_predictions(own, mixed, split="val")
    mine = saccade.eval(learned.path, split="val", progress=Silent())
    assert found.metrics["map_50"] == pytest.approx(mine.metrics["map_50"], abs=1e-3)
    for name in ("map", "mar_100"):  # boxes are written to a hundredth of a pixel, which takes one or the other across a high threshold
        assert found.metrics[name] == pytest.approx(mine.metrics[name], abs=0.02)
    rows = [json.loads(line) for line in own.read_text().splitlines()]
    for wrong, words in (
        (rows[1:], "is missing"),
        ([*rows, rows[0]], "has several"),
        ([*rows, rows[0] | {"source": "elsewhere.png"}], "'elsewhere.png' is none of them"),
        ([rows[0] | {"size": [3, 4]}, *rows[1:]], "must be for an image of"),
        ([rows[0] | {"labels": ["nothing known"] * len(rows[0]["labels"]), "scores": rows[0]["scores"]}, *rows[1:]], "nothing known|lacks"),
        ([{"label": "x"}], "must be an object with source"),
        ([{"source": rows[0]["source"], "label": "red"}], "is missing|lacks"),
    ):
        (place / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
        with pytest.raises(UserError, match=words):
            saccade.eval_predictions("x.jsonl", mixed, split="val")


def test_explain_shows_what_speaks_for_the_surest_or_a_class(learned: Run, mixed: Path) -> None:
    answers: Any = saccade.predict(learned.path, mixed / "val", progress=Silent())
    found = next(one for one in answers if len(one))
    shown = saccade.explain(learned.path, found.source, progress=Silent())
    assert shown[0].target == found.names[0]
    assert shown[0].map.shape == found.size and np.isfinite(shown[0].map).all()
    assert all(set(row) == {"source", "objects", "missed", "false"} for row in shown.mistakes)
    other = saccade.explain(learned.path, mixed / "val/1.png", target_class="blue", progress=Silent())
    assert other[0].target == "blue"
    place = [float(value) for value in found.boxes[0]]
    about = saccade.explain(learned.path, found.source, box=place, progress=Silent())
    assert about[0].target == found.names[0]
    assert saccade.load(learned.path).explain(found.source, target_class="none", box=place, progress=Silent())[0].target == "none"  # type: ignore[union-attr]
    for inputs, box, words in (
        (found.source, [0, 0, 0, 5], "--box: must be left, top, right and bottom of a box in pixels, got 0,0,0,5"),
        ([found.source] * 2, place, "--box: is in one image, got 2"),
        (found.source, [900, 900, 910, 910], "no object that was found overlaps it"),
    ):
        with pytest.raises(UserError, match=words):
            saccade.explain(learned.path, inputs, box=box, progress=Silent())
    Image.fromarray(np.full((40, 40, 3), 110, np.uint8)).save("empty.png")
    with pytest.raises(UserError, match="nothing was found in it"):
        saccade.explain(learned.path, "empty.png", progress=Silent())


@pytest.mark.long
def test_an_export_of_any_size_answers_the_same(learned: Run, mixed: Path, tmp_path: Path) -> None:
    exported = learned.export(out=tmp_path / "onnx", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert exported.facts["dynamic"] == ["batch", "height", "width"]
    assert exported.facts["agreement"] > 0.98
    assert saccade.verify(exported.file, mixed, progress=Silent()).passed  # type: ignore[arg-type]
    one, other = (saccade.predict(target, mixed / "val", progress=Silent()) for target in (learned.path, exported.file))  # type: ignore[arg-type]
    for first, second in zip(one, other, strict=True):
        assert first.agreement(second) == 1 and first.class_ids == second.class_ids == (7, 13, 90)  # type: ignore[union-attr]
    assert saccade.load(exported.file).evaluate(mixed, progress=Silent()).metrics["map_50"] == pytest.approx(
        learned.record["metrics"]["map_50"], abs=0.02
    )  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "figure"), [("detect", "map"), ("instances", "map"), ("segment", "miou"), ("panoptic", "pq")])
def test_quickstart(tmp_path: Path, task: str, figure: str) -> None:
    quick = tmp_path / "quick"
    run = saccade.quickstart(task=task, out=quick, device="cpu", progress=Silent())
    text = "\n".join(run.summary)
    assert "drawn scenes" in text and f"measured  {figure} 0." in text and "pass" in text
    assert (quick / "run/exports/onnx-fp32/model.onnx").is_file()
