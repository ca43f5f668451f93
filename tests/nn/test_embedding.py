"""Vectors of images from any layer, without its classifier, whatever shape the layer's output has."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from saccade.core.errors import UserError
from saccade.nn.backbones import classifier, feature_layer
from saccade.nn.embedding import Embedder

CASES = ["resnet18", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "convnext_atto", "mobilenetv3_small_050"]


@pytest.fixture(scope="module", autouse=True)
def few_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(n: int = 2, size: tuple[int, int] = (224, 224)) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


def embed(network: nn.Module, given: torch.Tensor, layer: str = "") -> torch.Tensor:
    with torch.inference_mode():
        return Embedder(network.eval(), layer, feature_layer).eval()(given)


@pytest.mark.parametrize("name", CASES)
def test_is_what_timm_gives_without_a_classifier(name: str) -> None:
    network, _ = classifier(name, classes=7)
    bare = timm.create_model(name, num_classes=0)
    bare.load_state_dict({key: value for key, value in network.state_dict().items() if key in bare.state_dict()})
    with torch.inference_mode():
        expected = bare.eval()(images())
        before = network.eval()(images())
        torch.testing.assert_close(embed(network, images()), expected)
        assert torch.equal(network(images()), before), "the network itself stays as it is"
    assert before.shape == (2, 7)


def test_shares_the_weights_of_its_model() -> None:
    network, _ = classifier("resnet18", classes=2)
    embedder = Embedder(network, "", feature_layer)
    assert embedder.network.get_parameter("conv1.weight") is network.get_parameter("conv1.weight")


@pytest.mark.parametrize(
    ("name", "layer", "axes"),
    [
        ("resnet18", "layer3", (2, 3)),
        ("resnet18", "conv1", (2, 3)),
        pytest.param("swin_tiny_patch4_window7_224", "layers.1", (1, 2), marks=pytest.mark.long),
        ("convnext_atto", "stages.1", (2, 3)),
        ("convnext_atto", "stages.1.blocks.0.mlp", (2, 3)),
        ("mixer_s32_224", "blocks.0.mlp_tokens", (2,)),
        ("mixer_s32_224", "blocks.0", (1,)),
        ("vit_tiny_patch16_224", "patch_embed", (1,)),
        ("vit_tiny_patch16_224", "norm", None),
        ("vit_tiny_patch16_224", "fc_norm", ()),
    ],
)
def test_a_layer_is_averaged_over_its_places(name: str, layer: str, axes: tuple[int, ...] | None) -> None:
    network, _ = classifier(name, classes=2)
    kept: list[torch.Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _, __, outputs: kept.append(outputs))
    with torch.inference_mode():
        network.eval()(images())
    handle.remove()
    whole = kept[0][:, 1:] if axes is None else kept[0]  # the class token has no place
    axes = (1,) if axes is None else axes
    torch.testing.assert_close(embed(network, images(), layer), whole.mean(axes) if axes else whole)


class Odd(nn.Module):
    """Layers whose outputs cannot be averaged, or are never asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.windows, self.pair, self.unused, self.network = nn.Identity(), nn.Identity(), nn.Linear(2, 2), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.pair((x, x))
        return self.windows(x.flatten(0, 1)).reshape(x.shape)


@pytest.mark.parametrize(("layer", "said"), [("windows", "gives \\[6, 8, 8\\]"), ("pair", "gives tuple"), ("unused", "does not use")])
def test_layers_that_give_no_vectors_are_refused(layer: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        embed(Odd(), images(2, (8, 8)), layer)


def test_an_unknown_layer_names_the_nearest() -> None:
    network, _ = classifier("resnet18", classes=2)
    with pytest.raises(UserError, match=r"unknown layer 'layer33' .did you mean layer3"):
        Embedder(network, "layer33", feature_layer)


@pytest.mark.parametrize("size", [(40, 97), (33, 20), (1, 300)])
def test_maps_of_images_of_any_shape(size: tuple[int, int]) -> None:
    """The places are told from the channels by the image's shape."""
    for module, channels in ((nn.Conv2d(3, 5, 3, 1, 1), 5), (nn.AvgPool2d(1, 1), 3)):
        network = nn.Sequential(module, nn.Flatten())
        given = images(3, size)
        torch.testing.assert_close(embed(network, given, "0"), module(given).detach().mean((2, 3)))
        assert embed(network, given, "0").shape == (3, channels)
        last = nn.Sequential(Turned(module), nn.Flatten())
        torch.testing.assert_close(embed(last, given, "0"), module(given).detach().mean((2, 3)))


class Turned(nn.Module):
    """[B, C, h, w] -> [B, h, w, C]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x).permute(0, 2, 3, 1)
