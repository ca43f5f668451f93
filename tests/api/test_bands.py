"""Images of bands through every verb: trained on, measured, predicted, embedded, explained, exported, verified, viewed and checked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

import saccade
import saccade.data
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.sklearn import ImageClassifier

HERE = Silent()
SIZE = (17, 11)


def picture(number: int, label: int, count: int = 5) -> np.ndarray:
    """Noise, but for the last band, which tells the class."""
    values = np.random.default_rng(number).integers(0, 12000, (*SIZE, count)).astype(np.uint16)
    values[..., -1] = (1000, 9000)[label] + values[..., -1] // 12
    return values


def write(file: Path, values: np.ndarray, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig", **options)  # type: ignore[arg-type]


def folder(place: Path, count: int = 5, images: int = 12) -> Path:
    for number in range(images):
        label = number % 2
        write(place / ("dry", "wet")[label] / f"{number}.tif", picture(number, label, count), compression="zlib")
    return place


def train(data: Path, out: Path, **options: object) -> saccade.Run:
    settings: dict[str, object] = {"epochs": 6, "batch": 6, "model": "small_resnet_8px", "workers": 0, "device": "cpu", **options}
    return saccade.train(data, out=out, progress=HERE, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> saccade.Run:
    place = tmp_path_factory.mktemp("bands")
    return train(folder(place / "data", images=24), place / "run")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write(tmp_path / "new.tif", picture(99, 1))
    return tmp_path / "new.tif"


@pytest.mark.long
def test_a_classifier_learns_from_the_last_band(run: saccade.Run, image: Path, tmp_path: Path) -> None:
    model = saccade.load(run.path, device="cpu")
    assert model.card.input.channels == len(model.card.input.mean) == 5  # type: ignore[union-attr]
    reasons = " ".join(run.record["reasons"])
    assert "channels: 5, the bands of the images" in reasons and "hue, saturation and grey copies left out: 5 bands" in reasons
    assert run.evaluate(device="cpu", progress=HERE).metrics["accuracy"] == 1.0
    found = saccade.predict(run.path, [image, picture(98, 0).__rshift__(8).astype(np.uint8)], device="cpu", progress=HERE)
    assert found[0].label == "wet" and "16 bit values as their square roots" in str(found[0].notes)  # type: ignore[union-attr]
    assert np.asarray(saccade.embed(run.path, image, device="cpu", progress=HERE)).shape[0] == 1
    assert saccade.explain(run.path, image, out=tmp_path / "x", device="cpu", progress=HERE)[0].picture.shape[2] == 3
    assert "pictures show the first three of 5 bands" in (run.path / "report.html").read_text("utf-8")


@pytest.mark.long
def test_its_export_answers_the_same(run: saccade.Run, image: Path) -> None:
    exported = saccade.export(run.path, to="onnx", progress=HERE)
    assert exported.passed and exported.file is not None
    assert saccade.verify(exported.file, run.record["data"]["path"], progress=HERE).passed
    assert saccade.predict(exported.file, image, progress=HERE)[0].label == "wet"  # type: ignore[union-attr]


@pytest.mark.long
def test_weights_for_colours_are_fitted_to_bands(tmp_path: Path) -> None:
    from saccade.nn import fitting

    data = folder(tmp_path / "two", count=2, images=8)
    first = train(folder(tmp_path / "eight", count=8, images=8), tmp_path / "first", epochs=1, report=False)
    still = {"lr": 0.0, "ema": 0.0, "weight_decay": 0.0}
    second = train(data, tmp_path / "second", epochs=1, report=False, weights=first.model, set=still, model=None)
    before, after = (saccade.load(one.model, device="cpu").module.network.features[0][0].weight for one in (first, second))  # type: ignore[union-attr]
    assert after.shape[1] == before.shape[1] // 4 and np.allclose(after.detach(), fitting.channels(before, 8, 2).detach())


@pytest.mark.long
def test_pixels_of_bands_are_segmented(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(8):
        values = picture(number, 0, 4)
        mask = np.zeros(SIZE, np.uint8)
        mask[4:12, 3:9] = 1
        values[..., -1] = np.where(mask, 9000, 1000)
        write(tmp_path / "data" / "images" / f"{number}.tif", values)
        (tmp_path / "data" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
    run = train(tmp_path / "data", tmp_path / "run", task="segment", model="small_unet", epochs=2, batch=4)
    assert saccade.load(run.path, device="cpu").card.input.channels == 4  # type: ignore[union-attr]
    found = saccade.predict(run.path, tmp_path / "data" / "images" / "0.tif", device="cpu", progress=HERE, out=tmp_path / "out")
    assert found[0].mask.shape == SIZE  # type: ignore[union-attr]


def test_other_counts_in_the_folder_are_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    write(data / "dry" / "odd.tif", picture(3, 0, 8))
    (data / "wet" / "hurt.tif").write_bytes((data / "wet" / "1.tif").read_bytes()[:-300])
    with pytest.raises(UserError) as caught:
        train(data, tmp_path / "run")
    said = str(caught.value)
    assert re.search(r"odd\.tif.*must have 5 channels, has 8", said) and re.search(r"hurt\.tif.*damaged or cut short", said)
    assert not (tmp_path / "run").exists()


def test_channels_that_the_images_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="holds 5 channels, and a picture is needed here, grey or RGB: only a model with channels=5 takes it"
    ):
        train(folder(tmp_path / "data"), tmp_path / "run", set={"channels": 3})


def test_making_more_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generate takes images of 1, 3 or 4 channels, got 5 .*bands are for classify and segment"):
        train(folder(tmp_path / "data", images=64), tmp_path / "run", task="generate", model="vae", size=16)


def test_the_verbs_of_data(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    assert not [one for one in saccade.data.check(data, progress=HERE)["findings"] if one["severity"] == "error"]
    write(data / "dry" / "odd.tif", picture(3, 0, 8))
    assert any("8 channels" in one["message"] for one in saccade.data.check(data, progress=HERE)["findings"])
    assert saccade.data.view(data, out=tmp_path / "view", progress=HERE)["images"] == 13
    assert "data:image/jpeg" in (tmp_path / "view" / "pages" / "1.js").read_text("ascii")
    assert saccade.data.stats(data, progress=HERE)["sizes"]["common"] == [{"size": "17x11", "images": 13}]


@pytest.mark.long
def test_arrays_of_bands_in_scikit_learn() -> None:
    pixels = np.stack([np.sqrt(picture(number, number % 2)).astype(np.uint8) for number in range(12)])
    y = np.array(["dry", "wet"] * 6)
    fitted = ImageClassifier(model="small_resnet_8px", epochs=1, device="cpu").fit(pixels, y)
    assert fitted.model_.card.input.channels == 5 and fitted.predict(pixels).shape == (12,)
