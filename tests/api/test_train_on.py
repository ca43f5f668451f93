"""A run that starts from an edited model trains its network, and says what to do where the data are others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import saccade
from saccade.core import modelfile
from saccade.core.errors import Interrupted
from saccade.core.progress import Silent
from small_jobs import Stopping
from small_jobs import one_thread as one_thread

pytestmark = pytest.mark.long
MODEL = "small_resnet_8px"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("data") / "shapes"
    saccade.data.make("shapes", n=60, size=(17, 11), out=target, seed=3)
    return target


def train(data: Path, out: Path, **more: Any) -> saccade.Run:
    asked: dict[str, Any] = {"epochs": 2, "batch": 8, "size": (17, 11), "workers": 0, "device": "cpu", "seed": 5, "progress": Silent()}
    return saccade.train(data, out=out, **(asked | more))


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = train(data, tmp_path_factory.mktemp("first") / "run", model=MODEL, epochs=1)
    return run.path / "best.safetensors"


def edited(first: Path, tmp_path: Path, *texts: str) -> Path:
    file = saccade.edit(first, *texts, out=tmp_path / "edited.safetensors").model
    assert file is not None
    return file


def test_pruned_widened_and_dropping_it_goes_on(data: Path, first: Path, tmp_path: Path) -> None:
    texts = ("prune features.2 0.5", "set-drop 0.4")
    file = edited(first, tmp_path, *texts)
    run = train(data, tmp_path / "run", weights=file, edits=("at step 3: widen features.2 1.5",))
    model: Any = saccade.load(run.path, device="cpu")
    assert [edit["text"] for edit in model.card.edits] == [*texts, "widen features.2 1.5"]
    assert model.module.get_submodule("network.dropout").p == 0.4
    before = modelfile.load(file)[0]
    after = model.module.state_dict()
    assert after["network.features.2.0.conv1.weight"].shape[0] > before["network.features.2.0.conv1.weight"].shape[0]


def test_resume_is_equal_to_the_bit(data: Path, first: Path, tmp_path: Path) -> None:
    file = edited(first, tmp_path, "add-lora 2 features.2", "replace BatchNorm GroupNorm")
    more = ("at step 4: merge-lora",)
    whole = train(data, tmp_path / "whole", weights=file, edits=more)
    for after in (2, 5):
        out = tmp_path / f"cut{after}"
        with pytest.raises(Interrupted):
            train(data, out, weights=file, edits=more, progress=Stopping(after))
        saccade.train(resume=True, out=out, progress=Silent())
        for name in ("best.safetensors", "last.safetensors"):
            one, other = (modelfile.load(path / name)[0] for path in (whole.path, out))
            assert all(bytes(one[key].data) == bytes(other[key].data) for key in one) and one.keys() == other.keys()


def test_classes_become_those_of_the_data(data: Path, first: Path, tmp_path: Path) -> None:
    classes = modelfile.read_card(first).classes
    file = edited(first, tmp_path, f"set-classes +zebra -{classes[2]} {classes[0]}=thing", "prune features.2 0.5")
    run = train(data, tmp_path / "run", weights=file, epochs=1)
    model = saccade.load(run.path, device="cpu")
    assert model.card.classes == classes and len(model.card.edits) == 3  # type: ignore[union-attr]
    with pytest.raises(Interrupted):
        train(data, tmp_path / "cut", weights=file, epochs=1, progress=Stopping(3))
    saccade.train(resume=True, out=tmp_path / "cut", progress=Silent())
    one, other = (modelfile.load(tmp_path / name / "last.safetensors")[0] for name in ("run", "cut"))
    assert all(bytes(one[key].data) == bytes(other[key].data) for key in one)


def test_layers_beside_lora_rest(data: Path, first: Path, tmp_path: Path) -> None:
    file = edited(first, tmp_path, "add-lora 2 features.2")
    run = train(data, tmp_path / "run", weights=file)
    before: Any = saccade.load(file, device="cpu").module
    after: Any = saccade.load(run.path, device="cpu").module
    states = before.state_dict(), after.state_dict()
    bases = [name for name in states[0] if ".base." in name]
    assert bases and all(torch.equal(states[0][name], states[1][name]) for name in bases)
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0] if ".up." in name)


def test_size_and_channels_become_those_of_the_data(data: Path, first: Path, tmp_path: Path) -> None:
    file = edited(first, tmp_path, "set-input-channels 1", "set-size 24x24")
    run = train(data, tmp_path / "run", weights=file, epochs=1)
    model = saccade.load(run.path, device="cpu")
    assert (model.card.input.channels, model.card.input.size) == (3, (17, 11))  # type: ignore[union-attr]
    assert [edit["text"] for edit in model.card.edits][2:] == ["set-input-channels 3", "set-size 17x11"]  # type: ignore[union-attr]
