"""Other channels: a grey image in all of them has the same answer; another size: positions as timm itself resamples them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.nn import checkpoints, fitting
from saccade.nn.backbones import classifier, rebuild
from saccade.nn.checkpoints import Checkpoint, Place
from saccade.nn.weights import to_buffers

COUNTS = (1, 2, 3, 4, 5, 7)
FEW = ("test_resnet", pytest.param("test_vit", marks=pytest.mark.long), pytest.param("torchvision/squeezenet1_1", marks=pytest.mark.long))
MANY = (
    "test_convnext",
    "mobilevit_xxs",
    "tresnet_m",
    "levit_128s",
    "swin_tiny_patch4_window7_224",
    "hrnet_w18_small",
    "densenet121",
    "vgg11",
    "dla34",
    "xcit_nano_12_p16_224",
    "repvgg_a0",
    "naflexvit_base_patch16_gap",
    "torchvision/googlenet",
    "torchvision/densenet121",
    "torchvision/swin_t",
    "torchvision/vit_b_32",
)


@pytest.mark.parametrize("there", COUNTS)
@pytest.mark.parametrize("here", COUNTS)
def test_filters_sum_up_to_what_they_did(there: int, here: int) -> None:
    for shape in ((5, 3 * there, 2, 3), (5, there), (2, there, 1, 1)):
        weight = torch.randn(*shape)
        made = fitting.channels(weight, there, here)
        assert made.shape == (shape[0], shape[1] // there * here, *shape[2:])
        sums = [value.reshape(shape[0], -1, count, *shape[2:]).sum(2) for value, count in ((weight, there), (made, here))]
        torch.testing.assert_close(*sums)
    if there == here:
        assert made is weight
    if here == 4 and there < 4:
        assert not made[:, 3::4].any(), "an opaque image is seen as its colours are"
        torch.testing.assert_close(made[:, :3], fitting.channels(weight, there, 3))


def test_means_of_channels() -> None:
    mean = (0.485, 0.456, 0.406)
    assert fitting.spread(mean, 3, 1.0) == mean
    assert fitting.spread(mean, 1, 1.0) == (0.449,)
    assert fitting.spread(mean, 4, 1.0) == (*mean, 1.0)
    assert fitting.spread(mean, 5, 1.0) == (*mean, 0.485, 0.456)
    assert fitting.spread((0.449,), 3, 1.0) == (0.449,) * 3


def published(name: str, folder: Path, **arguments: Any) -> Path:
    """Weights of `name` as its library would publish them."""
    torch.manual_seed(0)
    module, _ = classifier(name, classes=1000, small_stem=False, size=(64, 64)) if "/" in name else (None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = module or timm.create_model(name, num_classes=1000, **arguments)
    state = (module.network if hasattr(module, "network") else module).state_dict()
    file = folder / "model.safetensors"
    save_file({key: value.clone() for key, value in state.items()}, file)
    return file


def answers(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(images)
    return found


@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MANY)])
def test_a_grey_image_has_the_same_answer_in_any_channels(name: str, tmp_path: Path) -> None:
    file = published(name, tmp_path)
    size = (224, 224) if name in MANY else (64, 64)
    colours, _ = classifier(name, classes=1000, size=size, pretrained=file)
    grey = torch.rand(2, 1, *size)
    wanted = answers(colours, grey.expand(-1, 3, -1, -1))
    for count in (1, 2, 5, 4):
        network, architecture = classifier(name, classes=1000, channels=count, size=size, pretrained=file)
        torch.testing.assert_close(answers(network, grey.expand(-1, count, -1, -1)), wanted, rtol=1e-4, atol=1e-5)
    rebuild(architecture).load_state_dict(network.state_dict())
    opaque = torch.rand(2, 3, *size)
    seen = answers(network, torch.cat([opaque, torch.ones_like(grey)], 1))
    torch.testing.assert_close(seen, answers(colours, opaque), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["test_vit", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [(96, 160), (224, 224)])
def test_positions_are_resampled_as_timm_does_it(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Of a plain file, of a pickled one in its order, of one whose names are wrapped, and of our own with a card."""
    file = published(name, tmp_path)
    wanted, _ = classifier(name, classes=1000, size=size, pretrained=file)
    tensors = checkpoints.read(file).tensors
    plain = Checkpoint(file, tensors)
    wrapped = replace(plain, tensors={f"module.model.{key}": value for key, value in tensors.items()}, ordered=True)
    ours = replace(plain, tensors={f"network.{key}": value for key, value in tensors.items()})
    for checkpoint in (plain, replace(plain, ordered=True), wrapped, ours):
        network = holding(classifier(name, classes=1000, size=size)[0])
        taken = checkpoints.take(network, checkpoint, Place(), (), least=1.0)
        assert taken.share == 1.0 and not taken.report
        images = torch.rand(1, 3, *size)
        torch.testing.assert_close(answers(network, images), answers(wanted, images))


def holding(network: nn.Module) -> nn.Module:
    """As a model of ours holds it."""
    outer = nn.Module()
    outer.network = network
    outer.forward = network.forward  # type: ignore[method-assign]
    return outer


@pytest.mark.long
def test_a_grid_of_another_shape_with_as_many_places(tmp_path: Path) -> None:
    """64x256 pixels have as many patches as 128x128: only the size that the file learned from tells them apart."""
    torch.manual_seed(0)
    wide, architecture = classifier("test_vit", classes=1000, size=(64, 256), small_stem=False)
    square = holding(classifier("test_vit", classes=1000, size=(128, 128), small_stem=False)[0])
    assert square.get_parameter("network.pos_embed").shape == wide.get_parameter("pos_embed").shape
    checkpoint = Checkpoint(tmp_path / "x", to_buffers(holding(wide)))
    height, width = architecture["inner"]
    checkpoints.take(square, checkpoint, Place(size=(height, width)), (), least=1.0)
    moved = timm.layers.resample_abs_pos_embed(wide.get_parameter("pos_embed"), [8, 8], [4, 16], num_prefix_tokens=1)
    torch.testing.assert_close(square.get_parameter("network.pos_embed"), moved)


def test_first_layers_of_a_file_for_other_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    colours, grey = (nn.Sequential(nn.Conv2d(count, 4, 3), nn.Flatten(), nn.Linear(16, 2)) for count in (3, 1))
    checkpoint = Checkpoint(tmp_path / "x.pt", to_buffers(colours), ordered=True)
    with pytest.raises(UserError, match=r"0\.weight"):
        checkpoints.take(grey, checkpoint, Place(channels=1), (), least=1.0)
    taken = checkpoints.take(grey, checkpoint, Place(inputs=["0.weight"], channels=1), (), least=1.0)
    assert taken.share == 1.0
    images = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(answers(grey, images), answers(colours, images.expand(-1, 3, -1, -1)))
