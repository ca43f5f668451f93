"""Classes that overlap: read, trained on, measured, predicted, drawn, written and read again; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.core.class_masks import Packed
from saccade.core.layers import Layers
from saccade.core.progress import Silent
from saccade.data.opening import open_dataset

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish and bluish squares that overlap on grey, a mask for each of both; some images have none of one; read-only."""
    target = tmp_path_factory.mktemp("layers") / "set"
    draws = np.random.default_rng(0)
    for name in ("images", "masks/red", "masks/blue"):
        (target / name).mkdir(parents=True)
    for number in range(30):
        pixels = draws.integers(100, 120, (48, 64, 3)).astype(np.uint8)
        for place, name in ((0, "red"), (2, "blue")):
            top, left = draws.integers(0, 20), draws.integers(0, 30)
            if number % 5 == place:
                continue
            mask = np.zeros((48, 64), np.uint8)
            mask[top : top + 24, left : left + 26] = 255
            pixels[..., place][mask > 0] += 120
            Image.fromarray(mask).save(target / f"masks/{name}/{number:02d}.png")
        Image.fromarray(pixels).save(target / f"images/{number:02d}.png")
    return target


@pytest.fixture(scope="module")
def learned(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "learned"
    return saccade.train(discs, out=out, epochs=16, batch=8, device="cpu", seed=1, progress=Silent())


def test_what_is_read(discs: Path) -> None:
    dataset = open_dataset(discs)
    assert dataset.annotations.format == "layers" and dataset.schema.multi and dataset.schema.classes == ("blue", "red")
    target = dataset[1].target
    red, blue = (np.asarray(Image.open(discs / f"masks/{name}/01.png")) > 0 for name in ("red", "blue"))
    np.testing.assert_array_equal(target, blue * 1 + red * 2)
    assert (target == 3).any() and open_dataset(discs)[0].target.max() == 1  # no red


def test_it_learns(learned: Run, discs: Path) -> None:
    found = saccade.eval(learned.path, progress=Silent())
    assert found.metrics["miou"] is not None and found.metrics["miou"] > 0.85
    assert [row["class"] for row in found.per_class] == ["blue", "red"]
    assert saccade.eval(learned.path, discs, progress=Silent()).metrics == found.metrics
    rows = learned.path / "predictions/val.jsonl"
    assert saccade.eval_predictions(rows, discs, split="val", progress=Silent()).metrics["miou"] == pytest.approx(found.metrics["miou"])
    assert (learned.path / "report.html").stat().st_size > 10_000


def test_predictions(learned: Run, discs: Path, tmp_path: Path) -> None:
    images = sorted((discs / "images").iterdir())[:3]
    found = saccade.predict(learned.path, images, out=tmp_path / "o", progress=Silent())
    written = json.loads((tmp_path / "o/predictions.json").read_text())["results"]
    for one, row in zip(found, written, strict=True):
        assert isinstance(one, Layers) and one.uncertainty is not None and 0 <= one.uncertainty.min() <= one.uncertainty.max() <= 1
        for label, name in enumerate(one.classes):
            np.testing.assert_array_equal(np.asarray(Image.open(row["layers"][name])) > 0, one.layer(label))
        again = Layers.from_dict(row, one.classes)
        np.testing.assert_array_equal(again.mask, one.mask)
    saccade.predict(learned.path, images, out=tmp_path / "p", format="png", progress=Silent())
    assert len(list((tmp_path / "p").iterdir())) == 3
    saccade.predict(learned.path, images, out=tmp_path / "c", format="csv", progress=Silent())
    saccade.predict(learned.path, images, out=tmp_path / "coco", format="coco", progress=Silent())
    again = open_dataset(tmp_path / "coco", task="segment")
    assert again.schema.multi
    np.testing.assert_array_equal(again.relabelled(found[1].classes)[1].target, found[1].mask)  # type: ignore[union-attr]


@pytest.mark.long
def test_exported_with_proof(learned: Run, tmp_path: Path) -> None:
    done = saccade.export(learned.path, to="onnx", out=tmp_path / "e", progress=Silent())
    assert done.passed


@pytest.mark.parametrize("form", ["masks", "parquet"])
def test_one_class_a_pixel_is_refused(learned: Run, discs: Path, tmp_path: Path, form: str) -> None:
    if form == "masks":
        with pytest.raises(UserError, match="one class for each pixel"):
            saccade.predict(learned.path, discs / "images", out=tmp_path / "o", format="masks", progress=Silent())
    with pytest.raises(UserError, match="one class for each pixel, and these overlap"):
        saccade.data.convert(discs, tmp_path / "c", to=form)
    assert not (tmp_path / "o").exists() and not (tmp_path / "c").exists()


def test_other_ways_of_writing_them(discs: Path, tmp_path: Path) -> None:
    saccade.data.convert(discs, tmp_path / "layers", to="layers")
    before, after = open_dataset(discs), open_dataset(tmp_path / "layers")
    assert after.annotations.format == "layers" and after.schema.classes == before.schema.classes
    by_image = tmp_path / "by_image"
    (by_image / "images").mkdir(parents=True)
    (by_image / "classes.txt").write_text("blue\nred\n")
    for path in sorted((discs / "images").iterdir()):
        (by_image / "images" / path.name).write_bytes(path.read_bytes())
        for kind in ("red", "blue"):
            mask = discs / "masks" / kind / path.name
            if mask.exists():
                place = by_image / "masks" / path.stem / f"{kind}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(mask.read_bytes())
    third = open_dataset(by_image)
    for place in range(len(before)):
        np.testing.assert_array_equal(before[place].target, after[place].target)
        np.testing.assert_array_equal(before[place].target, third[place].target)


def test_what_is_refused(learned: Run, discs: Path, tmp_path: Path) -> None:
    for name, value in (("segmentation.multi", False), ("segmentation.lovasz", 1.0)):
        with pytest.raises(UserError) as error:
            saccade.train(discs, out=tmp_path / "run", set={name: value}, progress=Silent())
        assert error.value.where == name and not (tmp_path / "run").exists()
    many = tmp_path / "many"
    (many / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(many / "images/a.png")
    for number in range(8):
        (many / f"masks/c{number}").mkdir(parents=True)
        Image.new("L", (8, 8)).save(many / f"masks/c{number}/a.png")
    with pytest.raises(UserError, match="at most 7, was 8"):
        open_dataset(many)
    flat = tmp_path / "flat"
    for name in ("images", "masks"):
        (flat / name).mkdir(parents=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2).save(flat / name / "a.png")
    (flat / "classes.txt").write_text("blue\nred\n")
    with pytest.raises(UserError, match="do not overlap, those of the model do"):
        saccade.eval(learned.path, flat, progress=Silent())


def test_a_mask_of_another_size(discs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(discs, tmp_path / "s")
    Image.new("L", (9, 9)).save(tmp_path / "s/masks/red/01.png")
    with pytest.raises(UserError, match=r"9x9 .*48x64"):
        saccade.train(tmp_path / "s", out=tmp_path / "run", epochs=1, progress=Silent())


def test_what_it_says() -> None:
    sets = np.array([[0, 1, 3], [2, 2, 3]], np.uint8)
    result = Layers(Packed.of(sets), CLASSES, "x")
    assert result.counts.tolist() == [3, 4] and result.labels.tolist() == [1, 0]
    assert result.summary == "light 66.7 %, dark 50.0 %" and result.shares["dark"] == 0.5
    assert Layers(Packed.of(np.zeros((2, 2), np.uint8)), CLASSES).summary == "nothing"
    found: list[Any] = result.regions()
    assert [(one.label, one.area, one.box) for one in found] == [(0, 3, (1, 0, 3, 2)), (1, 4, (0, 0, 3, 2))]
    instances = result.to_instances()
    np.testing.assert_array_equal(instances.mask(1), result.layer(1))
    result.plot()


def test_answers_of_mirrored_images_too_are_not_the_runs_own(learned: Run) -> None:
    kept = [learned.path / "report.html", learned.path / "predictions/val.jsonl"]
    saccade.eval(learned.path, progress=Silent())
    before = [path.read_bytes() for path in kept]
    found = saccade.eval(learned.path, tta=True, progress=Silent())
    assert found.metrics["miou"] is not None and [path.read_bytes() for path in kept] == before
