"""A malicious pickle in every place that a verb reads from: refused in one line, or passed over; it never runs, here or in a child.

What is hostile in other ways has tests beside what reads it: `test_hostile_models.py`, `tests/core/test_modelfile.py`,
`tests/nn/test_unpickling.py`, `tests/prediction/test_onnx_file.py` (files beside a graph), `tests/evaluation/test_reference.py`.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import guard
from faults.commands import make_data
from faults.test_hostile_models import seal
from saccade.api import judging
from saccade.cli.main import main
from saccade.core.errors import UserError
from small_jobs import one_thread  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]  # pickled weights are opened in a child

Captured = pytest.CaptureFixture[str]
Make = Callable[[Path], None]
TINY = ("--model", "small_resnet_8px", "--size", "16", "--batch", "8", "--epochs", "1", "--device", "cpu", "--seed", "1", "--workers", "0")


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def plain(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(OWNED)))


def of_torch(path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(2)}, "args": Bomb(OWNED)}, path)


def of_old_torch(path: Path) -> None:
    torch.save({"w": torch.zeros(2), "args": Bomb(OWNED)}, path, _use_new_zipfile_serialization=False)


def of_numpy(path: Path) -> None:
    data = io.BytesIO()
    np.save(data, np.array([Bomb(OWNED)], object), allow_pickle=True)
    path.write_bytes(data.getvalue())


KINDS: dict[str, Make] = {"plain": plain, "of torch": of_torch, "of old torch": of_old_torch, "of NumPy": of_numpy}
OWNED = Path("owned")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, and a run/ of three steps on it."""
    place = tmp_path_factory.mktemp("finished")
    make_data(place / "data", count=20)
    with pytest.MonkeyPatch.context() as patch, guard.GUARD.allow("processes"):
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setattr("saccade.api.reporting.write_report", lambda *args, **kwargs: None)
        assert main(["train", str(place / "data"), *TINY, "--out", str(place / "run"), "--quiet"]) == 0
    return place


@pytest.fixture
def here(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own copy, as the place to work in; nothing may have run when the test is done."""
    for name in ("data", "run", "cache"):
        shutil.copytree(finished / name, tmp_path / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("saccade.api.reporting.write_report", lambda *args, **kwargs: None)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not OWNED.exists(), "it ran"


def refused(capsys: Captured, *argv: str) -> str:
    capsys.readouterr()
    code = main([*argv, "--quiet"])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


def test_the_bombs_work(here: Path) -> None:
    """Else nothing below would mean anything."""
    for number, make in enumerate(KINDS.values()):
        make(here / f"{number}.pt")
    with guard.GUARD.allow("unpickling"):
        for number, load in enumerate((pickle.loads, _torch, _torch, _numpy)):
            load((here / f"{number}.pt").read_bytes())
            OWNED.rmdir()


def _torch(data: bytes) -> None:
    torch.load(io.BytesIO(data), weights_only=False)


def _numpy(data: bytes) -> None:
    np.load(io.BytesIO(data), allow_pickle=True)


PICTURE = "data/red/1.png"
OF_MODELS = {
    "predict": ("predict", "{}", PICTURE),
    "eval": ("eval", "{}", "data"),
    "explain": ("explain", "{}", PICTURE, "--out", "x"),
    "embed": ("embed", "{}", PICTURE, "--out", "x.npz"),
    "edit": ("edit", "{}", "set-classes +owl", "--out", "x.safetensors"),
    "export": ("export", "{}", "--to", "onnx", "--data", "data"),
    "bench": ("bench", "{}", "--data", "data"),
    "generate": ("generate", "{}", "--out", "x"),
    "models": ("models", "{}"),
    "verify": ("verify", "{}", "data"),
    "data check": ("data", "check", "data", "--run", "{}"),
    "train on features": ("train", "data", "--task", "generate", "--set", "generation.features={}", "--out", "x"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", OF_MODELS)
def test_as_a_model(here: Path, capsys: Captured, verb: str, kind: str) -> None:
    KINDS[kind](here / "m.safetensors")
    assert "m.safetensors" in refused(capsys, *(word.format("m.safetensors") for word in OF_MODELS[verb]))


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "m.pt2", "m.pt"])
def test_as_an_exported_model(here: Path, capsys: Captured, name: str) -> None:
    plain(here / name)
    refused(capsys, "predict", name, PICTURE)


@pytest.mark.parametrize("kind", ["of torch", "of old torch", "plain"])
@pytest.mark.parametrize(
    "argv",
    [
        ("train", "data", *TINY, "--out", "x", "--weights", "w.pth"),
        ("train", "data", *TINY, "--out", "x", "--weights", "w.pth", "--license", "mit"),
        ("adopt", "w.pth", "--model", "small_resnet_8px", "--out", "x.safetensors"),
        ("embed", "small_resnet_8px", PICTURE, "--out", "x.npz", "--weights", "w.pth"),
    ],
    ids=["train", "under a licence", "adopt", "embed"],
)
def test_as_weights(here: Path, capsys: Captured, argv: tuple[str, ...], kind: str) -> None:
    KINDS[kind](here / "w.pth")
    refused(capsys, *argv)
    assert not (here / "x").exists() and not list(here.glob("x.*"))


@pytest.mark.parametrize("kind", KINDS)
def test_as_names_of_classes(here: Path, capsys: Captured, kind: str) -> None:
    torch.save({"w": torch.zeros(2)}, here / "w.pth")
    KINDS[kind](here / "names.txt")
    argv = ("adopt", "w.pth", "--model", "small_resnet_8px", "--classes", "names.txt", "--out", "x.safetensors")
    assert "names.txt" in refused(capsys, *argv)


OF_RUNS = ["run.json", *(f"checkpoints/*/{name}" for name in ("state.json", "MANIFEST.json"))]
OF_RUNS += [f"checkpoints/*/{name}.safetensors" for name in ("model", "average", "optimizer-train")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OF_RUNS)
def test_as_a_part_of_a_run_that_goes_on(here: Path, capsys: Captured, name: str, kind: str) -> None:
    """With the sums of a checkpoint that agree."""
    for path in (here / "run").glob(name):
        KINDS[kind](path)
        if path.parent.parent.name == "checkpoints" and path.name != "MANIFEST.json":
            seal(path.parent)
    refused(capsys, "train", "--resume", "--out", "run", "--workers", "0")


OF_A_RUN = {
    "predict": ("run", PICTURE),
    "eval": ("run",),
    "train": ("--resume", "--out", "run"),
    "set": ("run", "lr=0.001"),
    "edit": ("run", "set-classes +owl", "--dry-run"),
    "models": ("run",),
    "bench": ("run",),
}


@pytest.mark.parametrize("verb", OF_A_RUN)
@pytest.mark.parametrize("name", ["best.safetensors", "run.json", "events.jsonl", "metrics.jsonl", "predictions/val.jsonl"])
def test_as_a_part_of_a_run_that_is_read(here: Path, capsys: Captured, name: str, verb: str) -> None:
    (here / "run" / name).parent.mkdir(exist_ok=True)
    plain(here / "run" / name)
    assert main([verb, *OF_A_RUN[verb], "--quiet"]) in (0, 2)


def test_as_an_image(here: Path, capsys: Captured) -> None:
    for name, make in KINDS.items():
        make(here / "data" / "red" / f"{name}.png")
    assert "4 images cannot be read" in refused(capsys, "train", "data", *TINY, "--out", "x")
    assert main(["predict", "run", "data", "--quiet"]) == 0  # tells of those that cannot be read, and goes on
    assert main(["data", "check", "data", "--quiet"]) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.json", "s.tar", "s.zip", "s.splits.json"])
def test_as_a_data_set(here: Path, capsys: Captured, name: str, kind: str) -> None:
    KINDS[kind](here / name)
    of_data = (("check",), ("stats",), ("view", "--out", "x"), ("convert", "x", "--to", "coco"), ("split", "--out", "x.splits.json"))
    verbs = [("data", verb, name, *rest) for verb, *rest in (*of_data, ("preview", "--out", "x"))]
    for argv in (("train", name, *TINY, "--out", "x"), ("eval", "run", name), *verbs):
        assert main([*argv, "--quiet"]) == 2
    assert not (here / "x").exists() and not (here / "x.splits.json").exists()


@pytest.mark.parametrize(
    "name", ["metadata.jsonl", "_annotations.coco.json", "labels.csv", "data.yaml", "red/1.xml", "red/1.txt", "red/1.json"]
)
def test_beside_the_images_of_a_set(here: Path, name: str) -> None:
    """What does not say what it is for may be passed over."""
    plain(here / "data" / name)
    for argv in (("data", "check", "data"), ("eval", "run", "data"), ("train", "data", *TINY, "--out", "x")):
        assert main([*argv, "--quiet"]) in (0, 2)


def test_in_a_shard(here: Path) -> None:
    """WebDataset's own reader unpickles what is called so."""
    make = io.BytesIO(pickle.dumps(Bomb(OWNED)))
    with tarfile.open(here / "s.tar", "w") as shard:
        for number, picture in enumerate(sorted((here / "data").rglob("*.png"))):
            shard.add(picture, f"{number}.png")
            for suffix, data in ((".cls", str(number % 2).encode()), (".pyd", make.getvalue()), (".pickle", make.getvalue())):
                entry = tarfile.TarInfo(f"{number}{suffix}")
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))
    assert main(["data", "stats", "s.tar", "--quiet"]) == 0
    assert main(["train", "s.tar", *TINY, "--out", "x", "--quiet"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_cache_of_images(here: Path, kind: str) -> None:
    """What is kept of an earlier run is read anew where it cannot be what it was."""
    kept = [path for path in (here / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} >= {".npy", ".u8"}
    for path in kept:
        KINDS[kind](path)
    assert main(["train", "data", *TINY, "--out", "x", "--quiet"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_beside_an_exported_file(here: Path, capsys: Captured, kind: str) -> None:
    for name in ("model.onnx", "model.bin", "CERTIFICATE.json", "reference.npz", "data.bin"):
        (here / "run" / "exports" / "onnx-fp32").mkdir(parents=True, exist_ok=True)
        KINDS[kind](here / "run" / "exports" / "onnx-fp32" / name)
    for verb in ("verify", "eval"):
        refused(capsys, verb, "run/exports/onnx-fp32", "data")


@pytest.mark.parametrize("kind", KINDS)
def test_as_anybodys_predictions(here: Path, capsys: Captured, kind: str) -> None:
    KINDS[kind](here / "p.jsonl")
    refused(capsys, "eval", "--predictions", "p.jsonl", "data")


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_configuration(here: Path, capsys: Captured, kind: str) -> None:
    KINDS[kind](here / "c.json")
    refused(capsys, "train", "data", *TINY, "--out", "x", "--config", "c.json")


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "torchvision/resnet18"])
def test_as_published_weights(here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever brought the file to this machine."""
    for kind, make in KINDS.items():
        file = here / f"{kind}.safetensors"
        make(file)
        monkeypatch.setattr("saccade.nn.pretrained.fetch", lambda name, file=file: file)
        refused(capsys, "embed", name, PICTURE, "--out", "x.npz", "--pretrained")


def test_as_what_made_images_are_measured_by(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.nn import fetching
    from saccade.tasks.generation import inception

    stated = replace(inception.WEIGHTS)
    stated.place.parent.mkdir(parents=True, exist_ok=True)
    for make in KINDS.values():
        make(here / "features.safetensors")
        with pytest.raises(UserError):
            judging.named("features.safetensors", "cpu")
        make(stated.place)
        sum_of_it = hashlib.sha256(stated.place.read_bytes()).hexdigest()
        monkeypatch.setattr(inception, "WEIGHTS", replace(stated, sha256=sum_of_it))
        with pytest.raises(UserError):
            judging.named("inception", "cpu")
    assert fetching.cache().is_relative_to(here)


def test_in_a_folder_of_transformers(here: Path, capsys: Captured) -> None:
    from transformers import ResNetConfig

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], num_labels=3, architectures=["ResNetForImageClassification"]
    )
    config.save_pretrained(here / "net")
    for make in KINDS.values():
        make(here / "net" / "pytorch_model.bin")
        refused(capsys, "train", "data", *TINY, "--out", "x", "--model", "hf/net", "--pretrained")
        make(here / "net" / "model.safetensors")
        refused(capsys, "train", "data", *TINY, "--out", "x", "--model", "hf/net", "--pretrained")
        (here / "net" / "model.safetensors").unlink()
