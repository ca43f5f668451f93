"""Classes of pixels from Python: train, measure, predict, explain, export, verify, resume, the report; broken masks."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.api import labelling
from saccade.core import masks
from saccade.core.card import Card, InputSpec
from saccade.core.errors import Interrupted
from saccade.core.progress import Silent
from saccade.core.segmentation import Segmentation
from saccade.data.opening import open_dataset
from saccade.evaluation import reference
from saccade.evaluation.proof import Case, prove
from saccade.tasks import room
from small_jobs import Stopping

FIGURES = {"miou", "dice", "pixel_accuracy", "boundary_f1", "hausdorff_95"}


def train(data: Path, out: Path, **options: Any) -> Run:
    return saccade.train(data, out=out, **{"epochs": 2, "batch": 8, "device": "cpu", "seed": 1, "progress": Silent(), **options})


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three shapes with light and dark fields on grey, a void line between them; read-only."""
    target = tmp_path_factory.mktemp("fields") / "set"
    draws = np.random.default_rng(0)
    (target / "images").mkdir(parents=True)
    (target / "masks").mkdir()
    for number in range(40):
        height, width = ((64, 64), (48, 80), (90, 61))[number % 3]
        pixels = draws.integers(110, 140, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        for label, tone in ((1, 220), (2, 30)):
            tall, wide = draws.integers(16, 30, 2)
            top, left = draws.integers(0, height - tall), draws.integers(0, width - wide)
            pixels[top : top + tall, left : left + wide] = tone
            mask[top : top + tall, left : left + wide] = label
        mask[height // 2] = 255
        Image.fromarray(pixels).save(target / f"images/{number:03d}.png")
        Image.fromarray(mask).save(target / f"masks/{number:03d}.png")
    (target / "classes.txt").write_text("background\nlight\ndark\n")
    return target


@pytest.fixture(scope="session")
def learned(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Enough passes to find the fields; read-only but for what verbs write into a run."""
    return train(fields, tmp_path_factory.mktemp("runs") / "learned", epochs=12)


def test_it_learns(learned: Run, page: Any) -> None:
    facts = learned.to_dict()
    assert facts["task"] == "segment"
    assert facts["metrics"]["miou"] > 0.8, facts["metrics"]
    assert set(facts["metrics"]) == FIGURES
    rows = [json.loads(line) for line in (learned.path / "predictions/val.jsonl").read_text().splitlines()]
    assert all(set(row) == {"source", "size", "masks", "miou", "pixel_accuracy"} for row in rows)
    html = learned.report.read_text()
    assert page(html).faults == []
    assert "semantic segmentation" in html and "What it finds" in html and "Mean IoU" in html


def test_measured_again_whatever_the_batch(learned: Run, fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = saccade.eval(learned.path, progress=Silent())
    assert set(found.metrics) == FIGURES and set(found.intervals) == FIGURES
    assert [row["class"] for row in found.per_class] == ["background", "light", "dark"]
    for most in (1, 3):
        monkeypatch.setattr("saccade.api.sets.MOST", most)
        assert saccade.eval(learned.path, progress=Silent()).metrics == pytest.approx(found.metrics, abs=1e-6)


def test_predictions_of_others(learned: Run, fields: Path, tmp_path: Path) -> None:
    mine = saccade.eval(learned.path, progress=Silent()).metrics
    assert saccade.eval_predictions(learned.path / "predictions/val.jsonl", fields, split="val").metrics == pytest.approx(mine)
    dataset = open_dataset(fields, task="segment")
    images = [fields / dataset.paths[place] for place in dataset.split("val").tolist()]
    saccade.predict(learned.path, images, out=tmp_path / "o", progress=Silent())
    assert saccade.eval_predictions(tmp_path / "o/predictions.json", fields, split="val").metrics == pytest.approx(mine)
    Path(json.loads((tmp_path / "o/predictions.json").read_text())["results"][0]["mask"]).unlink()
    with pytest.raises(UserError, match="no such file"):
        saccade.eval_predictions(tmp_path / "o/predictions.json", fields, split="val")


def test_answers_have_the_originals_pixels(learned: Run, fields: Path, tmp_path: Path) -> None:
    images = sorted((fields / "images").glob("00*.png"))
    found = saccade.predict(learned.path, images, out=tmp_path / "json", progress=Silent())
    written = json.loads((tmp_path / "json/predictions.json").read_text())["results"]
    for path, one, row in zip(images, found, written, strict=True):
        assert isinstance(one, Segmentation) and one.size == Image.open(path).size[::-1]
        truth = masks.read(fields / "masks" / path.name)
        assert (one.mask == truth)[truth != 255].mean() > 0.9
        np.testing.assert_array_equal(masks.read(row["mask"]), one.mask)
        doubt = masks.read(tmp_path / "json/uncertainty" / Path(row["mask"]).name)
        assert one.uncertainty is not None and np.abs(doubt / 255 - one.uncertainty).max() < 1e-6
        assert one.uncertainty is not None and one.uncertainty.shape == one.size
    alone = [saccade.predict(learned.path, image, progress=Silent())[0] for image in images]
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(found, alone, strict=True))  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["png", "csv", "jsonl", "masks", "coco", "voc"])
def test_formats(learned: Run, fields: Path, tmp_path: Path, form: str) -> None:
    images = sorted((fields / "images").glob("00*.png"))
    found = saccade.predict(learned.path, images, out=tmp_path / "o", format=form, progress=Silent())
    if form == "png":
        assert len(list((tmp_path / "o").iterdir())) == len(images)
    elif form == "csv":
        rows = list(csv.DictReader((tmp_path / "o/predictions.csv").open()))
        assert {row["label"] for row in rows} == {"light", "dark"}
        assert sum(int(row["area"]) for row in rows) == sum(int(one.counts[1:].sum()) for one in found)  # type: ignore[union-attr]
    elif form == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "o/predictions.jsonl").read_text().splitlines()]
        assert all(Path(row["mask"]).is_file() for row in rows) and len(rows) == len(images)
    else:
        task = {"masks": "segment", "coco": "instances", "voc": "detect"}[form]
        opened = open_dataset(tmp_path / "o", task=task)
        assert len(opened) == len(images) and {"light", "dark"} <= set(opened.schema.classes)


def test_explain(learned: Run, fields: Path, tmp_path: Path) -> None:
    images = sorted((fields / "images").glob("00*.png"))[:2]
    shown = saccade.explain(learned.path, images, out=tmp_path / "why", target_class="dark", progress=Silent())
    assert len(shown) == 2 and shown[0].map.shape == Image.open(images[0]).size[::-1]
    assert all({"source", "miou", "pixel_accuracy"} == set(row) for row in shown.mistakes)


def test_export_with_proof(learned: Run, fields: Path, tmp_path: Path) -> None:
    exported = learned.export(out=tmp_path / "onnx", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert exported.facts["dynamic"] == ["batch", "height", "width"] and exported.facts["agreement"] > 0.999
    assert saccade.verify(exported.file, fields, progress=Silent()).passed  # type: ignore[arg-type]
    images = sorted((fields / "images").glob("00*.png"))
    one, other = (saccade.predict(target, images, progress=Silent()) for target in (learned.path, exported.file))  # type: ignore[arg-type]
    assert np.mean([first.agreement(second) for first, second in zip(one, other, strict=True)]) > 0.999


def test_the_proof_of_images_of_many_sizes(learned: Run, tmp_path: Path) -> None:
    """More than are tried one by one, the largest last; other sizes are really others."""
    for split, count in (("train", 2), ("val", 19)):
        for kind in ("images", "masks"):
            (tmp_path / "set" / kind / split).mkdir(parents=True)
        for number in range(count):
            shape = (130, 97) if number == 18 else (40 + number, 33)
            Image.fromarray(np.full((*shape, 3), 10 * number, np.uint8)).save(tmp_path / f"set/images/{split}/{number:02d}.png")
            Image.fromarray(np.full(shape, number % 3, np.uint8)).save(tmp_path / f"set/masks/{split}/{number:02d}.png")
    (tmp_path / "set/classes.txt").write_text("background\nlight\ndark\n")
    session, dataset = saccade.load(learned.path).session("fp32"), open_dataset(tmp_path / "set", task="segment")
    places, sizes = dataset.split("val"), [session.card.input.size, (96, 64)]
    kept = reference.answer(session, dataset, places, sizes, Silent())
    assert kept.outputs[sizes[0]]["logits"].shape == (19, 3, 160, 128) and kept.outputs[96, 64]["logits"].shape == (16, 3, 96, 64)
    proof = prove(session, Case(kept, dataset, places, True, 0.5, room("segment").metrics), Silent())
    assert proof.passed, proof.checks
    wrong = kept.outputs[sizes[0]]["logits"].copy()
    wrong[18, 1, 129, 96] += 0.1
    other = replace(kept, outputs={**kept.outputs, sizes[0]: {"logits": wrong}})
    assert not prove(session, Case(other, dataset, places, True, 0.5, room("segment").metrics), Silent()).passed


def test_masks_that_change_are_noticed(fields: Path, tmp_path: Path) -> None:
    data = broken(fields, tmp_path / "set")
    for path in (data / "masks").iterdir():  # files of one size, whatever is in them
        values = np.asarray(Image.open(path))
        path.unlink()
        Image.fromarray(values).save(path.with_suffix(".bmp"))
    with pytest.raises(Interrupted):
        train(data, tmp_path / "r", progress=Stopping(3), epochs=3)
    changed = np.asarray(Image.open(data / "masks/000.bmp")).copy()
    changed[:5] = 2
    Image.fromarray(changed).save(data / "masks/000.bmp")
    with pytest.raises(UserError, match="no longer those that the run was trained on"):
        saccade.train(out=tmp_path / "r", resume=True, progress=Silent())


def test_too_large_to_explain(learned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.core.tiles.WHOLE", 60 * 60)
    with pytest.raises(UserError, match="to be explained at its own, has 10,000"):
        saccade.explain(learned.path, np.zeros((100, 100, 3), np.uint8), progress=Silent())


def test_fitted_and_going_on_to_the_bit(fields: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "set": {"segmentation.native": False, "segmentation.lovasz": 0.5, "segmentation.boundary": 0.1},
        "size": (48, 48),
    }
    whole = train(fields, tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(fields, tmp_path / "r", progress=Stopping(4), **options)
    again = saccade.train(out=tmp_path / "r", resume=True, workers=2, progress=Silent())
    for name in ("best.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    (answer,) = saccade.predict(whole.path, sorted((fields / "images").glob("*.png"))[1], progress=Silent())
    assert answer.size == (48, 80)


def broken(fields: Path, place: Path) -> Path:
    shutil.copytree(fields, place)
    return place


def test_masks_of_another_size(fields: Path, tmp_path: Path) -> None:
    data = broken(fields, tmp_path / "set")
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(data / "masks/003.png")
    with pytest.raises(UserError, match=r"003"):
        train(data, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    run = train(data, tmp_path / "r", skip_bad=True, epochs=1)
    assert run.metrics


def test_a_mask_that_cannot_be_read(fields: Path, tmp_path: Path) -> None:
    data = broken(fields, tmp_path / "set")
    raw = (data / "masks/004.png").read_bytes()
    (data / "masks/004.png").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match=r"004"):
        train(data, tmp_path / "r")


def test_what_is_refused(fields: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean small_unet"):
        train(fields, tmp_path / "r", model="small_unett")
    with pytest.raises(UserError, match="objects are no classes of pixels"):
        labelling.check(Card("instances", ("a",), {}, InputSpec(3, (64, 64), "fit")), "masks")
    with pytest.raises(UserError, match="labels are for what is found"):
        labelling.check(Card("classify", ("a", "b"), {}, InputSpec(3, (64, 64))), "coco")
    with pytest.raises(UserError, match="must be a number for each of 3 classes"):
        train(fields, tmp_path / "r", set={"segmentation.class_weights": [1, 2]})


def test_one_class(fields: Path, tmp_path: Path) -> None:
    data = broken(fields, tmp_path / "set")
    (data / "classes.txt").write_text("background\n")
    for path in (data / "masks").iterdir():
        Image.fromarray(np.zeros(Image.open(path).size[::-1], np.uint8)).save(path)
    with pytest.raises(UserError, match="at least two classes"):
        train(data, tmp_path / "r")


def discs(place: Path, *, white: int = 255, least: int = 2, names: str = "") -> Path:
    """Reddish squares on grey with black and white masks, in images of two sizes; the first `least` have none."""
    draws = np.random.default_rng(3)
    for name in ("images", "masks"):
        (place / name).mkdir(parents=True)
    for number in range(18):
        height, width = ((41, 57), (48, 48))[number % 2]
        pixels = draws.integers(90, 120, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        top, left = draws.integers(0, 20, 2)
        if number >= least:
            mask[top : top + 20, left : left + 20] = white
        pixels[..., 0][mask > 0] += 100
        Image.fromarray(pixels).save(place / f"images/{number:02d}.png")
        Image.fromarray(mask).save(place / f"masks/{number:02d}.png")
    if names:
        (place / "classes.txt").write_text(names)
    return place


def test_black_and_white_masks(tmp_path: Path) -> None:
    """Two classes from masks of 0 and 255: learned, measured, told, and written as a set of the same two classes."""
    data = discs(tmp_path / "set")
    run = train(data, tmp_path / "run", epochs=20, batch=4, size=(32, 32))
    rows = {row["class"]: row for row in saccade.eval(run.path, data, split="val", progress=Silent()).per_class}
    assert set(rows) == {"background", "foreground"} and rows["foreground"]["pixels"] > 0
    assert rows["foreground"]["iou"] > 0.7, rows
    chosen = sorted((data / "images").iterdir())[2:5]
    found: Any = saccade.predict(run.path, chosen, out=tmp_path / "told", format="masks", progress=Silent())
    assert all(one.labels.tolist() == [1, 0] and one.shares["foreground"] < 0.5 for one in found)
    again = open_dataset(tmp_path / "told")
    assert again.schema.classes == ("background", "foreground")
    for place, one in enumerate(found):
        np.testing.assert_array_equal(again[place].target, one.mask)
    named = discs(tmp_path / "named", names="ground\nsquare\n")
    assert saccade.data.stats(named)["classes"]
    np.testing.assert_array_equal(open_dataset(named)[5].target, open_dataset(data)[5].target)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"least": 99}, "has no pixel of any class but background in any image of train"),
        ({"names": "ground\nsquare\nring\n"}, "has no pixel of any class but ground in any image of train"),
        ({"white": 9, "names": "ground\nsquare\n"}, "has no pixel of any class but ground in any image of train"),
    ],
    ids=["nothing", "white of three classes", "a value that stands for nothing"],
)
def test_nothing_to_tell_apart(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = discs(tmp_path / "set", **changes)
    with pytest.raises(UserError, match=words):
        train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = saccade.data.check(data, progress=Silent())
    assert any(one["code"] == "unused-class" and "no pixel in any mask" in one["message"] for one in found["findings"])
