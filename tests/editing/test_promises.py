"""What edits promise, on every kind of network: exact ones keep the outputs, and a file with edits is the network that was planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import saccade
from editing.conftest import Network, answers, pixels
from saccade.editing.classes import SetInputChannels
from saccade.editing.edit import edits_of
from saccade.editing.pieces import index

Get = Callable[[str, str], Network]

EXACT = [
    ("classify", "small_resnet_8px", "widen features.2 1.5"),
    ("classify", "small_resnet_8px", "widen features.1.0.conv2 1.2"),
    ("classify", "small_resnet_8px", "widen * 1.1"),
    ("classify", "small_resnet_8px", "deepen features.2 +2"),
    ("classify", "small_resnet_8px", "deepen features.0 +1"),
    ("classify", "resnet18", "widen layer2 1.5"),
    pytest.param("classify", "resnet18", "widen layer2.0.conv2 1.3", marks=pytest.mark.long),
    pytest.param("classify", "resnet18", "deepen layer3 +1", marks=pytest.mark.long),
    ("classify", "flattening", "widen features.6 1.5"),
    ("classify", "flattening", "widen features 2"),
    ("classify", "flattening", "widen head 1.5"),
    ("classify", "flattening", "deepen features.4 +1"),
    pytest.param("classify", "convnext_atto", "widen stages.2 1.25", marks=pytest.mark.long),
    pytest.param("classify", "convnext_atto", "deepen stages.1.blocks +1", marks=pytest.mark.long),
    pytest.param("classify", "vit_tiny_patch16_224", "widen blocks.*.mlp 1.25", marks=pytest.mark.long),
    pytest.param("classify", "vit_tiny_patch16_224", "deepen blocks +1", marks=pytest.mark.long),
    ("classify", "small_resnet_8px", "insert-after features.2 SqueezeExcite"),
    ("classify", "small_resnet_8px", "insert-after features.*.0.conv1 SqueezeExcite"),
    ("classify", "flattening", "insert-after features.6 SqueezeExcite"),
    pytest.param("classify", "convnext_atto", "insert-after stages.1 SqueezeExcite", marks=pytest.mark.long),
    pytest.param("classify", "densenet121", "insert-after features.denseblock1 SqueezeExcite", marks=pytest.mark.long),
    ("segment", "small_unet", "insert-after stages.1 SqueezeExcite"),
    pytest.param("detect", "small_detector", "insert-after backbone.stages.2 SqueezeExcite", marks=pytest.mark.long),
    ("segment", "small_unet", "widen stages.2 1.5"),
    pytest.param("segment", "small_unet", "widen ups.1.block.0 1.5", marks=pytest.mark.long),
    pytest.param("segment", "small_unet", "deepen ups.2 +1", marks=pytest.mark.long),
    pytest.param("detect", "small_detector", "widen backbone.stages.2 1.5", marks=pytest.mark.long),
    pytest.param("detect", "small_detector", "widen head 1.25", marks=pytest.mark.long),
    pytest.param("detect", "small_detector", "widen neck.down.0.0 1.25", marks=pytest.mark.long),
    pytest.param("detect", "small_detector", "deepen backbone.stages.3 +1", marks=pytest.mark.long),
    pytest.param("instances", "small_instances", "widen prototypes 1.5", marks=pytest.mark.long),
    pytest.param("classify", "densenet121", "widen features.denseblock2.denselayer3.conv2 1.5", marks=pytest.mark.long),
    pytest.param("classify", "densenet121", "widen features.denseblock3 1.1", marks=pytest.mark.long),
    pytest.param("classify", "densenet121", "deepen features.denseblock1 +1", marks=pytest.mark.long),
]
LIBRARIES = ("flattening",)


@pytest.mark.parametrize(("task", "model", "text"), EXACT)
def test_an_exact_edit_keeps_the_outputs_and_its_file_gives_the_same_bits(
    networks: Get, tmp_path: Path, task: str, model: str, text: str
) -> None:
    network = networks(task, model)
    images = pixels(network)
    before = answers(network.module, images)
    planned = network.plan(text)
    after = answers(planned.network, images)
    assert planned.edit.promise == "exact"
    assert planned.effect.parameters_after > planned.effect.parameters_before
    assert (after - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    assert torch.equal(answers(network.module, images), before), "the network itself is left as it is"
    fresh_is_alive(planned.network, network.module)
    if model in LIBRARIES:
        return
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    assert torch.equal(answers(saccade.load(file, device="cpu").module, images), after)  # type: ignore[union-attr]


def fresh_is_alive(edited: nn.Module, original: nn.Module) -> None:
    """What is new can be learned: of the tensors with new numbers no more than those that keep the function are 0."""
    old = {name: value.shape for name, value in original.named_parameters()}
    new = [value for name, value in edited.named_parameters() if old.get(name) != value.shape and value.ndim > 1]
    assert sum(int((value != 0).any()) for value in new) > 0


@pytest.mark.parametrize(
    ("task", "model", "text"),
    [
        ("classify", "small_resnet_8px", "widen features.2 1.5"),
        ("classify", "small_resnet_8px", "deepen features.2 +1"),
        ("classify", "small_resnet_8px", "insert-after features.2.0.conv1 SqueezeExcite"),
        ("classify", "resnet18", "widen layer2.0.conv2 1.3"),
        ("segment", "small_unet", "deepen ups.2 +1"),
        ("detect", "small_detector", "widen head 1.25"),
    ],
)
def test_in_training_mode_too_and_everything_new_is_learned(networks: Get, task: str, model: str, text: str) -> None:
    network = networks(task, model)
    images = pixels(network)
    edited = network.plan(text).network.train()
    modules = [network.plan("replace ReLU ReLU" if model != "small_detector" else "replace SiLU SiLU").network.train(), edited]
    before, after = (module(images).detach() for module in modules)
    assert (after - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    optimizer = torch.optim.SGD(edited.parameters(), lr=0.1)
    still = {name for name, _ in edited.named_parameters()}
    for _ in range(4):  # what stands before new zeros gets its first gradient when these have moved
        optimizer.zero_grad()
        edited(images).square().mean().backward()
        optimizer.step()
        still -= {name for name, value in edited.named_parameters() if value.grad is not None and (value.grad != 0).any()}
    assert still == set()


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("classify", "small_resnet_8px"),
        ("classify", "resnet18"),
        ("classify", "vit_tiny_patch16_224"),
        ("segment", "small_unet"),
        ("detect", "small_detector"),
        ("instances", "small_instances"),
    ],
)
def test_other_classes_keep_what_is_known_of_those_that_stay(networks: Get, tmp_path: Path, task: str, model: str) -> None:
    network = networks(task, model)
    edited = saccade.edit(network.save(tmp_path / "m.safetensors"), "set-classes '+snowy owl' -b 'a cat=lynx' +e")
    loaded = saccade.load(edited.model, device="cpu")  # type: ignore[arg-type]
    assert loaded.card.classes == ("lynx", "c=d", "snowy owl", "e")
    assert loaded.card.ids == ((4, 90, 91, 92) if network.card.ids else ()), "those that stay keep their numbers"
    assert edits_of(loaded.card)[0].before(loaded.card).ids == network.card.ids
    images = pixels(network)
    old, new = network.module(images), loaded.module(images)  # type: ignore[union-attr]
    old, new = ((one[0] if isinstance(one, tuple) else one).detach() for one in (old, new))
    axis, first = (2, 4) if task in ("detect", "instances") else (1, 0)
    for before, after in ((0, 0), (2, 1)):
        difference = old.select(axis, first + before) - new.select(axis, first + after)
        assert difference.abs().max() <= 1e-6 * max(1.0, float(old.abs().max()))
    assert new.shape[axis] == old.shape[axis] + 1
    state = loaded.module.state_dict()  # type: ignore[union-attr]
    changed = [name for name, value in network.module.state_dict().items() if state[name].shape != value.shape]
    steps: dict[str, Any] = {step.module: step for step in edits_of(loaded.card)[0].steps}  # type: ignore[union-attr]
    for name in changed:
        places = index(steps[name.rpartition(".")[0]].outputs)
        kept = torch.from_numpy(places >= 0)
        assert torch.equal(state[name][kept], network.module.state_dict()[name][torch.from_numpy(places[places >= 0])])


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("classify", "small_resnet_8px"),
        pytest.param("classify", "vit_tiny_patch16_224", marks=pytest.mark.long),
        pytest.param("segment", "small_unet", marks=pytest.mark.long),
    ],
)
def test_alpha_is_taken_without_a_change_for_opaque_images(networks: Get, tmp_path: Path, task: str, model: str) -> None:
    network = networks(task, model)
    file = saccade.edit(network.save(tmp_path / "m.safetensors"), "set-input-channels 4").model
    loaded = saccade.load(file, device="cpu")  # type: ignore[arg-type]
    images = pixels(network)
    before = answers(network.module, images)
    opaque = torch.cat([images, torch.full_like(images[:, :1], 255)], 1)
    clear = torch.cat([images, torch.zeros_like(images[:, :1])], 1)
    assert loaded.card.input.channels == 4
    for given in (opaque, clear):
        assert (answers(loaded.module, given) - before).abs().max() <= 1e-5  # type: ignore[union-attr]
    assert [SetInputChannels(count).promised(loaded.card) for count in (3, 5)] == ["changes the function"] * 2, "alpha may have learned"


def test_a_network_for_grey_images_sees_them_in_colour_as_before(networks: Get, tmp_path: Path) -> None:
    colour = networks("classify", "small_resnet_8px")
    grey = saccade.edit(colour.save(tmp_path / "m.safetensors"), "set-input-channels 1")
    assert grey.edits[0]["promise"] == "changes the function"
    one = saccade.load(grey.model, device="cpu")  # type: ignore[arg-type]
    again = saccade.edit(grey.model, "set-input-channels 3")  # type: ignore[arg-type]
    assert again.edits[0]["promise"] == "exact"
    three = saccade.load(again.model, device="cpu")  # type: ignore[arg-type]
    assert (one.card.input.channels, three.card.input.channels) == (1, 3)
    images = pixels(colour, channels=1)
    before = answers(one.module, images)  # type: ignore[union-attr]
    assert (answers(three.module, images.expand(-1, 3, -1, -1)) - before).abs().max() <= 1e-5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("task", "model", "text", "count"),
    [
        ("classify", "small_resnet_8px", "fuse", 9),
        ("classify", "small_resnet_8px", "fuse features.1", 2),
        pytest.param("segment", "small_unet", "fuse", None, marks=pytest.mark.long),
        pytest.param("detect", "small_detector", "fuse", None, marks=pytest.mark.long),
        pytest.param("classify", "densenet121", "fuse", None, marks=pytest.mark.long),
    ],
)
def test_normalisations_are_fused(networks: Get, tmp_path: Path, task: str, model: str, text: str, count: int | None) -> None:
    network = networks(task, model)
    planned = network.plan(text)
    assert planned.edit.promise == "exact" and planned.effect.parameters_after < planned.effect.parameters_before
    gone = sum(isinstance(part, nn.BatchNorm2d) for part in network.module.modules())
    gone -= sum(isinstance(part, nn.BatchNorm2d) for part in planned.network.modules())
    assert gone == len(planned.edit.steps) > 0
    assert count is None or gone == count
    images = pixels(network)
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu")
    before, after = answers(network.module, images), answers(loaded.module, images)  # type: ignore[union-attr]
    assert (after - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    with pytest.raises(saccade.UserError, match="is gone"):
        saccade.edit(file, undo=True)


@pytest.mark.parametrize(("text", "count"), [("replace ReLU SiLU", 4), ("replace features.0.2 GELU", 1)])
def test_an_activation_is_replaced(networks: Get, tmp_path: Path, text: str, count: int) -> None:
    network = networks("classify", "small_resnet_8px")
    edited = saccade.edit(network.save(tmp_path / "m.safetensors"), text)
    loaded = saccade.load(edited.model, device="cpu")  # type: ignore[arg-type]
    images = pixels(network)
    assert edited.edits[0]["promise"] == "changes the function" and len(edited.edits[0]["modules"]) == count
    assert not torch.equal(answers(loaded.module, images), answers(network.module, images))  # type: ignore[union-attr]
    assert torch.equal(answers(loaded.module, images), answers(network.plan(text).network, images))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("task", "model", "text"),
    [
        ("classify", "small_resnet_8px", "prune features.2 0.5"),
        ("classify", "resnet18", "prune layer2.0.conv2 0.3"),
        ("classify", "convnext_atto", "prune stages.2 0.25"),
        ("segment", "small_unet", "prune stages 0.2"),
        ("detect", "small_detector", "prune backbone.stages 0.2"),
    ],
)
def test_pruned_channels_are_those_that_weigh_least(networks: Get, tmp_path: Path, task: str, model: str, text: str) -> None:
    network = networks(task, model)
    planned = network.plan(text)
    step = planned.edit.steps[0]
    weight = network.module.get_submodule(step.module).weight  # type: ignore[union-attr]
    kept = index(step.outputs)  # type: ignore[union-attr,arg-type]
    assert planned.effect.parameters_after < planned.effect.parameters_before
    assert 0 < len(kept) < len(weight)
    sums = weight.detach().abs().flatten(1).sum(1)  # type: ignore[union-attr,operator]
    gone = sorted(set(range(len(sums))) - set(kept.tolist()))
    if "conv2 0.3" not in text:  # of tied layers the sums over all of them count
        assert sums[gone].max() <= sums[kept].min()
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu")
    assert torch.equal(answers(loaded.module, pixels(network)), answers(planned.network, pixels(network)))  # type: ignore[union-attr]


def test_channels_that_reach_nothing_can_be_pruned_without_a_change(networks: Get) -> None:
    network = networks("classify", "small_resnet_8px")
    wide = network.plan("widen features.2 1.5")
    planned = Network(wide.network, wide.card, network.build).plan("prune features.2.0.conv1 0.1")
    assert planned.effect.parameters_after < wide.effect.parameters_after


@pytest.mark.parametrize(
    "texts",
    [
        ["widen features.2 1.5"],
        ["deepen features.1 +2"],
        ["deepen features.0.2 +1"],
        ["set-classes +x"],
        ["set-classes 'a cat=y'"],
        ["replace ReLU SiLU"],
        ["insert-after features.2 SqueezeExcite"],
        ["insert-after features.2.0.conv1 SqueezeExcite", "insert-after features.2.0.conv1 GELU"],
        ["insert-after dropout Dropout 0.3", "remove dropout"],
        ["widen features.2 1.5", "deepen features.2 +1", "widen features.2.1 2"],
    ],
)
def test_undo_gives_the_file_of_before(networks: Get, tmp_path: Path, texts: list[str]) -> None:
    network = networks("classify", "small_resnet_8px")
    first = network.save(tmp_path / "0.safetensors")
    for number, text in enumerate(texts):
        saccade.edit(tmp_path / f"{number}.safetensors", text, out=tmp_path / f"{number + 1}.safetensors")
    for number in range(len(texts), 0, -1):
        saccade.edit(tmp_path / f"{number}.safetensors", undo=True, out=tmp_path / f"back{number - 1}.safetensors")
        before, back = (saccade.load(tmp_path / f"{name}{number - 1}.safetensors", device="cpu") for name in ("", "back"))
        assert before.card.edits == back.card.edits and before.card.classes == back.card.classes
        state = back.module.state_dict()  # type: ignore[union-attr]
        assert all(torch.equal(value, state[name]) for name, value in before.module.state_dict().items())  # type: ignore[union-attr]
        assert len(state) == len(before.module.state_dict())  # type: ignore[union-attr]
    assert first.read_bytes() == (tmp_path / "back0.safetensors").read_bytes()


@pytest.mark.parametrize("text", ["prune features.2 0.5", "set-classes -b", "set-input-channels 1", "remove features.1.0"])
def test_what_has_been_thrown_away_does_not_come_back(networks: Get, tmp_path: Path, text: str) -> None:
    file = saccade.edit(networks("classify", "small_resnet_8px").save(tmp_path / "m.safetensors"), text).model
    with pytest.raises(saccade.UserError, match="is gone"):
        saccade.edit(file, undo=True)  # type: ignore[arg-type]


def test_the_seed_decides_the_fresh_weights_and_nothing_else_does(networks: Get) -> None:
    network = networks("classify", "small_resnet_8px")
    states = [network.plan("widen features.2 1.5", seed).network.state_dict() for seed in (0, 0, 1)]
    torch.manual_seed(77)
    states.append(network.plan("widen features.2 1.5").network.state_dict())
    assert all(torch.equal(states[0][name], states[other][name]) for name in states[0] for other in (1, 3))
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_layers_of_one_group_are_widened_once(networks: Get) -> None:
    """A pattern meets the channels of a trunk at each of its blocks, in another order from each."""
    network = networks("classify", "small_resnet_8px")
    deeper = network.plan("deepen features.2 +1")
    both = Network(deeper.network, deeper.card, network.build).plan("widen features.*.conv* 2")
    state = both.network.state_dict()
    for name, before in deeper.network.state_dict().items():
        if name.endswith(("conv1.weight", "conv2.weight", "shortcut.1.weight")):
            assert tuple(state[name].shape[:2]) == (2 * before.shape[0], 2 * before.shape[1]), name


def test_bands_more_and_fewer(networks: Get, tmp_path: Path) -> None:
    """More come again in turn, without a change for images whose bands do; fewer share out the weights of those that go."""
    network = networks("classify", "small_resnet_8px")
    more = saccade.edit(network.save(tmp_path / "m.safetensors"), "set-input-channels 5")
    assert more.edits[0]["promise"] == "exact"
    five = saccade.load(more.model, device="cpu")  # type: ignore[arg-type]
    assert five.card.input.channels == len(five.card.input.mean) == 5
    images = pixels(network)
    before = answers(network.module, images)
    assert (answers(five.module, images[:, [0, 1, 2, 0, 1]]) - before).abs().max() <= 1e-5  # type: ignore[union-attr]
    fewer = saccade.edit(more.model, "set-input-channels 2")  # type: ignore[arg-type]
    assert fewer.edits[0]["promise"] == "changes the function"
    two = saccade.load(fewer.model, device="cpu")  # type: ignore[arg-type]
    assert two.card.input.channels == 2 and answers(two.module, images[:, :2]).isfinite().all()  # type: ignore[union-attr]
