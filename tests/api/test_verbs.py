"""Evaluating, predicting and explaining from Python, on real runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.core.progress import Silent

QUIET = Silent()


def pngs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


# Evaluation


def test_eval_takes_test_and_the_figures_follow_from_the_answers(run: Run) -> None:
    found = saccade.eval(run.path, device="cpu", progress=QUIET)
    assert (found.task, found.split, found.images) == ("classify", "test", 18)
    rows = [json.loads(line) for line in (run.path / "predictions" / "test.jsonl").read_text().splitlines()]
    assert found.metrics["accuracy"] == pytest.approx(np.mean([row["truth"] == row["label"] for row in rows]))
    low, high = found.intervals["accuracy"]
    assert low <= found.metrics["accuracy"] <= high and low < high
    facts = found.to_dict()
    assert set(facts) >= {"task", "metrics", "intervals", "per_class"}
    assert [row["class"] for row in facts["per_class"]] == ["circle", "cross", "ring", "square", "star", "triangle"]
    assert all(row["images"] == 3 for row in facts["per_class"])
    assert "18" in run.report.read_text() and "test" in run.report.read_text()


def test_eval_of_training_images_does_not_become_the_report(run: Run) -> None:
    saccade.eval(run.path, device="cpu", progress=QUIET)
    before = run.report.read_bytes()
    found = saccade.eval(run.path, split="train", device="cpu", progress=QUIET)
    assert (found.split, found.images) == ("train", 84)
    assert run.report.read_bytes() == before


def test_eval_on_another_folder_writes_nothing(run: Run, shapes: Path, place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    by_run = saccade.eval(run.path, shapes / "test", device="cpu", progress=QUIET, split="train")
    by_file = saccade.eval(run.model, shapes / "test", device="cpu", progress=QUIET, split="train")
    assert by_run.to_dict() == by_file.to_dict()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert list(place.iterdir()) == []


def test_eval_with_classes_missing(run: Run, shapes: Path, tmp_path: Path) -> None:
    for name in ("ring", "star"):
        shutil.copytree(shapes / "test" / name, tmp_path / "some" / "test" / name)
    found = saccade.eval(run.model, tmp_path / "some", device="cpu", progress=QUIET)
    rows = {row["class"]: row for row in found.per_class}
    assert (found.images, rows["ring"]["images"], rows["circle"]["images"]) == (6, 3, 0)
    assert rows["circle"]["recall"] is None
    assert found.metrics["f1_macro"] is not None
    json.dumps(found.to_dict(), allow_nan=False)


def test_eval_with_an_unknown_class_is_refused(run: Run, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes / "test", tmp_path / "more" / "test")
    (tmp_path / "more" / "test" / "star").rename(tmp_path / "more" / "test" / "asterisk")
    with pytest.raises(UserError, match="no class 'asterisk'"):
        saccade.eval(run.model, tmp_path / "more", device="cpu", progress=QUIET)


def test_eval_of_a_colour_model_on_grey_images_and_the_other_way(run: Run, shapes: Path, tmp_path: Path) -> None:
    grey = shutil.copytree(shapes, tmp_path / "grey")
    for path in pngs(grey):
        Image.open(path).convert("L").save(path)
    found = saccade.eval(run.model, grey, device="cpu", progress=QUIET)
    assert found.images == 18
    images = pngs(grey / "test")
    answers = saccade.predict(run.model, images, device="cpu", progress=QUIET)
    labels = {f"test/{Path(r.source).relative_to(grey / 'test')}": r.label for r in answers}
    assert {row["source"]: row["label"] for row in found.predictions} == labels, "as prediction sees them"
    of_grey = saccade.train(grey, model="small_resnet_8px", epochs=1, size=16, batch=32, device="cpu", out=tmp_path / "r", progress=QUIET)
    assert of_grey.config.channels == 1
    assert saccade.eval(of_grey.model, shapes, device="cpu", progress=QUIET).images == 18


def test_eval_of_one_image_a_class_measures_them_all(run: Run, shapes: Path, tmp_path: Path) -> None:
    for name in ("ring", "star"):
        (tmp_path / "two" / name).mkdir(parents=True)
        shutil.copy(pngs(shapes / "test" / name)[0], tmp_path / "two" / name)
    found = saccade.eval(run.model, tmp_path / "two", device="cpu", progress=QUIET)
    assert found.images == 2


def test_eval_says_that_the_images_have_changed_since(shapes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shapes, tmp_path / "data")
    run = saccade.train(data, model="small_resnet_8px", epochs=1, size=16, device="cpu", out=tmp_path / "r", progress=QUIET)
    said: list[str] = []

    class Said(Silent):
        def message(self, text: str) -> None:
            said.append(text)

    saccade.eval(run.path, device="cpu", progress=Said())
    assert said == []
    shutil.copy(pngs(data / "train" / "star")[0], data / "train" / "star" / "another.png")
    saccade.eval(run.path, device="cpu", progress=Said())
    assert any("changed" in line for line in said), said


def test_eval_predictions_agrees_with_eval(run: Run, shapes: Path, tmp_path: Path) -> None:
    own = saccade.eval(run.path, device="cpu", progress=QUIET)
    theirs = saccade.eval_predictions(run.path / "predictions" / "test.jsonl", shapes, progress=QUIET)
    assert theirs.metrics == pytest.approx(own.metrics)
    assert theirs.intervals.keys() == own.intervals.keys()
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps({"source": row["source"], "label": row["truth"]}) + "\n" for row in own.predictions))
    perfect = saccade.eval_predictions(labels, shapes, progress=QUIET)
    assert perfect.metrics["accuracy"] == 1 and perfect.metrics["ece"] is None
    labels.write_text(labels.read_text().replace('"star"', '"stern"'))
    with pytest.raises(UserError, match="stern"):
        saccade.eval_predictions(labels, shapes, progress=QUIET)


# Prediction


def test_predict_takes_whatever_a_user_has(run: Run, shapes: Path) -> None:
    import torch

    path = pngs(shapes / "test")[0]
    pixels = np.asarray(Image.open(path))
    inputs = [str(path), path, path.read_bytes(), Image.open(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    answers = saccade.predict(run.path, inputs, device="cpu", progress=QUIET)
    assert len(answers) == 6 and answers.failed == ()
    for answer in answers:
        assert np.array_equal(answer.probabilities, answers[0].probabilities), answer.source
        assert answer.size == (33, 20)
    model = saccade.load(run.path, device="cpu")
    assert saccade.predict(model, pixels, progress=QUIET)[0].label == answers[0].label
    assert len(model.predict(np.stack([pixels, pixels]), progress=QUIET)) == 2


def test_mixed_sizes_in_one_call_answer_as_each_alone(run: Run) -> None:
    generator = np.random.Generator(np.random.Philox(3))
    pictures = [generator.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in ((1, 1), (17, 11), (11, 300), (64, 48))]
    together = run.predict(pictures, progress=QUIET)
    assert [result.size for result in together] == [(1, 1), (17, 11), (11, 300), (64, 48)]
    for picture, result in zip(pictures, together, strict=True):
        assert np.allclose(run.predict(picture, progress=QUIET)[0].probabilities, result.probabilities, atol=1e-6)


def test_results_are_as_the_design_says(run: Run, shapes: Path, tmp_path: Path) -> None:
    answers = run.predict(shapes / "test", progress=QUIET)
    assert [Path(result.source) for result in answers] == pngs(shapes / "test"), "a folder's images, in order"
    facts = answers.to_dict()
    assert set(facts) >= {"results", "failed", "images_per_second"} and facts["images_per_second"] > 0
    for row, result in zip(facts["results"], answers, strict=True):
        assert set(row) >= {"source", "task", "labels", "scores"} and row["task"] == "classify"
        assert row["scores"] == sorted(row["scores"], reverse=True) and sum(row["scores"]) == pytest.approx(1, abs=1e-5)
        assert result.labels.dtype == np.int64 and result.scores.dtype == np.float32
        assert row["labels"][0] == result.label == result.classes[int(np.argmax(result.probabilities))]
    assert json.loads(answers[0].save(tmp_path / "one.json").read_text()) == facts["results"][0]
    assert answers[0].plot().axes


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_each_format_holds_every_answer(run: Run, shapes: Path, tmp_path: Path, form: str) -> None:
    images = pngs(shapes / "test")[:5]
    answers = saccade.predict(run.path, images, out=tmp_path / "new" / "o", format=form, device="cpu", progress=QUIET)
    text = (tmp_path / "new" / "o" / f"predictions.{form}").read_text()
    if form == "csv":
        rows: list[Any] = list(csv.DictReader(io.StringIO(text)))
        assert [float(row["star"]) for row in rows] == pytest.approx([result.probabilities[4] for result in answers], abs=1e-6)
    else:
        rows = json.loads(text)["results"] if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert [row["source"] for row in rows] == [str(path) for path in images]
    assert [row["label"] for row in rows] == [result.label for result in answers]


def test_one_bad_image_among_good_ones(run: Run, shapes: Path, tmp_path: Path) -> None:
    good = pngs(shapes / "test")[:2]
    bad = tmp_path / "bad.png"
    bad.write_bytes(good[0].read_bytes()[:50])
    answers = run.predict([good[1], bad, tmp_path / "gone.png", good[0]], progress=QUIET)
    assert [result.source for result in answers] == [str(good[1]), str(good[0])]
    assert [row["source"] for row in answers.failed] == [str(bad), str(tmp_path / "gone.png")]
    assert "no such file" in answers.failed[1]["reason"]
    with pytest.raises(UserError, match="without --strict"):
        saccade.predict(run.path, [good[0], bad], strict=True, out=tmp_path / "o", device="cpu", progress=QUIET)
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="1 more"):
        run.predict([bad, tmp_path / "gone.png"], progress=QUIET)
    explained = run.explain([bad, good[0]], progress=QUIET)
    assert len(explained) == 1 and [row["source"] for row in explained.failed] == [str(bad)]


@pytest.mark.parametrize(("inputs", "word"), [([], "no images"), ("nothing/*.png", "no such file"), ("https://example.org/a.png", "URL")])
def test_inputs_that_are_none(run: Run, place: Path, inputs: Any, word: str) -> None:
    for verb in (run.predict, run.explain):
        with pytest.raises(UserError, match=word):
            verb(inputs, progress=QUIET)
    assert list(place.iterdir()) == []


def test_methods_take_the_options_of_their_verb(run: Run, shapes: Path, tmp_path: Path) -> None:
    images = pngs(shapes / "test")[:1]
    model = saccade.load(run.path, device="cpu")
    for number, target in enumerate((run, model)):
        out = tmp_path / str(number)
        target.predict(images, out=out, format="csv", strict=True, max_pixels=1000, precision="fp32", progress=QUIET)
        assert (out / "predictions.csv").is_file()
        explained = target.explain(images, out=out, target_class="ring", progress=QUIET)
        assert explained[0].target == "ring" and Path(explained.to_dict()["images"][0]["map"]).parent == out
        assert target.evaluate(shapes, split="val", precision="fp32", seed=1, progress=QUIET).split == "val"
        with pytest.raises(UserError, match="pixels"):
            target.predict(images, max_pixels=100, progress=QUIET)


# Explanation


def test_explain_writes_maps_and_pictures(run: Run, shapes: Path, tmp_path: Path) -> None:
    saccade.eval(run.path, device="cpu", progress=QUIET)
    images = pngs(shapes / "test")[:3]
    found = saccade.explain(run.path, images, out=tmp_path / "e", device="cpu", progress=QUIET)
    facts = found.to_dict()
    assert [row["source"] for row in facts["images"]] == [str(path) for path in images]
    for row, shown in zip(facts["images"], found.images, strict=True):
        values = np.load(row["map"], allow_pickle=False)
        assert values.dtype == np.float32 and values.shape == (33, 20)
        assert np.nanmin(values) >= 0 and np.nanmax(values) <= 1
        assert np.array_equal(values, shown.map, equal_nan=True)
        picture = Image.open(row["picture"])
        assert picture.format == "PNG" and picture.mode == "RGB" and max(picture.size) >= 224
        assert row["target"] == shown.result.label
    wrong = facts["mistakes"]
    assert wrong and all(row["truth"] != row["label"] and row["cause"] for row in wrong)
    assert len(list((tmp_path / "e").iterdir())) == 6
    json.dumps(facts, allow_nan=False)


def test_explain_of_a_run_goes_into_the_run_and_of_an_open_model_nowhere(run: Run, shapes: Path, place: Path) -> None:
    image = pngs(shapes / "test")[0]
    row = run.explain(image, progress=QUIET).to_dict()["images"][0]
    assert Path(row["map"]).parent == run.path / "explanations"
    held = saccade.load(run.path, device="cpu").explain([image], progress=QUIET)
    assert held[0].map.shape == (33, 20)
    assert held.to_dict()["images"][0]["source"] == str(image)
    assert list(place.iterdir()) == []


def test_explain_for_a_class_asked_for(run: Run, shapes: Path) -> None:
    image = pngs(shapes / "test")[0]
    maps = {name: run.explain(image, target_class=name, progress=QUIET)[0] for name in ("ring", "star")}
    assert {name: shown.target for name, shown in maps.items()} == {"ring": "ring", "star": "star"}
    assert not np.array_equal(maps["ring"].map, maps["star"].map, equal_nan=True)
    with pytest.raises(UserError, match="unknown class 'rimg'") as caught:
        run.explain(image, target_class="rimg", progress=QUIET)
    assert "ring" in caught.value.fix


# Things that are no run


def test_targets_that_are_no_model(run: Run, place: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "x.safetensors").write_bytes(b"nothing at all")
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04" + bytes(60))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(run.model.read_bytes()[:-5])
    for target, word in (("gone", "no such"), (empty, "neither"), ("x.safetensors", "safetensors"), ("x.pt", "pickle"), (cut, "")):
        for verb in (saccade.load, saccade.eval, lambda t: saccade.predict(t, "a.png"), lambda t: saccade.explain(t, "a.png")):
            with pytest.raises(UserError, match=word):
                verb(tmp_path / target)
    with pytest.raises(UserError, match=r"run\.json"):
        saccade.load_run(empty)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": {}}', "\x00\x01"])
def test_a_damaged_run_json_is_one_line(run: Run, tmp_path: Path, text: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(run.model, broken / "best.safetensors")
    (broken / "run.json").write_text(text)
    with pytest.raises(UserError):
        saccade.eval(broken, progress=QUIET)
    with pytest.raises(UserError):
        saccade.train(resume=True, out=broken, progress=QUIET)
    assert (broken / "run.json").read_text() == text
