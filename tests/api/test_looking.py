"""How objects are looked for, chosen by whoever asks: ways to suppress doubles, tiles, several looks; in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from prediction.test_views import CARD, SMALL, Oracle, picture
from saccade import UserError
from saccade.api import evaluating
from saccade.api.models import Predictor
from saccade.cli.main import main
from saccade.core import config as configs
from saccade.core.card import Card
from saccade.core.progress import Silent
from saccade.data.annotations import Object, Picture
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.data.sample import Schema
from saccade.prediction.views import Looks
from saccade.task import Budget
from saccade.tasks import answering


@dataclass(frozen=True)
class Finder(Predictor):
    def session(self, precision: str = "auto", *, streams: int = 1) -> Any:
        return Oracle(self.card)


FINDER = Finder(CARD, Path("oracle"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four large images with the same small objects, in COCO's format, class 7."""
    root = tmp_path_factory.mktemp("large")
    (root / "val").mkdir()
    images, rows = [], []
    for number in range(4):
        Image.fromarray(picture((384, 400), *SMALL).pixels).save(root / f"val/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 384, "width": 400})
        for left, top, right, bottom in SMALL:
            box = [left, top, right - left, bottom - top]
            rows.append({"id": len(rows), "image_id": number, "category_id": 7, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    content = {"images": images, "annotations": rows, "categories": [{"id": 7, "name": "red"}]}
    (root / "annotations").mkdir()
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    return root


def test_tiles_find_what_is_small(scenes: Path, tmp_path: Path) -> None:
    plain = saccade.predict(FINDER, scenes / "val", progress=Silent())
    assert [len(one) for one in plain] == [0, 0, 0, 0]  # type: ignore[arg-type]
    tiled = saccade.predict(FINDER, scenes / "val", tile=128, out=tmp_path / "o", progress=Silent())
    assert [len(one) for one in tiled] == [5, 5, 5, 5]  # type: ignore[arg-type]
    assert [one.to_dict() for one in FINDER.predict_each(scenes / "val", tile=128)] == [one.to_dict() for one in tiled]
    (bad := tmp_path / "bad.png").write_bytes(b"none")
    mixed = saccade.predict(FINDER, [bad, scenes / "val/0.png"], tile=128, tta=True, progress=Silent())
    assert len(mixed) == 1 and mixed.failed[0]["source"] == str(bad)


def test_what_is_measured_is_what_is_predicted(scenes: Path) -> None:
    assert FINDER.evaluate(scenes, split="val", progress=Silent()).metrics["map"] == 0
    tiled = FINDER.evaluate(scenes, split="val", tile=128, progress=Silent())
    assert tiled.metrics["map"] == pytest.approx(1) and tiled.images == 4
    assert tiled.predictions[0]["category_ids"] == [7] * 5
    assert FINDER.evaluate(scenes, split="val", tile=128, tta=True, nms="soft", progress=Silent()).metrics["map_50"] > 0.9  # type: ignore[operator]


def test_large_and_broken_images_when_measured(scenes: Path, tmp_path: Path) -> None:
    """As without tiles: --max-pixels holds, and what cannot be read is at fault unless it may be left out."""
    with pytest.raises(UserError, match="has 153,600"):
        FINDER.evaluate(scenes, split="val", tile=128, max_pixels=100_000, progress=Silent())
    shutil.copytree(scenes, tmp_path / "set")
    (tmp_path / "set/val/2.png").write_bytes(b"none")
    dataset = open_dataset(tmp_path / "set")
    with pytest.raises(UserError, match=r"val/2\.png"):
        evaluating._measure(FINDER, dataset, "val", "auto", 0, Silent(), looks=Looks(128))
    left = evaluating._measure(FINDER, dataset, "val", "auto", 0, Silent(), looks=Looks(128), skip_bad=True)
    assert left.images == 3 and left.metrics["map"] == pytest.approx(1)


def test_truths_that_cannot_be_read_when_measured(scenes: Path, tmp_path: Path) -> None:
    """A mask in a file of its own is read as its image has been looked at: at fault, too, unless it may be left out."""
    shutil.copytree(scenes, tmp_path / "set")
    (tmp_path / "set/bad.png").write_bytes(b"none")
    dataset = open_dataset(tmp_path / "set")
    bad = (Object(0, shape=Picture("bad.png")),)
    items = tuple(replace(item, objects=bad) if item.path == "val/2.png" else item for item in dataset.annotations.items)
    broken = Dataset.of(replace(dataset.annotations, items=items))
    with pytest.raises(UserError, match=r"bad\.png"):
        evaluating._measure(FINDER, broken, "val", "auto", 0, Silent(), looks=Looks(128))
    left = evaluating._measure(FINDER, broken, "val", "auto", 0, Silent(), looks=Looks(128), skip_bad=True)
    assert left.images == 3 and left.metrics["map"] == pytest.approx(1)


@pytest.mark.parametrize("tile", [0, 128])
def test_images_that_are_turned_by_exif(tile: int, tmp_path: Path) -> None:
    """Boxes lie in the pixels of the image as it is shown, whichever of the eight ways it is stored."""
    boxes = [(40, 30, 90, 110), (200, 150, 260, 190)]
    upright = Image.fromarray(picture((240, 300), *boxes).pixels)
    ways = [None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    for number, way in enumerate(ways[1:], 1):
        stored = upright.transpose(Image.Transpose[way]) if way else upright
        exif = Image.Exif()
        exif[0x0112] = number
        stored.save(tmp_path / f"{number}.png", exif=exif)
    for one in saccade.predict(FINDER, tmp_path, tile=tile, progress=Silent()):
        assert one.size == (240, 300) and len(one) == 2  # type: ignore[arg-type]
        found = one.boxes[one.boxes[:, 0].argsort()]  # type: ignore[union-attr]
        assert np.abs(found - boxes).max() <= 4, one.source


def test_requests_that_cannot_be(scenes: Path) -> None:
    other = Finder(Card("classify", ("a", "b"), {}, CARD.input), Path("other"))
    for asked in ({"nms": "soft"}, {"tile": 128}, {"tta": True}):
        with pytest.raises(UserError, match=r"this (one|model) is for classify"):
            saccade.predict(other, scenes / "val", progress=Silent(), **asked)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown way to suppress doubles 'hard'"):
        saccade.predict(FINDER, scenes / "val", nms="hard", progress=Silent())
    with pytest.raises(UserError, match="must have a side of 64 pixels"):
        FINDER.evaluate(scenes, split="val", tile=5, progress=Silent())


def test_on_the_command_line(scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("predicting", "models"):
        monkeypatch.setattr(f"saccade.api.{module}.load", lambda target, device: FINDER)
    image = str(scenes / "val/0.png")
    assert main(["predict", "m", image, "--tile", "128", "--nms", "soft", "--tta", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["count"] == 5
    assert main(["eval", "m", str(scenes), "--split", "val", "--tile", "128", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["map"] == pytest.approx(1)
    assert main(["predict", "m", image, "--tile", "20"]) == 2
    assert main(["predict", "m", image, "--nms", "hard"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("task", "model", "own"),
    [
        ("detect", "small_detector", None),
        ("instances", "small_instances", None),
        pytest.param("detect", "rtdetr_v2_r18", False, marks=pytest.mark.slow),
    ],
)
def test_the_way_is_stored_in_the_card(task: str, model: str, own: object) -> None:
    if own is False:
        pytest.importorskip("transformers")
    room, schema = answering(task, "test"), Schema(task, ("a", "b"), {"train": (9, 9)}, 3, (64, 64), True, {"train": 9}, ids=(3, 90))
    config, _ = room.recipe(schema, "cpu", Budget(model=model, size=(64, 64), epochs=1))
    _, card = room.create(config, schema)
    assert card.architecture.get("nms") is own and card.ids == (3, 90)
    module, soft = room.create(configs.override(config, {"objects.nms": "soft"}), schema)
    assert soft.architecture["nms"] == "soft"
    again = room.build(Card.from_json(soft.to_json()))
    assert {name: np.shape(value) for name, value in again.state_dict().items()} == {
        name: np.shape(value) for name, value in module.state_dict().items()
    }
