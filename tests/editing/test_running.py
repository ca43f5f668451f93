"""How a network runs after an edit: what drops while it learns, and at how many pixels it sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import resample_abs_pos_embed
from torch import nn

import saccade
from editing.conftest import Network, answers, make, pixels
from saccade.core.errors import UserError
from saccade.editing.steps import drops
from saccade.nn.layers.keyed import KeyedDropout, stand_in

Get = Callable[[str, str], Network]
RESNET, VIT = ("classify", "small_resnet_8px"), ("classify", "vit_tiny_patch16_224")


def reopened(network: Network, text: str, folder: Path) -> Network:
    """What the file of an edited network gives."""
    planned = network.plan(text)
    file = Network(planned.network, planned.card, network.build).save(folder / "m.safetensors")
    model = saccade.load(file, device="cpu")
    return Network(model.module, model.card, network.build)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("which", "text", "count"),
    [
        (RESNET, "set-drop 0.3", 1),
        (VIT, "set-drop 0.1 blocks.*.drop_path*", 24),
        (VIT, "set-drop 0.1 blocks", 48),
        pytest.param(("classify", "convnext_atto"), "set-drop .25 stages.*.drop_path", 12, marks=pytest.mark.long),
        pytest.param(("classify", "densenet121"), "set-drop 0.5", 1, marks=pytest.mark.long),
    ],
)
def test_what_drops_does_so_with_another_probability(networks: Get, tmp_path: Path, which: tuple[str, str], text: str, count: int) -> None:
    network = networks(*which)
    scored = Network(network.module, network.card.with_metrics({"accuracy": 0.5}), network.build)
    edited = reopened(scored, text, tmp_path)
    images, p = pixels(network), float(text.split()[1])
    assert torch.equal(answers(edited.module, images), answers(network.module, images))
    assert edited.card.edits[0]["promise"] == "exact" and edited.card.metrics == {"accuracy": 0.5}
    found = [module for module in edited.module.modules() if drops(module) and getattr(module, drops(module)) == p]
    assert len(found) == count
    stand_in(edited.module, 0)
    assert sum(isinstance(module, KeyedDropout) and module.p == p for module in edited.module.modules()) == count
    assert not torch.equal(edited.module.train()(images), edited.module.eval()(images))


def test_a_probability_is_set_back(networks: Get, tmp_path: Path) -> None:
    first = networks(*RESNET).save(tmp_path / "m.safetensors")
    edited = saccade.edit(first, "set-drop 0.3", "set-drop 0.4", out=tmp_path / "1.safetensors").model
    back = saccade.edit(edited, undo=True, out=tmp_path / "2.safetensors").model  # type: ignore[arg-type]
    assert saccade.load(back, device="cpu").module.get_submodule("network.dropout").p == 0.3  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("which", "size"),
    [
        (RESNET, (30, 24)),
        (VIT, (48, 40)),
        (("segment", "small_unet"), (64, 45)),
        (("detect", "small_detector"), (70, 64)),
        pytest.param(("classify", "resnet18"), (64, 48), marks=pytest.mark.long),
        pytest.param(("classify", "convnext_atto"), (64, 48), marks=pytest.mark.long),
        pytest.param(("classify", "densenet121"), (48, 40), marks=pytest.mark.long),
    ],
)
def test_images_are_brought_to_another_size(networks: Get, tmp_path: Path, which: tuple[str, str], size: tuple[int, int]) -> None:
    network = networks(*which)
    text = f"set-size {size[0]}x{size[1]}"
    edited = reopened(network, text, tmp_path)
    assert edited.card.input.size == size and edited.card.edits[0]["promise"] == "changes the function"
    planned = network.plan(text)
    images = torch.randint(0, 256, (2, 3, *(-(-side // 32) * 32 if which[0] == "detect" else side for side in size))).to(torch.uint8)
    assert torch.equal(answers(edited.module, images), answers(planned.network, images))
    photo = np.random.default_rng(0).integers(0, 256, (50, 77, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert len(list(saccade.predict(tmp_path / "m.safetensors", tmp_path / "photo.png", device="cpu"))) == 1
    if which == VIT:
        with pytest.raises(UserError, match="is gone"):
            saccade.edit(tmp_path / "m.safetensors", undo=True)
        return
    back = saccade.edit(tmp_path / "m.safetensors", undo=True).model
    first = network.save(tmp_path / "first.safetensors")
    assert back.read_bytes() == first.read_bytes()  # type: ignore[union-attr]


def test_positions_are_interpolated(networks: Get) -> None:
    network = networks(*VIT)
    planned = network.plan("set-size 48x40")
    old, new = (module.get_parameter("network.pos_embed") for module in (network.module, planned.network))
    with torch.no_grad():
        expected = resample_abs_pos_embed(old, new_size=[12, 10], old_size=[8, 8], num_prefix_tokens=1)
    assert torch.equal(new, expected)
    assert planned.effect.shapes == {"pos_embed": ([1, 65, 192], [1, 121, 192])}
    others = {name: value for name, value in planned.network.state_dict().items() if "pos_embed" not in name}
    assert all(torch.equal(value, network.module.state_dict()[name]) for name, value in others.items())


@pytest.mark.long
def test_a_network_that_enlarges_its_image_enlarges_it_alike(tmp_path: Path) -> None:
    network = make("classify", "mobilenetv3_small_050", (32, 24))
    edited = reopened(network, "set-size 64x36", tmp_path)
    (before,), (after,) = ([part.size for part in one.module.modules() if hasattr(part, "size")] for one in (network, edited))
    assert after == (before[0] * 2, 160) and before[1] * 3 // 2 == 144, "the next multiple of 32"
    assert isinstance(edited.module, nn.Module) and answers(edited.module, pixels(edited)).isfinite().all()


@pytest.mark.long
def test_windows_and_fixed_positions() -> None:
    swin = make("classify", "swin_tiny_patch4_window7_224", (224, 224))
    planned = swin.plan("set-size 224x256")
    assert answers(planned.network, pixels(Network(planned.network, planned.card, swin.build), 1)).isfinite().all()
    with pytest.raises(UserError, match="built for images of one size"):
        make("classify", "mixer_s32_224", (224, 224)).plan("set-size 256x224")
    with pytest.raises(UserError, match="would not run: Wrong image height"):
        make("classify", "torchvision/vit_b_32", (224, 224)).plan("set-size 256x224")
