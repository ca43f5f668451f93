"""Edits of networks that make images: promises are held for what `sample` gives, and for what the other networks of a model say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import saccade
from editing.conftest import CLASSES, Network, stir
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.task import Budget
from saccade.tasks import making

KEPT: dict[tuple[str, bool], Network] = {}


def maker(model: str, *, conditional: bool = False) -> Network:
    """Made once; tests leave it as it is."""
    if (model, conditional) not in KEPT:
        task, size = making("generate"), (34, 22)
        schema = Schema("generate", CLASSES, {"train": (80, 80, 80), "val": (2, 2, 2)}, 3, size, True, {"train": 240, "val": 6})
        config, _ = task.recipe(schema, "cpu", Budget(model=model, size=size, epochs=1))
        torch.manual_seed(0)
        config = override(config, {"device": "cpu", "precision": "fp32", "generation.conditional": conditional})
        module, card = task.create(config, schema)
        KEPT[model, conditional] = Network(stir(module), card, task.build)
    return KEPT[model, conditional]


def given(network: Network, n: int = 5) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(9)
    labels = torch.arange(n) % 3 if network.module.classes else None
    return torch.randn(n, int(network.module.latent), generator=generator), labels  # type: ignore[arg-type]


@torch.no_grad()
def parts(module: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
    return module.run_through(*inputs)  # type: ignore[operator, no-any-return]


def sampled(module: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> np.ndarray[Any, Any]:
    latents, labels = inputs
    return making("generate").sample(module, latents.numpy(), None if labels is None else labels.numpy())


EXACT = [
    ("r3gan", False, "widen generator 1.5"),
    ("r3gan", True, "widen generator.upward.stages.1 1.25"),
    ("r3gan", True, "widen judge 1.5"),
    ("r3gan", False, "deepen generator.upward.stages.0 +2"),
    ("r3gan", False, "deepen judge.downward.stages.1 +1"),
    ("r3gan", True, "insert-after generator.upward.stages.1 SqueezeExcite"),
    ("dcgan", False, "widen generator.layers.2 1.5"),
    ("dcgan", False, "widen judge.layers.0 1.5"),
    ("dcgan", False, "deepen generator.layers.4 +1"),
    ("vae", True, "widen upward 1.5"),
    ("vae", False, "widen downward.stages.0 1.5"),
    ("vae", False, "deepen upward.stages.1 +1"),
]


@pytest.mark.parametrize(("model", "conditional", "text"), EXACT)
def test_an_exact_edit_makes_the_same_images(tmp_path: Path, model: str, conditional: bool, text: str) -> None:
    network = maker(model, conditional=conditional)
    inputs = given(network)
    before, images = parts(network.module, inputs), sampled(network.module, inputs)
    planned = network.plan(text)
    after = parts(planned.network, inputs)
    assert planned.edit.promise == "exact" and planned.effect.parameters_after > planned.effect.parameters_before
    for one, other in zip(before, after, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(one.abs().max()))
    bytes_after = sampled(planned.network, inputs)
    apart = np.abs(images.astype(int) - bytes_after)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.001, "no more than a rounding"
    assert images.std() > 10
    assert all(torch.equal(one, other) for one, other in zip(before, parts(network.module, inputs), strict=True))
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu").module
    assert all(torch.equal(one, other) for one, other in zip(after, parts(loaded, inputs), strict=True))  # type: ignore[arg-type]
    back = saccade.edit(file, undo=True, out=tmp_path / "back.safetensors").model
    assert back.read_bytes() == network.save(tmp_path / "first.safetensors").read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("dcgan", "replace BatchNorm GroupNorm"),
        ("dcgan", "replace ReLU SiLU"),
        ("r3gan", "prune generator.upward 0.25"),
        ("r3gan", "factorize generator.upward 4"),
        ("r3gan", "remove generator.upward.stages.1.0"),
        ("vae", "prune upward 0.25"),
    ],
)
def test_an_edit_that_changes_the_function_makes_others(tmp_path: Path, model: str, text: str) -> None:
    network = maker(model)
    inputs = given(network)
    planned = network.plan(text)
    assert planned.edit.promise == "changes the function"
    assert not np.array_equal(sampled(network.module, inputs), sampled(planned.network, inputs))
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded: Any = saccade.load(file, device="cpu").module
    assert np.array_equal(sampled(loaded, inputs), sampled(planned.network, inputs))


def test_lora_is_added_to_a_generator_and_merged() -> None:
    network = maker("r3gan", conditional=True)
    inputs = given(network)
    before = parts(network.module, inputs)
    planned = network.plan("add-lora 2 generator")
    assert all(torch.equal(one, other) for one, other in zip(before, parts(planned.network, inputs), strict=True))
    assert {name.split(".")[0] for name, value in planned.network.named_parameters() if not value.requires_grad} == {"generator"}
    stir(planned.network)
    merged = Network(planned.network, planned.card, network.build).plan("merge-lora")
    for one, other in zip(parts(planned.network, inputs), parts(merged.network, inputs), strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(one.abs().max()))
    assert list(merged.network.state_dict()) == list(network.module.state_dict())


def of_size(size: tuple[int, int]) -> Network:
    """A residual GAN for images of another size."""
    network = maker("r3gan")
    arguments = {**network.card.architecture["arguments"], "shape": [3, *size], "widths": [8, 8] if min(size) > 20 else [8]}
    card = replace(
        network.card, architecture={**network.card.architecture, "arguments": arguments}, input=replace(network.card.input, size=size)
    )
    torch.manual_seed(0)
    return Network(stir(network.build(card, None)), card, network.build)


@pytest.mark.parametrize("size", [(17, 11), (33, 21), (34, 22), (16, 16)])
def test_a_gan_that_has_grown_makes_the_same_images_of_larger_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    network = of_size(size)
    inputs = given(network)
    planned = network.plan("grow-resolution")
    assert planned.edit.promise == "exact" and planned.card.metrics == {} and planned.effect.difference is not None
    assert planned.effect.flops_after > planned.effect.flops_before
    images, larger = sampled(network.module, inputs), sampled(planned.network, inputs)
    assert np.array_equal(larger, images.repeat(2, 1).repeat(2, 2)) and images.std() > 5
    (_, scores), (_, again) = parts(network.module, inputs), parts(planned.network, inputs)
    assert (scores - again).abs().max() <= 1e-5 * max(1.0, float(scores.abs().max()))
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded = saccade.load(file, device="cpu")
    assert loaded.card.input.size == (2 * size[0], 2 * size[1])
    assert np.array_equal(saccade.generate(file, n=5, latents=inputs[0].numpy(), device="cpu").images, larger)
    back = saccade.edit(file, undo=True, out=tmp_path / "back.safetensors").model
    assert back.read_bytes() == network.save(tmp_path / "first.safetensors").read_bytes()  # type: ignore[union-attr]


def test_a_gan_grows_on_and_all_that_is_new_learns() -> None:
    network = of_size((16, 12))
    inputs = given(network)
    before = sampled(network.module, inputs)
    for text in ("grow-resolution", "grow-resolution", "widen generator.upward.finer 1.5", "deepen judge.downward.finer.1.stage +1"):
        planned = network.plan(text)
        network = Network(planned.network, planned.card, network.build)
    assert np.array_equal(sampled(network.module, inputs), before.repeat(4, 1).repeat(4, 2))
    module = network.module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    still = {name for name, _ in module.named_parameters() if ".finer." in name}
    for _ in range(6):
        optimizer.zero_grad()
        images, scores = module.run_through(*inputs)  # type: ignore[operator]
        (images.square().mean() + scores.square().mean()).backward()
        optimizer.step()
        still -= {name for name, value in module.named_parameters() if value.grad is not None and (value.grad != 0).any()}
    assert still == set()


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("vqvae", "widen upward 1.5", "VqVae cannot be edited so far (a GAN or a VAE can)"),
        ("vqvae", "replace BatchNorm GroupNorm", "no module of type BatchNorm"),
        ("r3gan", "set-classes +x", "no classes that could be others"),
        ("r3gan", "set-size 68x44", "of the size that it has learned"),
        ("r3gan", "set-input-channels 1", "no normalisation of its input"),
        ("r3gan", "widen generator.upward.last 2", "what the network gives (widen generator."),
        ("dcgan", "widen generator.start 2", "have fixed places"),
        ("dcgan", "grow-resolution", "only the networks of r3gan grow so far"),
        ("vae", "grow-resolution", "this network does not grow (a GAN does: r3gan)"),
    ],
)
def test_what_cannot_be_is_refused(model: str, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        maker(model, conditional=model == "r3gan").plan(text)
    assert said in str(caught.value), str(caught.value)
