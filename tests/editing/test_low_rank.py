"""LoRA and factors: what two thin layers say, and what becomes of the one that they stand beside or for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import saccade
from editing.conftest import Network, answers, pixels, stir
from saccade.core.errors import UserError
from saccade.editing.blocks import Adapted
from saccade.editing.steps import Adapt, Draws, Factor, Merge, sides

Get = Callable[[str, str], Network]
RESNET = ("classify", "small_resnet_8px")

LAYERS = [
    (nn.Linear(7, 5), (2, 3, 7)),
    (nn.Linear(5, 9, bias=False), (2, 5)),
    (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 11)),
    (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), padding_mode="reflect"), (2, 4, 11, 9)),
    (nn.Conv2d(9, 4, 1, bias=False), (2, 9, 5, 3)),
    (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (2, 6, 5, 4)),
    (nn.ConvTranspose1d(4, 6, 4, stride=2, bias=False), (2, 4, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[type(layer).__name__ for layer, _ in LAYERS])
def test_of_every_kind_of_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(layer)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    before = network(x).detach()
    Adapt("0", 2).apply(network, Draws(0, 0))
    assert torch.equal(network(x), before)
    stir(network)
    learned = network(x).detach()
    assert (learned - before).abs().max() > 1e-3
    Merge("0").apply(network, Draws(0, 1))
    assert type(network[0]) is type(layer) and list(network.state_dict()) == list(state)
    assert (network(x) - learned).abs().max() <= 1e-5
    Factor("0", min(sides(layer))).apply(network, Draws(0, 2))
    assert (network(x) - learned).abs().max() <= 1e-5
    first, second = (float(one.weight.detach().square().sum()) for one in network[0])  # type: ignore[union-attr, operator]
    assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (20, 3, 3, 3)])
def test_factors_of_a_rank_are_the_nearest_of_it(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])  # type: ignore[arg-type]
    singular = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    network = nn.Sequential(layer)
    weight = layer.weight.detach().flatten(1)
    Factor("0", 5).apply(network, Draws(0, 0))
    down, up = (one.weight.detach().flatten(1) for one in network[0])  # type: ignore[union-attr, operator]
    lost = (weight - up @ down).square().sum()
    assert float(lost) == pytest.approx(float(singular[5:].square().sum()), rel=1e-4)  # Eckart & Young 1936


def test_a_layer_of_zeros_has_factors() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    Factor("0", 2).apply(network, Draws(0, 0))
    assert torch.equal(network(torch.ones(1, 4))[0], network[0][1].bias)  # type: ignore[index]


CASES = [
    (*RESNET, "features.2"),
    pytest.param("classify", "resnet18", "layer2", marks=pytest.mark.long),
    pytest.param("classify", "vit_tiny_patch16_224", "blocks.*.attn.qkv", marks=pytest.mark.long),
    pytest.param("classify", "convnext_atto", "stages.2", marks=pytest.mark.long),
    pytest.param("classify", "densenet121", "features.denseblock2.denselayer3", marks=pytest.mark.long),
    ("segment", "small_unet", "ups"),
    pytest.param("detect", "small_detector", "head", marks=pytest.mark.long),
]


def learn(module: nn.Module, images: Tensor) -> None:
    """A few steps on all that is to be learned."""
    optimizer = torch.optim.Adam([value for value in module.parameters() if value.requires_grad], lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        answers_of(module, images).square().mean().backward()
        optimizer.step()


def answers_of(module: nn.Module, images: Tensor) -> Tensor:
    found = module(images)
    return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


@pytest.mark.parametrize(("task", "model", "path"), CASES)
def test_lora_learns_beside_frozen_layers_and_is_merged(networks: Get, tmp_path: Path, task: str, model: str, path: str) -> None:
    network = networks(task, model)
    images = pixels(network)
    before = answers(network.module, images)
    planned = network.plan(f"add-lora 3 {path}")
    assert planned.edit.promise == "exact" and planned.effect.difference == 0
    assert torch.equal(answers(planned.network, images), before)
    bases = [name for name, module in planned.network.named_modules() if isinstance(module, Adapted)]
    assert bases == planned.edit.modules()
    frozen = {name: value.clone() for name, value in planned.network.named_parameters() if not value.requires_grad}
    assert frozen.keys() == {name for name, _ in planned.network.named_parameters() if ".base." in name}
    learn(planned.network, images)
    parameters = dict(planned.network.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in frozen.items())
    assert all((parameters[f"{name}.up.weight"] != 0).any() for name in bases)
    learned = answers(planned.network, images)
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu").module
    assert torch.equal(answers(loaded, images), learned)  # type: ignore[arg-type]
    assert {name for name, value in loaded.named_parameters() if not value.requires_grad} == frozen.keys()  # type: ignore[union-attr]
    edited = saccade.edit(file, "merge-lora")
    assert edited.edits[0]["promise"] == "exact"
    merged = saccade.load(edited.model, device="cpu").module  # type: ignore[arg-type]
    assert (answers(merged, images) - learned).abs().max() <= 1e-5 * max(1.0, float(learned.abs().max()))  # type: ignore[arg-type]
    assert list(merged.state_dict()) == list(network.module.state_dict())  # type: ignore[union-attr]
    assert [type(part) for part in merged.modules()] == [type(part) for part in network.module.modules()]  # type: ignore[union-attr]
    assert all(value.requires_grad for value in merged.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize(("task", "model", "path"), CASES)
def test_layers_are_factors_afterwards(networks: Get, tmp_path: Path, task: str, model: str, path: str) -> None:
    network = networks(task, model)
    planned = network.plan(f"factorize {path} 6")
    images = pixels(network)
    after = answers(planned.network, images)
    assert planned.edit.promise == "changes the function"
    assert planned.effect.parameters_after < planned.effect.parameters_before
    assert planned.effect.flops_after < planned.effect.flops_before
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    assert torch.equal(answers(saccade.load(file, device="cpu").module, images), after)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["factorize head 3", "factorize features.2.0.conv1 64", "factorize features.0.0 27"])
def test_at_its_full_rank_a_layer_does_what_it_did(networks: Get, text: str) -> None:
    network = networks(*RESNET)
    images = pixels(network)
    after = answers(network.plan(text).network, images)
    assert (after - answers(network.module, images)).abs().max() <= 1e-5


@pytest.mark.parametrize("first", ["add-lora 2 head", "factorize head 2", "insert-after head Dropout", "set-input-channels 4"])
def test_classes_are_changed_where_the_last_layer_is_another_by_now(networks: Get, first: str) -> None:
    network = networks(*RESNET)
    planned = network.plan(first)
    stir(planned.network)
    after = Network(planned.network, planned.card, network.build).plan("set-classes +x -b")
    images = pixels(network, channels=planned.card.input.channels)
    old, new = answers(planned.network, images), answers(after.network, images)
    assert new.shape == (3, 3)
    assert (old[:, [0, 2]] - new[:, :2]).abs().max() <= 1e-6


def test_lora_is_taken_back_and_stands_other_edits(networks: Get, tmp_path: Path) -> None:
    network = networks(*RESNET)
    first = network.save(tmp_path / "m.safetensors")
    adapted = saccade.edit(first, "add-lora 4 features.2", out=tmp_path / "1.safetensors").model
    back = saccade.edit(adapted, undo=True, out=tmp_path / "2.safetensors").model  # type: ignore[arg-type]
    assert back.read_bytes() == first.read_bytes()  # type: ignore[union-attr]
    more = saccade.edit(adapted, "widen features.2 1.5", "deepen features.2 +1", "merge-lora", out=tmp_path / "3.safetensors")  # type: ignore[arg-type]
    images = pixels(network)
    before, after = (answers(saccade.load(file, device="cpu").module, images) for file in (first, more.model))  # type: ignore[union-attr, arg-type]
    assert (before - after).abs().max() <= 1e-5
    with pytest.raises(UserError, match="is gone"):
        saccade.edit(more.model, undo=True)  # type: ignore[arg-type]


def test_a_block_that_is_copied_from_one_with_lora_learns(networks: Get) -> None:
    network = networks(*RESNET)
    planned = network.plan("add-lora 4 features.1")
    deeper = Network(planned.network, planned.card, network.build).plan("deepen features.1 +1").network
    assert all(value.requires_grad for value in deeper.get_submodule("network.features.1.1").parameters())


def test_what_is_frozen_stays_so(networks: Get) -> None:
    network = networks(*RESNET)
    for text in ("freeze features.2", "factorize features.2.0.conv1 4", "replace features.2.0.bn1 GroupNorm"):
        planned = network.plan(text)
        network = Network(planned.network, planned.card, network.build)
    assert not any(value.requires_grad for value in network.module.get_submodule("network.features.2").parameters())
    for text in ("add-lora 2 features.2.0.conv2", "freeze features.2.0.conv2", "merge-lora"):
        planned = network.plan(text)
        network = Network(planned.network, planned.card, network.build)
    assert not any(value.requires_grad for value in network.module.get_submodule("network.features.2").parameters())
