"""Cards of model files whose edits somebody has made up: refused in one line, before anything is allocated that the file does not hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saccade
from editing.conftest import Network
from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.editing.edit import FREE
from saccade.editing.steps import Resize
from saccade.nn import weights

Get = Callable[[str, str], Network]
SMALL = ("classify", "small_resnet_8px")
HUGE = 1 << 23
EDIT = {"text": "x", "promise": "exact", "seed": 0, "number": 0}
CONV = "network.features.1.0.conv1"


def resize(**more: Any) -> dict[str, Any]:
    return {"do": "resize", "module": CONV, **more}


def of(*steps: Any, **more: Any) -> dict[str, Any]:
    return {**EDIT, "steps": list(steps), **more}


HOSTILE: list[Any] = [
    [of(resize(outputs=[[-1, HUGE]]))],
    [of(resize(outputs=[[0, 32], [-1, 1 << 62]]))],
    [of(resize(outputs=[[0, 16]] * 20_000))],
    [of(resize(outputs=[[0, 32]], inputs=[[0, 32]]))],
    [of(resize())],
    [of(resize(outputs=[[0, 33]]))],
    [of(resize(outputs=[[-2, 3]]))],
    [of(resize(outputs=[[0, 0]]))],
    [of(resize(outputs=[]))],
    [of(resize(inputs=[[30, 3]]))],
    [of(resize(outputs=[[0, 8]]))],
    [of(resize(outputs=[[0, 32], [-1, 4]]))],
    [of(resize(outputs=[[0, 32]], std=float("1e400")))],
    [of({**resize(outputs=[[0, 32]]), "module": "network"})],
    [of({**resize(outputs=[[0, 32]]), "module": ""})],
    [of({**resize(outputs=[[0, 32]]), "module": "network.features.9"})],
    [of({**resize(outputs=[[0, 32]]), "module": "forward.__globals__"})],
    [of({"do": "insert", "at": "network.features.1", "channels": 1 << 20})],
    [of({"do": "leave", "at": "network.features.1", "channels": 1 << 20, "classes": 3, "grid": 4, "weight": 0.5})],
    [of({"do": "leave", "at": "network.features.1", "channels": 1 << 62, "classes": 3, "grid": 4, "weight": 0.5})],
    [of({"do": "leave", "at": "network.features.1", "channels": 8, "classes": 3, "grid": 99, "weight": 0.5})],
    [of({"do": "leave", "at": "network.features.1", "channels": 8, "classes": 3, "grid": 1, "weight": 1.5})],
    [of({"do": "leave", "at": "", "channels": 8, "classes": 3, "grid": 1, "weight": 0.5})],
    [of({"do": "leave", "at": "network.features.9", "channels": 8, "classes": 3, "grid": 1, "weight": 0.5})],
    [of({"do": "insert", "at": "network.features.1"})],
    [of({"do": "insert", "at": "network.features", "like": "network"})],
    [of(*[{"do": "insert", "at": "network.features", "like": "network.features"}] * 40)],
    [of(*[{"do": "insert", "at": "network.features", "like": "network.dropout"}] * 4000)] * 2,
    [of({"do": "insert", "at": "network.features.1", "like": "network.features.1.0", "zero": ["x"]})],
    [of({"do": "replace", "module": "network.features.0.2", "by": "Linear"})],
    [of({"do": "replace", "module": "network.features.0.0", "by": "Identity"})],
    [of({"do": "replace", "module": "", "by": "Identity"})],
    [of({"do": "insert", "at": "network.features.1", "kind": "SqueezeExcite", "channels": 1 << 20})],
    [of({"do": "insert", "at": "network.features.1", "kind": "SqueezeExcite"})],
    [of({"do": "insert", "at": "network.features.1", "kind": "Linear", "channels": 4})],
    [of({"do": "insert", "at": "", "kind": "ReLU"})],
    [of({"do": "insert", "at": "network.features.1", "kind": "Dropout", "p": 1.5})],
    [of(*[{"do": "insert", "at": "network.features.1", "kind": "SqueezeExcite", "channels": 3000}] * 50)],
    [of({"do": "remove", "module": ""})],
    [of({"do": "remove", "module": "network.features.1"})],
    [of({"do": "remove", "module": "network.features.1"}, resize(outputs=[[0, 32]]))],
    [of({"do": "adapt", "module": CONV, "rank": 33})],
    [of({"do": "adapt", "module": CONV, "rank": 0})],
    [of({"do": "adapt", "module": "network.features.1", "rank": 2})],
    [of({"do": "adapt", "module": "", "rank": 2})],
    [of({"do": "adapt", "module": CONV, "rank": 2})] * 2,
    [of(resize(outputs=[[0, 32], [-1, 4000]]), {"do": "adapt", "module": CONV, "rank": 288})],
    [of({"do": "merge", "module": CONV})],
    [of({"do": "factor", "module": CONV, "rank": 33})],
    [of({"do": "factor", "module": "network.features.0.1", "rank": 1})],
    [of({"do": "factor", "module": CONV, "rank": 4})] * 2,
    [of({"do": "drop", "module": "network.dropout", "p": 1.5})],
    [of({"do": "drop", "module": CONV, "p": 0.5})],
    [of({"do": "drop", "module": "", "p": 0.5})],
    [of({"do": "drop", "module": "network.features.1.0.shortcut", "p": 0.5})],
    [of({"do": "grow"})],
    [of({"do": "size", "height": 0, "width": 8})],
    [of({"do": "size", "height": 1 << 20, "width": 8})],
    [of(size=[0, 8])],
    [of(size=[8])],
    [of(size=[8, 1 << 20])],
    [of({"do": "group", "module": "network.features.0.1", "groups": 5})],
    [of({"do": "group", "module": "network.features.0.1", "groups": 0})],
    [of({"do": "group", "module": "network.features.0.1", "groups": 1 << 20})],
    [of({"do": "group", "module": CONV, "groups": 4})],
    [of({"do": "group", "module": "network.features.0.1", "groups": 4})] * 2,
    [of({"do": "rms", "module": "network.features.0.1"})],
    [of({"do": "rms", "module": ""})],
    [of({"do": "mix", "module": CONV, "inputs": HUGE, "terms": []})],
    [of({"do": "mix", "module": "network.features.0.0", "inputs": 60_000, "terms": []})],
    [of({"do": "mix", "module": "network.features.0.0", "inputs": 3, "terms": [[0, 9, 1.0]]})],
    [of({"do": "input", "channels": 4, "mean": [0.0], "std": [1.0]})],
    [of({"do": "input", "channels": 3, "mean": [0.0] * 3, "std": [0.0] * 3})],
    [of({"do": "fold", "layer": CONV, "norm": "network.features.0.1"})] * 2,
    [of({"do": "fold", "layer": CONV, "norm": "network.head"})],
    [of({"do": "fold", "layer": "network.features.0.1", "norm": "network.features.0.1"})],
    [of({"do": "exec", "code": "import os"})],
    [of(classes=["a"] * 2)],
    [of(classes=[f"{number}" for number in range(10_000)])],
    [of(channels=1, mean=[0.5], std=[0.5])],
    [of(channels=3, mean=[0.5], std=[0.5, 0.0, 1.0])],
    [of(text="")],
    [of(promise="surely")],
    [of(seed=-1)],
    [of(number=1.5)],
    [of(more=1)],
    [EDIT],
    [{}],
    [of()] * 1001,
]


@pytest.mark.parametrize("edits", HOSTILE, ids=range(len(HOSTILE)))
def test_made_up_edits_are_refused_without_the_memory_they_ask_for(
    networks: Get, tmp_path: Path, edits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks(*SMALL)
    card = replace(network.card, edits=tuple(edits))
    if "inf" in str(edits):
        with pytest.raises(ValueError):
            Network(network.module, card, network.build).save(tmp_path / "m.safetensors")
        return
    file = Network(network.module, card, network.build).save(tmp_path / "m.safetensors")
    held = sum(value.numel() for value in network.module.state_dict().values())
    largest = [0]
    for name in ("empty", "zeros", "full"):
        monkeypatch.setattr(torch, name, watched(getattr(torch, name), largest))
    for name in ("full", "arange"):
        monkeypatch.setattr(np, name, watched(getattr(np, name), largest))
    with pytest.raises(UserError) as caught:
        saccade.load(file, device="cpu")
    assert "\n" not in str(caught.value)
    assert largest[0] <= max(8 * held, FREE)


def watched(make: Callable[..., Any], largest: list[int]) -> Callable[..., Any]:
    def watch(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        count = made.size if isinstance(made, np.ndarray) else 0 if made.is_meta else made.numel()
        largest[0] = max(largest[0], count)
        return made

    return watch


def test_a_base_that_is_larger_than_the_file_allows_is_not_built(networks: Get, tmp_path: Path) -> None:
    network = networks(*SMALL)
    architecture = copy.deepcopy(dict(network.card.architecture))
    architecture["arguments"]["width"] = 2048
    card = replace(network.card, architecture=architecture, edits=(of(resize(outputs=[[0, 32]])),))
    file = modelfile.save(tmp_path / "m.safetensors", weights.to_buffers(network.module), card)
    with pytest.raises(UserError, match=r"needs .* numbers"):
        saccade.load(file, device="cpu")


def test_positions_for_more_places_than_the_file_allows_are_not_made(networks: Get, tmp_path: Path) -> None:
    network = networks("classify", "vit_tiny_patch16_224")
    card = replace(network.card, edits=(of({"do": "size", "height": 16384, "width": 16384}, size=[32, 32]),))
    file = Network(network.module, card, network.build).save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="more than the file holds"):
        saccade.load(file, device="cpu")


def test_an_edit_of_a_real_file_that_was_changed_afterwards_is_refused(networks: Get, tmp_path: Path) -> None:
    network = networks(*SMALL)
    planned = network.plan("widen features.2 1.5")
    edit = planned.edit.to_dict()
    edit["steps"][0]["outputs"][-1] = [-1, 65]
    card = replace(planned.card, edits=(edit,))
    file = Network(planned.network, card, network.build).save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="do not give the tensors of the file"):
        saccade.load(file, device="cpu")


def test_a_step_is_refused_before_it_is_taken(networks: Get) -> None:
    network = networks(*SMALL)
    step = Resize(CONV, outputs=[(0, 32), (-1, 96)])
    numbers = 128 * 32 * 9
    step.check(network.module, numbers)
    with pytest.raises(UserError, match="numbers of the file"):
        step.check(network.module, numbers - 1)
