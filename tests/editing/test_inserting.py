"""Modules put in and taken out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import saccade
from editing.conftest import Network, answers, pixels
from saccade.editing.blocks import Passed, SqueezeExcite

Get = Callable[[str, str], Network]


def test_squeeze_excite_is_the_product_of_channels_and_factors() -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(33)
    x = torch.randn(2, 33, 5, 3)
    hidden = torch.relu(x.mean((2, 3)) @ block.fc1.weight[:, :, 0, 0].T + block.fc1.bias)
    factors = 2 * torch.sigmoid(hidden @ block.fc2.weight[:, :, 0, 0].T + block.fc2.bias)
    assert block.fc1.out_channels == 2
    assert (block(x) - x * factors[:, :, None, None]).abs().max() <= 1e-6


@pytest.mark.parametrize(("text", "promise"), [("Dropout 0.25", "exact"), ("Dropout2d", "exact"), ("GELU", "changes the function")])
def test_dropout_and_activations_stand_behind_a_layer(networks: Get, tmp_path: Path, text: str, promise: str) -> None:
    network = networks("classify", "small_resnet_8px")
    scored = Network(network.module, network.card.with_metrics({"accuracy": 0.5}), network.build)
    planned = scored.plan(f"insert-after features.1.0.bn2 {text}")
    images = pixels(network)
    before, after = answers(network.module, images), answers(planned.network, images)
    assert planned.edit.promise == promise and bool(planned.card.metrics) == (promise == "exact")
    assert torch.equal(before, after) == (promise == "exact")
    new = planned.network.get_submodule("network.features.1.0.bn2.1")
    assert type(new).__name__ == text.split()[0] and getattr(new, "p", 0.25) == (0.5 if text == "Dropout2d" else 0.25)
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu")
    assert torch.equal(answers(loaded.module, images), after)  # type: ignore[union-attr]
    again = loaded.module.get_submodule("network.features.1.0.bn2.1")  # type: ignore[union-attr]
    assert type(again) is type(new) and getattr(again, "p", 0) == getattr(new, "p", 0)


@pytest.mark.parametrize(
    ("task", "model", "path"),
    [
        ("classify", "small_resnet_8px", "features.1.0"),
        pytest.param("classify", "resnet18", "layer3.1", marks=pytest.mark.long),
        pytest.param("classify", "vit_tiny_patch16_224", "blocks.3", marks=pytest.mark.long),
        pytest.param("classify", "convnext_atto", "stages.2.blocks.3", marks=pytest.mark.long),
        pytest.param("classify", "densenet121", "features.denseblock1.denselayer2.norm1", marks=pytest.mark.long),
        ("classify", "flattening", "features.4"),
        ("segment", "small_unet", "stages.2.1"),
        pytest.param("detect", "small_detector", "backbone.stages.2.1", marks=pytest.mark.long),
    ],
)
def test_a_block_is_taken_out(networks: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, model: str, path: str) -> None:
    network = networks(task, model)
    planned = network.plan(f"remove {path}")
    images = pixels(network)
    after = answers(planned.network, images)
    assert planned.edit.promise == "changes the function" and planned.card.metrics == {}
    assert planned.effect.flops_after <= planned.effect.flops_before
    assert not torch.equal(after, answers(network.module, images))
    name = planned.edit.modules()[0]
    monkeypatch.setattr(network.module.get_submodule(name), "forward", lambda x: x)
    assert torch.equal(answers(network.module, images), after), "just as if it gave what it takes"
    if model != "flattening":
        file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
        assert torch.equal(answers(saccade.load(file, device="cpu").module, images), after)  # type: ignore[union-attr]


def test_a_stage_can_be_widened_and_deepened_where_modules_came_and_went(networks: Get) -> None:
    network = networks("classify", "small_resnet_8px")
    for text in ("insert-after features.2 SqueezeExcite", "deepen features.1 +1", "remove features.1.0", "widen features.2 1.5"):
        planned = network.plan(text)
        network = Network(planned.network, planned.card, network.build)
    assert isinstance(network.module.get_submodule("network.features.1.0"), Passed)
    assert not isinstance(network.module.get_submodule("network.features.1.1"), nn.Identity)
