"""Objects with masks from Python: train, measure, predict, explain, export, verify, resume, the report; overlapping masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.core.errors import Interrupted
from saccade.core.progress import Silent
from saccade.core.results import Instances
from saccade.data.opening import open_dataset
from saccade.objects import library, pyramid
from small_jobs import Stopping, one_thread  # noqa: F401


def train(data: Path, out: Path, **options: Any) -> Run:
    return saccade.train(data, out=out, **{"epochs": 2, "batch": 8, "device": "cpu", "seed": 1, "progress": Silent(), **options})


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA images of three shapes with light and dark discs, of which some overlap, a mask picture for each; read-only."""
    target = tmp_path_factory.mktemp("cells") / "set"
    draws = np.random.default_rng(0)
    for number in range(36):
        height, width = ((64, 64), (48, 80), (90, 60))[number % 3]
        folder = target / f"{number:03d}"
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        pixels = np.full((height, width, 4), 255, np.uint8)
        pixels[..., :3] = draws.integers(20, 50, (height, width, 3))
        down, across = np.mgrid[0:height, 0:width] + 0.5
        x, y = draws.uniform(14, width - 14), draws.uniform(14, height - 14)
        for k in range(1 + number % 2):  # the second overlaps the first: both masks hold what they share
            disc = np.hypot(across - x - 9 * k, down - y) < 9
            pixels[disc, :3] = 200 - 40 * k
            Image.fromarray(disc.astype(np.uint8) * 255).save(folder / f"masks/{k}.png")
        Image.fromarray(pixels).save(folder / f"images/{number:03d}.png")
    return target


@pytest.fixture(scope="session")
def learned(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Enough passes to find the discs; read-only but for what verbs write into a run."""
    return train(cells, tmp_path_factory.mktemp("runs") / "learned", epochs=30)


def test_it_learns_masks(learned: Run, cells: Path, page: Any) -> None:
    facts = learned.to_dict()
    assert facts["task"] == "instances"
    assert facts["metrics"]["map_50"] > 0.6, facts["metrics"]
    rows = [json.loads(line) for line in (learned.path / "predictions/val.jsonl").read_text().splitlines()]
    assert all(set(row) == {"source", "size", "boxes", "labels", "scores", "masks", "truth"} for row in rows)
    assert all(len(row["masks"]) == len(row["boxes"]) and len(row["truth"]["masks"]) == len(row["truth"]["boxes"]) for row in rows)
    html = learned.report.read_text()
    assert page(html).faults == []
    assert "instance segmentation" in html and "What it finds" in html
    dataset = open_dataset(cells)
    indices = dataset.split("train").tolist()
    truths = [dataset.target(index, dataset.size(index)) for index in indices]
    assert all(len(truth.masks) == len(truth.labels) for truth in truths)
    answers: list[Any] = saccade.predict(learned.path, [cells / dataset.paths[index] for index in indices], progress=Silent())
    assert sum(map(len, answers)) > sum(len(truth.masks) for truth in truths) / 2, "above the threshold, which seven images chose"
    for index, answer in zip(indices, answers, strict=True):
        assert isinstance(answer, Instances) and answer.size == dataset.size(index)
        assert all(answer.mask(place).shape == answer.size for place in range(len(answer)))


def test_the_other_verbs(learned: Run, cells: Path, tmp_path: Path) -> None:
    images = sorted(cells.glob("00*/images/*.png"))
    found = saccade.predict(learned.path, images, out=tmp_path / "json", progress=Silent())
    written = json.loads((tmp_path / "json/predictions.json").read_text())["results"]
    assert [one["masks"] for one in written] == [[mask.counts.decode() for mask in one.masks] for one in found]  # type: ignore[union-attr]
    saccade.predict(learned.path, images, out=tmp_path / "png", format="png", progress=Silent())
    assert len(list((tmp_path / "png").iterdir())) == len(images)
    shown = saccade.explain(learned.path, images[:1], out=tmp_path / "why", target_class="object", progress=Silent())
    assert len(shown) == 1 and shown.mistakes is not None


def test_export_with_proof(learned: Run, cells: Path, tmp_path: Path) -> None:
    exported = learned.export(out=tmp_path / "onnx", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert exported.facts["dynamic"] == ["batch", "height", "width"] and exported.facts["agreement"] > 0.95
    assert saccade.verify(exported.file, cells, progress=Silent()).passed  # type: ignore[arg-type]
    images = sorted(cells.glob("00*/images/*.png"))
    one, other = (saccade.predict(target, images, progress=Silent()) for target in (learned.path, exported.file))  # type: ignore[arg-type]
    assert np.mean([first.agreement(second) for first, second in zip(one, other, strict=True)]) > 0.95


def test_pasted_objects_and_going_on_to_the_bit(cells: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"set": {"augment.paste": 0.5}, "size": (48, 48)}
    whole = train(cells, tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(cells, tmp_path / "r", progress=Stopping(4), **options)
    again = saccade.train(out=tmp_path / "r", resume=True, workers=2, progress=Silent())
    for name in ("best.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.long
def test_torchvisions_network_goes_through_the_same_verbs(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, stopped and gone on with to the bit, measured, asked and explained; narrow, and of few boxes, so that it takes seconds."""
    whole_network = library._network

    def light(name: str, classes: int) -> Any:
        network: Any = whole_network(name, classes)
        network.roi_heads.fg_bg_sampler.batch_size_per_image = 16
        return network

    monkeypatch.setattr(library, "_network", light)
    monkeypatch.setattr(pyramid, "WIDTH", 16)
    monkeypatch.setattr(library, "MOST", 8)
    options: dict[str, Any] = {"model": "maskrcnn/mobilenetv3_small_050", "epochs": 1, "batch": 3, "size": (64, 64)}
    for folder in sorted(cells.glob("00*")):
        shutil.copytree(folder, tmp_path / "few" / folder.name)
    whole = train(tmp_path / "few", tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "few", tmp_path / "r", progress=Stopping(1), **options)
    again = saccade.train(out=tmp_path / "r", resume=True, workers=2, progress=Silent())
    for name in ("best.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    figures = saccade.eval(whole.path, tmp_path / "few", progress=Silent()).to_dict()["metrics"]
    assert figures["map_50"] is not None
    images = sorted(cells.glob("000/images/*.png"))
    found = saccade.predict(whole.path, images, progress=Silent())
    assert [type(one) for one in found] == [Instances]
    shown = saccade.explain(whole.path, images, out=tmp_path / "why", target_class="object", progress=Silent())
    assert len(shown) == 1


def test_what_is_refused(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean small_instances"):
        train(cells, tmp_path / "r", model="small_instance")
    with pytest.raises(UserError, match="unknown model 'small_detector'"):
        train(cells, tmp_path / "r", model="small_detector")
    assert not (tmp_path / "r").exists()
