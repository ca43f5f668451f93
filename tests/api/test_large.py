"""Large images from the command line: read by rows, answered for in tiles, written by rows; how much memory they take; masks as truths."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import saccade
from saccade import UserError
from saccade.core import modelfile, tiles
from saccade.core.config import SegmentationConfig, TrainConfig
from saccade.core.progress import Silent
from saccade.core.segmentation import Segmentation
from saccade.data.sample import Schema
from saccade.nn import weights
from saccade.tasks import room

CLASSES = ("background", "light", "dark")
PEAK = (
    "import os, subprocess, sys; done = subprocess.Popen(sys.argv[1:]); _, code, used = os.wait4(done.pid, 0); print(code, used.ru_maxrss)"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of random weights, at the images' own pixels."""
    torch.manual_seed(0)
    schema = Schema("segment", CLASSES, {"train": (0, 0, 0)}, 3, (64, 64), True)
    config = TrainConfig(task="segment", model="small_unet", size=(64, 64), segmentation=SegmentationConfig(native=True))
    module, card = room("segment").create(config, schema)
    return modelfile.save(tmp_path_factory.mktemp("model") / "m.safetensors", weights.to_buffers(module), card)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TILE", 128), ("OVERLAP", 64), ("WHOLE", 100 * 100)):
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr("saccade.core.strips.BAND", 5000)
    monkeypatch.setattr("saccade.core.class_masks.BAND", 3000)
    monkeypatch.setattr("saccade.core.class_masks.DRAWN", 1000)


def scene(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """The same picture as PNG, as a TIFF of tiles and as one of strips."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = scene(301, 203)
    Image.fromarray(pixels).save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", pixels, photometric="rgb", tile=(32, 48), compression="zlib", bigtiff=True)
    tifffile.imwrite(folder / "c.tif", pixels, photometric="rgb", rowsperstrip=7)
    return sorted(folder.iterdir())


@pytest.mark.usefixtures("small")
def test_the_same_answers_whatever_the_file(model: Path, three: list[Path], tmp_path: Path) -> None:
    found = saccade.predict(model, [*three, scene(301, 203)], out=tmp_path / "o", progress=Silent())
    first = found[0]
    assert isinstance(first, Segmentation) and first.size == (301, 203) and len(np.unique(first.mask)) > 1
    for one in found:
        assert isinstance(one, Segmentation) and one.uncertainty is not None and first.uncertainty is not None
        np.testing.assert_array_equal(one.mask, first.mask)
        np.testing.assert_array_equal(one.uncertainty, first.uncertainty)
        np.testing.assert_array_equal(np.asarray(Image.open(one.file)), first.mask)
    doubts = sorted((tmp_path / "o/uncertainty").iterdir())
    np.testing.assert_allclose(np.asarray(Image.open(doubts[1])) / 255, first.uncertainty, atol=1e-6)


@pytest.mark.usefixtures("small")
def test_formats(model: Path, three: list[Path], tmp_path: Path) -> None:
    saccade.predict(model, three, out=tmp_path / "png", format="png", progress=Silent())
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "png").iterdir())]
    assert len(pictures) == 3 and max(pictures[0].shape[:2]) < 500 and all((one == pictures[0]).all() for one in pictures)
    found = saccade.predict(model, three, out=tmp_path / "csv", format="csv", progress=Silent())
    rows = list(csv.DictReader((tmp_path / "csv/predictions.csv").open()))
    first = found[0]
    assert isinstance(first, Segmentation)
    assert sum(int(row["area"]) for row in rows) == 3 * int(first.counts[1:].sum())


@pytest.mark.usefixtures("small")
def test_damage_in_the_middle_is_reported_and_the_rest_goes_on(model: Path, three: list[Path]) -> None:
    for path, share in ((three[0], 0.5), (three[2], 0.7)):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    found = saccade.predict(model, three, progress=Silent())
    assert len(found) == 1 and [Path(row["source"]).name for row in found.failed] == ["a.png", "c.tif"]
    assert all("damaged or cut short" in row["reason"] for row in found.failed)


def test_too_many_pixels_are_refused(model: Path, three: list[Path]) -> None:
    with pytest.raises(UserError, match=r"at most 1,000 pixels, but has 61,103 .*--max-pixels"):
        saccade.predict(model, three, max_pixels=1000, progress=Silent())


def test_masks_as_truths(model: Path, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(scene(64, 96)).save(tmp_path / "images/a.png")
    Image.fromarray(np.arange(64 * 96, dtype=np.uint32).reshape(64, 96).astype(np.uint8) % 3).save(tmp_path / "masks/a.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    plain = saccade.eval(model, tmp_path, max_pixels=64 * 96, progress=Silent())
    assert plain.images == 1
    mirrored = saccade.load(model).evaluate(tmp_path, tta=True, progress=Silent())
    assert mirrored.images == 1 and mirrored.metrics != plain.metrics
    with pytest.raises(UserError, match="at most 6,143 pixels"):
        saccade.eval(model, tmp_path, max_pixels=64 * 96 - 1, progress=Silent())


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif("SACCADE_LARGE_IMAGES" not in os.environ, reason="some twenty minutes: set SACCADE_LARGE_IMAGES=1")
@pytest.mark.parametrize("form", ["png", "tif", "big.tif"])
def test_twenty_thousand_pixels_square(model: Path, tmp_path: Path, form: str) -> None:
    """400 million pixels: the process takes less than twice the bytes that they have."""
    side, path = 20_000, tmp_path / f"large.{form}"
    pixels = np.memmap(tmp_path / "raw", np.uint8, "w+", shape=(side, side, 3))
    pixels[4000:9000, 2000:18000] = (200, 30, 90)
    if form == "png":
        Image.MAX_IMAGE_PIXELS = None
        Image.fromarray(pixels).save(path, compress_level=1)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(512, 512) if form != "tif" else None, bigtiff=form != "tif")
    command = [sys.executable, "-m", "saccade", "predict", str(model), str(path), "--max-pixels", str(side**2), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command, "--out", str(tmp_path / "o")], capture_output=True, text=True, check=True, env=os.environ
    )
    code, peak = map(int, done.stdout.splitlines()[-1].split())
    (answer,) = json.loads(re.sub(r"\n\d+ \d+\n$", "", done.stdout))["results"]
    assert code == 0 and answer["size"] == [side, side]
    assert peak * 1024 < 2 * side * side * 3, f"{peak * 1024 / side**2 / 3:.2f} times its bytes"


def test_geojson_and_mirrored_views(model: Path, tmp_path: Path) -> None:
    tags = [(33550, 12, 3, (2.0, 2.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 9000.0, 0.0), True)]
    keys = (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True)
    tifffile.imwrite(tmp_path / "a.tif", scene(40, 56), photometric="rgb", extratags=[*tags, keys])
    tifffile.imwrite(tmp_path / "b.tif", scene(40, 56), photometric="rgb")
    found = saccade.predict(model, tmp_path / "a.tif", out=tmp_path / "o", format="geojson", tta=True, progress=Silent())
    (file,) = (tmp_path / "o").iterdir()
    collection = json.loads(file.read_text())
    (answer,) = found
    assert isinstance(answer, Segmentation) and len(collection["features"]) == len(answer.regions())
    assert sum(one["properties"]["area"] for one in collection["features"]) == int(answer.counts[1:].sum())
    x, y = np.concatenate([ring for one in collection["features"] for ring in one["geometry"]["coordinates"]]).T
    assert x.min() >= 1000 and x.max() <= 1000 + 2 * 56 and y.max() <= 9000 and y.min() >= 9000 - 2 * 40
    plain = saccade.predict(model, tmp_path / "a.tif", progress=Silent())[0]
    assert isinstance(plain, Segmentation) and not np.array_equal(plain.uncertainty, answer.uncertainty)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not georeferenced") as error:
        saccade.predict(model, [tmp_path / "a.tif", tmp_path / "b.tif"], out=tmp_path / "p", format="geojson", progress=Silent())
    assert error.value.where == str(tmp_path / "b.tif") and not (tmp_path / "p").exists()
    with pytest.raises(UserError, match="need a folder"):
        saccade.predict(model, tmp_path / "a.tif", format="geojson", progress=Silent())
