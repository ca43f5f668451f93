"""Models by name at any size, rebuilt exactly, and the layer that attribution reads."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from saccade.core.errors import UserError
from saccade.nn.backbones import classifier, feature_layer, rebuild
from saccade.nn.stems import Resized

NAMES = ("resnet18", "densenet121", "vgg11_bn", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_100", "efficientnet_b0")
SIZES = ((8, 8), (17, 11), (28, 28))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "resnet18" else pytest.mark.long) for name in NAMES])
def test_every_family_takes_small_and_odd_images(name: str, size: tuple[int, int]) -> None:
    network, architecture = classifier(name, classes=5, channels=1, size=size)
    network.eval()
    images = torch.rand(2, 1, *size)
    with torch.no_grad():
        logits = network(images)
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()
    again = rebuild(json.loads(json.dumps(architecture)))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images), logits)
    layer = feature_layer(network, images[:1])
    assert any(part is layer for part in network.modules())


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("test_resnet", (32, 32), (4, 4)),
        ("test_resnet", (8, 8), (2, 2)),
        ("test_convnext", (32, 32), (4, 4)),
        ("resnet14t", (28, 28), (4, 4)),
        pytest.param("densenet121", (32, 32), (4, 4), marks=pytest.mark.long),
        pytest.param("densenet121", (8, 8), (2, 2), marks=pytest.mark.long),
        ("resnet14t", (100, 150), (4, 5)),
    ],
)
def test_the_feature_layer_has_a_map_worth_looking_at(name: str, size: tuple[int, int], cells: tuple[int, int]) -> None:
    network, _ = classifier(name, classes=2, size=size)
    shapes: list[torch.Size] = []
    feature_layer(network).register_forward_hook(lambda _, __, outputs: shapes.append(outputs.shape))
    network.eval()(torch.rand(1, 3, *size))
    assert tuple(shapes[-1][-2:]) == cells


def test_stems_of_small_images() -> None:
    resnet, _ = classifier("resnet18", classes=3, size=(32, 32))
    first = resnet.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    assert (first.kernel_size, first.stride) == ((3, 3), (1, 1))
    assert isinstance(resnet.get_submodule("maxpool"), nn.Identity)
    _, architecture = classifier("test_vit", classes=3, size=(32, 32))
    assert architecture["arguments"]["patch_size"] == 4
    enlarged, architecture = classifier("test_efficientnet", classes=3, size=(28, 28))
    assert isinstance(enlarged, Resized)
    assert architecture["inner"] == [140, 140]


def test_large_images_keep_the_network_as_it_is_and_lose_no_edge() -> None:
    network, architecture = classifier("resnet18", classes=3, size=(65, 40))
    assert architecture["stem"] == {"kind": "own"}
    assert not isinstance(network, Resized)
    _, architecture = classifier("test_vit", classes=3, size=(100, 150))
    assert architecture["inner"] == [112, 160]  # not 96 x 144, which would drop the last pixels


def test_pretrained_weights_from_a_file_keep_the_stem_and_enlarge_small_images(tmp_path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source, _ = classifier("test_resnet", classes=1000)
    file = tmp_path / "model.safetensors"
    save_file(source.state_dict(), file)
    network, architecture = classifier("test_resnet", classes=4, channels=1, size=(30, 30), pretrained=file)
    assert architecture["stem"] == {"kind": "own"}
    assert min(architecture["inner"]) >= 128
    state, before = network.state_dict(), source.state_dict()
    name = "layer1.0.conv1.weight"
    assert torch.equal(state[f"network.{name}"], before[name])
    assert architecture["arguments"]["num_classes"] == 4
    assert str(tmp_path) not in json.dumps(architecture)


@pytest.mark.parametrize("name", ["weights.bin", "model.pth"])
def test_pickled_weights_are_refused_unopened(tmp_path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="safetensors"):
        classifier("test_resnet", classes=2, pretrained=file)


def test_building_draws_the_same_weights_whatever_was_tried_before() -> None:
    torch.manual_seed(3)
    first, _ = classifier("test_resnet", classes=2, size=(9, 9))
    torch.manual_seed(3)
    second, _ = classifier("test_resnet", classes=2, size=(9, 9))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.is_meta


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnt18", "resnet18"), ("resnet18.a1_ink", "resnet18.a1_in1k"), ("hf-hub:timm/resnet18", ""), ("local-dir:/tmp", "")],
)
def test_unknown_names(name: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        classifier(name, classes=2)
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"channels": 0}, {"size": (0, 5)}, {"size": (5, 20000)}])
def test_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="must be"):
        classifier("test_resnet", **{"classes": 2, **wrong})  # type: ignore[arg-type]


def test_a_network_without_logits_is_refused() -> None:
    with pytest.raises(UserError, match="cannot classify"):
        classifier("qwen3_vit_88m_enc", classes=2)


def test_a_hostile_architecture_is_refused() -> None:
    _, good = classifier("test_resnet", classes=2, size=(32, 32))
    worse = [
        {**good, "name": "hf-hub:timm/resnet18"},
        {**good, "source": "elsewhere"},
        {**good, "arguments": {**good["arguments"], "checkpoint_path": "/etc/passwd"}},
        {**good, "arguments": {**good["arguments"], "num_classes": 1 << 60}},
        {**good, "size": [32, -1]},
        {**good, "stem": {"kind": "unknown"}},
        {**good, "stem": {"kind": "drop_pools", "count": 1, "kernel": 3}},
        {"source": "timm"},
    ]
    for architecture in worse:
        with pytest.raises(UserError):
            rebuild(architecture)


def test_an_architecture_larger_than_its_file_is_refused_before_it_is_built() -> None:
    network, good = classifier("test_resnet", classes=2, size=(32, 32))
    elements = sum(value.numel() for value in network.state_dict().values())
    rebuild(good, elements=elements)
    huge = {**good, "arguments": {**good["arguments"], "num_classes": 1_000_000}}
    with pytest.raises(UserError, match="the file holds"):
        rebuild(huge, elements=elements)


def test_the_modes_of_the_module_survive_the_search() -> None:
    network, _ = classifier("test_resnet", classes=2, size=(32, 32))
    network.train()
    network.get_submodule("layer1").eval()
    statistics = {name: value.clone() for name, value in network.state_dict().items()}
    feature_layer(network)
    assert network.training
    assert not network.get_submodule("layer1").training
    assert all(torch.equal(value, statistics[name]) for name, value in network.state_dict().items())


def test_no_map_no_layer() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    with pytest.raises(UserError, match="no layer with a map"):
        feature_layer(flat)


def test_the_head_of_vgg_shrinks_with_its_map() -> None:
    network, architecture = classifier("vgg11_bn", classes=10, size=(32, 32))
    assert architecture["stem"] == {"kind": "drop_pools", "count": 2, "kernel": 4}
    assert network.get_submodule("pre_logits.fc1").weight.shape[2:] == (4, 4)
