"""Things and stuff from Python: train, measure, predict in every format, explain, go on, the report; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError, data
from saccade.api import labelling
from saccade.core import run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import IGNORED
from saccade.core.errors import Interrupted
from saccade.core.panoptic import Panoptic, Segment
from saccade.core.progress import Silent
from saccade.core.run_lengths import Rle
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import coco_panoptic
from saccade.data.opening import open_dataset
from saccade.data.tree import File, FolderTree
from saccade.data.writing import Output
from saccade.queries import criterion
from saccade.queries.rows import ROWS
from small_jobs import Stopping, one_thread  # noqa: F401
from tiny_queries import figures_by_batch, shrink

pytestmark = pytest.mark.long
MODEL = "mask2former_swin_tiny"
CLASSES = ("disc", "field", "sky")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(criterion, "POINTS", 300)
        for task in ("panoptic", "segment"):
            patch.setitem(ROWS, task, shrink(ROWS[task]))
        yield


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three shapes: sky above a field, both stuff, and discs, of which some reach into both; a strip of void between."""
    base, draws, items = tmp_path_factory.mktemp("fields"), np.random.default_rng(0), []
    (base / "raw").mkdir()
    for number in range(28):
        height, width = ((64, 64), (45, 80), (90, 61))[number % 3]
        pixels = draws.integers(0, 30, (height, width, 3), dtype=np.uint8)
        line = int(height * draws.uniform(0.3, 0.6))
        pixels[:line, :, 2] += 200
        pixels[line:, :, 1] += 120
        down, across = np.mgrid[0:height, 0:width] + 0.5
        spots = [(draws.uniform(10, width - 10), draws.uniform(10, height - 10)) for _ in range(number % 3)]
        discs = [np.hypot(across - x, down - y) < 8 for x, y in spots]
        for disc in discs:
            pixels[disc] = 230
        sky = np.broadcast_to(down < line - 1, (height, width))
        masks = [(2, sky), (1, ~sky & (down > line + 1)), *((0, disc) for disc in discs)]
        Image.fromarray(pixels).save(base / f"raw/{number:02d}.png")
        objects = tuple(Object(label, shape=run_lengths.from_mask(mask)) for label, mask in masks)
        items.append(Item(File(f"{number:02d}.png", 1, 0), "train" if number < 20 else "val", objects=objects))
    source = Annotations("x", "panoptic", CLASSES, tuple(items), FolderTree(base / "raw"), ids=(3, 7, 90), stuff=(1, 2))
    (base / "set").mkdir()
    coco_panoptic.write(source, Output(base / "set", source))
    return base / "set"


def train(data: Path, out: Path, **options: Any) -> Run:
    given = {"model": MODEL, "size": "64x64", "epochs": 2, "batch": 5, "device": "cpu", "seed": 1, "progress": Silent()}
    return saccade.train(data, out=out, **{**given, **options})


@pytest.fixture(scope="module")
def learned(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Enough passes to tell sky from field; read-only but for what verbs write into a run."""
    return train(fields, tmp_path_factory.mktemp("runs") / "learned", epochs=25, set={"lr": 2e-3, "augment.mosaic": 0})


@pytest.fixture(scope="module")
def ours(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Our own network, after a few passes; read-only but for what verbs write into a run."""
    out = tmp_path_factory.mktemp("runs") / "ours"
    return train(fields, out, model="small_panoptic", epochs=15, set={"lr": 2e-3, "augment.mosaic": 0})


def test_it_learns(learned: Run, fields: Path, page: Any) -> None:
    facts = learned.to_dict()
    assert facts["task"] == "panoptic" and list(facts["metrics"]) == ["pq", "sq", "rq", "pq_things", "pq_stuff"]
    assert facts["metrics"]["pq_stuff"] > 0.5, facts["metrics"]
    evaluation = saccade.eval(learned.path, progress=Silent())
    assert [(row["class"], row["kind"]) for row in evaluation.per_class] == [("disc", "thing"), ("field", "stuff"), ("sky", "stuff")]
    assert set(evaluation.intervals) == set(evaluation.metrics) and evaluation.metrics["pq"] == pytest.approx(facts["metrics"]["pq"])
    rows = [json.loads(line) for line in (learned.path / "predictions/val.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and all(set(row) == {"source", "size", "segments", "pq"} for row in rows)
    html = learned.report.read_text()
    assert page(html).faults == [] and "panoptic segmentation" in html and "panoptic quality" in html


def test_stuff_is_what_the_data_have(ours: Run, fields: Path, tmp_path: Path) -> None:
    """Where a run begins anew, and where it goes on from a model that was edited."""
    with pytest.raises(UserError, match=r"objects.stuff.*must be the places of the classes of stuff, was \[0\]"):
        train(fields, tmp_path / "wrong", model="small_panoptic", set={"objects.stuff": [0]})
    assert not (tmp_path / "wrong").exists()
    shutil.copytree(fields, tmp_path / "set")
    for file in (tmp_path / "set").rglob("*.json"):
        text = json.loads(file.read_text())
        for category in text.get("categories", ()):
            category["isthing"] = int(category["name"] != "sky")
        file.write_text(json.dumps(text))
    edited = saccade.edit(ours.path / "best.safetensors", "deepen pixels +1", out=tmp_path / "edited.safetensors")
    run = train(tmp_path / "set", tmp_path / "on", model="small_panoptic", epochs=1, weights=str(edited.model))
    assert run.config.objects.stuff == (2,) and saccade.load(run.path).card.stuff == (2,)


def test_our_own_learns_in_seconds(ours: Run, fields: Path) -> None:
    facts = ours.to_dict()
    assert facts["metrics"]["pq_stuff"] > 0.8 and facts["metrics"]["pq"] > 0.4, facts["metrics"]
    assert ours.config.objects.stuff == (1, 2)
    (answer,) = saccade.predict(ours.path, fields / "val/20.png", progress=Silent())
    assert isinstance(answer, Panoptic) and {one.label for one in answer.segments if not one.thing} == {1, 2}
    assert saccade.explain(ours.path, fields / "val/20.png", target_class="sky", progress=Silent())[0].map.max() > 0.9


@pytest.mark.parametrize("model", ["learned", "ours"])
def test_figures_do_not_depend_on_the_batch(model: str, request: pytest.FixtureRequest, fields: Path, tmp_path: Path) -> None:
    learned: Run = request.getfixturevalue(model)
    one_shape = tmp_path / "set"
    shutil.copytree(fields, one_shape)
    raw = json.loads((one_shape / "annotations/panoptic_val.json").read_text())
    raw["images"] = [row for row in raw["images"] if (row["height"], row["width"]) == (64, 64)]
    kept = {row["id"] for row in raw["images"]}
    raw["annotations"] = [row for row in raw["annotations"] if row["image_id"] in kept]
    (one_shape / "annotations/panoptic_val.json").write_text(json.dumps(raw))
    first, *others = figures_by_batch(learned.path, one_shape)
    assert first["pq"] is not None
    for other in others:
        assert other == pytest.approx(first, abs=1e-4)


def test_answers_have_the_originals_pixels(learned: Run, fields: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 11, 3), dtype=np.uint8)
    answers = saccade.predict(learned.path, [image, fields / "val/20.png"], progress=Silent())
    first, second = answers
    assert isinstance(first, Panoptic) and first.size == (17, 11) and isinstance(second, Panoptic)
    dataset = open_dataset(fields)
    assert second.size == dataset.size(dataset.paths.index("val/20.png")) and second.segments
    assert {one.thing for one in second.segments if one.label} == {False}
    assert sum(one.label == 2 for one in second.segments) <= 1, "all there is of a stuff is one segment"
    told = second.to_segmentation()
    assert told.mask.shape == second.size and set(np.unique(told.mask)) <= {0, 1, 2, IGNORED}
    assert len(second.to_instances()) == sum(one.thing for one in second.segments)


def test_formats(learned: Run, fields: Path, tmp_path: Path) -> None:
    inputs = sorted((fields / "val").glob("*.png"))[:3]
    answers = saccade.predict(learned.path, inputs, progress=Silent())
    for form in ("json", "csv", "png", "coco", "masks", "yolo"):
        saccade.predict(learned.path, inputs, out=tmp_path / form, format=form, progress=Silent())
    rows = json.loads((tmp_path / "json/predictions.json").read_text())["results"]
    for row, answer in zip(rows, answers, strict=True):
        assert isinstance(answer, Panoptic)
        again = Panoptic.from_dict(row, answer.classes)
        np.testing.assert_array_equal(again.map, answer.map)
        assert again.segments == answer.segments
    lines = (tmp_path / "csv/predictions.csv").read_text().splitlines()
    assert lines[0] == "source,label,score,thing,area,x1,y1,x2,y2"
    assert len(lines) == 1 + sum(len(answer.segments) for answer in answers)  # type: ignore[union-attr]
    assert len(list((tmp_path / "png").glob("*.png"))) == 3
    told = open_dataset(tmp_path / "coco", task="panoptic")
    assert (told.annotations.format, told.schema.ids, told.schema.stuff) == ("coco_panoptic", (3, 7, 90), (1, 2))
    for place, answer in enumerate(answers):
        target = told[place].target
        drawn = Panoptic.drawn(target.masks, [answer.segments[0].__class__(n + 1, k) for n, k in enumerate(target.labels.tolist())],
                               answer.size, answer.classes)  # fmt: skip
        np.testing.assert_array_equal(drawn.to_segmentation().mask, answer.to_segmentation().mask)  # type: ignore[union-attr]
    assert open_dataset(tmp_path / "masks", task="segment").schema.classes == CLASSES
    assert open_dataset(tmp_path / "yolo", task="detect").annotations.format == "yolo"
    scored = saccade.eval_predictions(learned.path / "predictions/val.jsonl", fields, progress=Silent())
    assert scored.task == "panoptic" and scored.metrics == pytest.approx(saccade.eval(learned.path, progress=Silent()).metrics)


def test_stuff_that_a_format_does_not_hold(tmp_path: Path) -> None:
    """Objects alone: what is left out is said."""
    segments = [Segment(1, 0), Segment(2, 1, thing=False), Segment(3, 2, thing=False)]
    answer = Panoptic.of(np.array([[1, 1, 2], [1, 1, 3]], np.int32), segments, CLASSES, "x.png")
    card = Card("panoptic", CLASSES, {}, InputSpec(3, (64, 64), "fit"), stuff=(1, 2))
    image = np.zeros((2, 3, 3), np.uint8)
    for form, kept in (("yolo", 1), ("voc", 1), ("coco", 3), ("masks", 3)):
        lines = labelling.write([(image, answer)], card, tmp_path / form, form, 1000)
        assert (f"{form} does not hold regions of stuff: 2 left out" in lines) is (kept == 1), (form, lines)


def test_explain(learned: Run, fields: Path, tmp_path: Path) -> None:
    found = saccade.explain(learned.path, fields / "val/20.png", out=tmp_path, target_class="sky", progress=Silent())
    assert found[0].map.shape == open_dataset(fields).size(20) and found[0].map.max() > 0.9 and found.mistakes
    assert set(found.mistakes[0]) == {"source", "pq"}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["learned", "ours"])
def test_export_and_its_proof(model: str, request: pytest.FixtureRequest, fields: Path, tmp_path: Path) -> None:
    """The file's answers are the model's, and the proof is repeated where the data have moved."""
    run: Run = request.getfixturevalue(model)
    found = saccade.export(run.path, to="onnx", device="cpu", progress=Silent())
    assert found.passed and found.file is not None, found.facts["checks"]
    before, after = (found.facts["metrics"][name]["pq"] for name in ("reference", "exported"))
    assert before == pytest.approx(run.to_dict()["metrics"]["pq"], abs=1e-6) and before > 0.2 and after == pytest.approx(before, abs=1e-3)
    again = saccade.verify(found.file, shutil.copytree(fields, tmp_path / "moved"), progress=Silent())
    assert again.passed and again.facts["images"] == found.facts["images"] == 8
    inputs = sorted((fields / "val").glob("*.png"))[:3]
    answers, wanted = (saccade.predict(target, inputs, progress=Silent()) for target in (found.file, run.path))
    for one, other in zip(answers, wanted, strict=True):
        assert isinstance(one, Panoptic) and isinstance(other, Panoptic) and other.segments and one.agreement(other) > 0.99


@pytest.mark.parametrize("model", [MODEL, "small_panoptic"])
def test_going_on_to_the_bit(fields: Path, tmp_path: Path, model: str) -> None:
    whole = train(fields, tmp_path / "whole", model=model)
    with pytest.raises(Interrupted):
        train(fields, tmp_path / "again", model=model, progress=Stopping(4))
    again = saccade.train(out=tmp_path / "again", resume=True, progress=Silent())
    assert again.model.read_bytes() == whole.model.read_bytes()
    assert again.record["metrics"] == whole.record["metrics"]


def test_the_set_serves_other_rooms(fields: Path, tmp_path: Path) -> None:
    """As classes of pixels, void left out, and as objects."""
    run = train(fields, tmp_path / "segment", model="small_unet", task="segment", size="32x32", epochs=1)
    assert run.to_dict()["metrics"]["miou"] is not None
    dataset = open_dataset(fields, task="instances")
    assert dataset.schema.classes == ("disc",) and all(isinstance(mask, Rle) for mask in dataset[1].target.masks)


def test_what_is_refused(fields: Path, learned: Run, tmp_path: Path) -> None:
    for options, words in (
        ({"model": "small_panoptik"}, "did you mean small_panoptic"),
        ({"model": "small_panoptic", "pretrained": True}, "small_panoptic has no published weights"),
        ({"pretrained": True}, "are under cc-by-nc-4.0"),
        ({"set": {"augment.paste": 0.5}}, "paste is no change of panoptic"),
        ({"set": {"channels": 4}}, "takes images of 1 or 3 channels"),
        ({"set": {"label_smoothing": 0.1}}, "is for classify"),
    ):
        with pytest.raises(UserError, match=words):
            train(fields, tmp_path / "none", **options)
    for options in ({"tile": 256}, {"tta": True}, {"nms": "soft"}):
        with pytest.raises(UserError, match="panoptic"):
            saccade.predict(learned.path, fields / "val/20.png", progress=Silent(), **options)  # type: ignore[arg-type]
    other = tmp_path / "other"
    data.make("shapes", task="panoptic", n=18, size=(24, 32), out=other)
    with pytest.raises(UserError, match="the model has no class"):
        saccade.eval(learned.model, other, progress=Silent())
    assert not (tmp_path / "none").exists()
