"""A run that tells three colours apart without a mistake, and its exports for every target and precision."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import saccade
from saccade.api import exporting as verb
from saccade.core.progress import Silent
from saccade.evaluation import comparison
from saccade.exporting import onnx as onnx_target
from saccade.exporting.graph import Graph

# Nothing is sent to anybody while the tests run; that saccade itself sees to it, tests/api/test_export.py shows in a process of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

COLOURS = {'<b a="1">&\'\n': (40, 60, 220), "green 猫": (50, 200, 60), "rot & weiß 🙂": (220, 50, 40)}
SIZES = ((17, 11), (33, 20), (24, 24), (9, 40), (11, 17))
SIZE = (17, 11)  # (height, width): odd, not square

Built = tuple[onnx.ModelProto, Sequence[str]]


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images are cached for this session; one thread, since these networks are tiny; nobody reads latencies and intervals here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(verb, "ROUNDS", 1)
        patch.setattr(comparison, "RESAMPLES", 100)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with hostile names: 8 images each to train on, 7 to validate on, of odd and mixed sizes; read-only."""
    target, generator = tmp_path_factory.mktemp("data") / "colours", np.random.Generator(np.random.Philox(0))
    for split, count in (("train", 8), ("val", 7)):
        for name, colour in COLOURS.items():
            (target / split / name).mkdir(parents=True)
            for number in range(count):
                noise = generator.integers(-30, 30, (*SIZES[number % len(SIZES)], 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(target / split / name / f"{number}.png")
    return target


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> saccade.Run:
    """Trained for seconds, and right on every image; read-only."""
    out = tmp_path_factory.mktemp("runs") / "colours"
    options = {"model": "small_resnet_8px", "size": SIZE, "batch": 8, "workers": 0, "device": "cpu", "precision": "fp32", "seed": 1}
    made = saccade.train(data, **options, epochs=8, out=out, progress=Silent())
    assert made.metrics["accuracy"] == 1
    return made


@pytest.fixture(scope="session")
def real_build() -> Callable[[Graph], Built]:
    """torch's exporter itself, whatever a test has put in its place."""
    return onnx_target.build


@pytest.fixture(scope="session")
def build(real_build: Callable[[Graph], Built]) -> Callable[[Graph], Built]:
    """The same, run once for each network: it takes most of an export's seconds."""
    kept: dict[str, Built] = {}

    def once(graph: Graph) -> Built:
        digest = hashlib.sha256(repr((graph.card.architecture, graph.sample.shape)).encode())
        for name, value in sorted(graph.module.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        key = digest.hexdigest()
        if key not in kept:
            kept[key] = real_build(graph)
        model, dynamic = kept[key]
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, dynamic

    return once


@pytest.fixture
def built(build: Callable[[Graph], Built], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of one network in this session share what torch's exporter made of it."""
    monkeypatch.setattr(onnx_target, "build", build)


@pytest.fixture(scope="session")
def exports(run: saccade.Run, build: Callable[[Graph], Built], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnx-fp32, onnx-fp16, openvino-fp32 and openvino-fp16, all good; read-only."""
    place = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_target, "build", build)
        for to in ("onnx", "openvino"):
            for precision in ("fp32", "fp16"):
                found = saccade.export(run.path, to=to, precision=precision, out=place / f"{to}-{precision}", progress=Silent())
                assert found.passed, found.facts["checks"]
    return place


@pytest.fixture
def export_copy(exports: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`export_copy("onnx-fp32")` -> a copy of that export's folder, to be changed."""
    return lambda name: shutil.copytree(exports / name, tmp_path / "copies" / name)
