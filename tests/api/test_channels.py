"""Training on grey and on transparent images from weights for colours; what it starts from, and every verb on the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade.core.prepare import prepare
from saccade.core.progress import Silent
from saccade.nn import fitting

HERE = Silent()
STILL = {"lr": 0.0, "ema": 0.0, "weight_decay": 0.0}


def folder(place: Path, channels: int) -> Path:
    """Two classes of six images, grey or with transparency."""
    generator = np.random.default_rng(0)
    for shade, name in ((60, "dark"), (190, "light")):
        (place / name).mkdir(parents=True)
        for number in range(6):
            pixels = (generator.integers(-50, 50, (16, 16, channels)) + shade).astype(np.uint8)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(place / name / f"{number}.png")
    return place


def train(data: Path, out: Path, **options: object) -> saccade.Run:
    return saccade.train(data, out=out, epochs=1, batch=4, size=16, workers=0, device="cpu", progress=HERE, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> saccade.Run:
    place = tmp_path_factory.mktemp("colours")
    return train(folder(place / "data", 3), place / "run", model="small_resnet_8px", report=False)


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 4])
def test_from_weights_for_colours(colours: saccade.Run, tmp_path: Path, channels: int) -> None:
    data = folder(tmp_path / "data", channels)
    run = train(data, tmp_path / "run", weights=colours.model, set={**STILL, "channels": channels})
    model, before = saccade.load(run.model, device="cpu"), saccade.load(colours.model, device="cpu")
    assert (model.card.input.channels, len(model.card.input.mean)) == (channels, channels)
    assert (run.path / "report.html").is_file()
    first, learned = (found.module.network.features[0][0].weight for found in (model, before))  # type: ignore[union-attr]
    assert torch.equal(first, fitting.channels(learned, 3, channels))
    assert torch.equal(model.module.network.head.weight, before.module.network.head.weight)  # type: ignore[union-attr]
    if channels == 4:
        ready = prepare(np.full((16, 16, 3), 7, np.uint8), model.card.input)
        assert ready.shape == (4, 16, 16) and (ready[3] == 255).all()
        seen = model.module.normalize(torch.from_numpy(ready[None]))  # type: ignore[union-attr]
        assert not seen[:, 3].any(), "what is opaque is as it was without alpha"


@pytest.mark.long
def test_verbs_on_images_with_transparency(tmp_path: Path) -> None:
    """Trained, measured, predicted, explained and exported."""
    data = folder(tmp_path / "data", 4)
    run = train(data, tmp_path / "run", model="small_resnet_8px", report=False, set={"channels": 4})
    image = next((data / "dark").iterdir())
    assert run.evaluate(device="cpu", progress=HERE).metrics["accuracy"] is not None
    assert saccade.predict(run.path, image, device="cpu", progress=HERE)[0].label in ("dark", "light")  # type: ignore[union-attr]
    assert len(saccade.explain(run.path, image, out=tmp_path / "x", device="cpu", progress=HERE).images) == 1
    assert saccade.export(run.path, to="onnx", progress=HERE).file is not None
