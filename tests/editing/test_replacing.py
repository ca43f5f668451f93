"""Modules in the place of others: what they have of those, and how near the network stays to what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import saccade
from editing.conftest import Network, answers, pixels
from saccade.core.errors import UserError
from saccade.editing.steps import Draws, Group

Get = Callable[[str, str], Network]


def batch_norm(channels: int, kind: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.Sequential:
    """With statistics and weights that are nowhere 0 or 1, in a network of its own."""
    generator = torch.Generator().manual_seed(3)
    norm = kind(channels)
    for value, centre in ((norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 1.0), (norm.running_var, 3.0)):
        value.data.copy_(torch.rand(channels, generator=generator) + centre)  # type: ignore[union-attr]
    return nn.Sequential(norm).eval()


def typical(norm: nn.BatchNorm2d) -> Tensor:
    """Two images `[2, C, 6, 5]` of which every channel has just the mean and the variance that run."""
    x = torch.randn(2, norm.num_features, 6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True, unbiased=False)
    shape = (1, -1, 1, 1)
    assert norm.running_mean is not None and norm.running_var is not None
    return (x * norm.running_var.double().sqrt().view(shape) + norm.running_mean.double().view(shape)).float()


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_maps_of_the_running_statistics_are_normalised_as_they_were(groups: int, kind: type[nn.BatchNorm2d]) -> None:
    network = batch_norm(12, kind)
    x = typical(network[0])  # type: ignore[arg-type]
    before = network(x)
    Group("0", groups).apply(network, Draws(0, 0))
    kinds = [type(part) for part in network.modules()]
    assert kinds.count(nn.GroupNorm) == 1 and not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
    assert (network(x) - before).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("classify", "small_resnet_8px"),
        ("classify", "resnet18"),
        pytest.param("classify", "densenet121", marks=pytest.mark.long),
        pytest.param("segment", "small_unet", marks=pytest.mark.long),
        pytest.param("detect", "small_detector", marks=pytest.mark.long),
    ],
)
def test_group_norms_stand_in_the_place_of_batch_norms(networks: Get, tmp_path: Path, task: str, model: str) -> None:
    network = networks(task, model)
    planned = network.plan("replace BatchNorm GroupNorm")
    images = pixels(network)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in network.module.modules())
    assert planned.edit.promise == "changes the function" and planned.card.metrics == {}
    assert sum(isinstance(part, nn.GroupNorm) for part in planned.network.modules()) == norms == len(planned.edit.steps)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in planned.network.modules())
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    after = answers(saccade.load(file, device="cpu").module, images)  # type: ignore[union-attr]
    assert torch.equal(after, answers(planned.network, images)) and after.isfinite().all()
    with pytest.raises(UserError, match="is gone"):
        saccade.edit(file, undo=True, out=tmp_path / "back.safetensors")


def test_folded_statistics_leave_a_trained_network_nearer_to_what_it_was(networks: Get) -> None:
    network = networks("classify", "small_resnet_8px")
    images = pixels(network, 64)
    trained = Network(network.plan("widen features.2 1.5").network, network.card, network.build)  # a copy
    trained.module.train()
    for part in trained.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the average of all that it sees
            part.reset_running_stats()
    for _ in range(3):
        trained.module(images)
    before = answers(trained.module.eval(), images)
    folded = trained.plan("replace BatchNorm GroupNorm 4").network
    carried = trained.plan("replace BatchNorm GroupNorm 4").network
    state = trained.module.state_dict()
    carried.load_state_dict({name: state[name] for name in carried.state_dict()})
    near, far = ((answers(module, images) - before).square().mean() for module in (folded, carried))
    assert near < far / 2, (near, far)


def test_rms_norms_stand_in_the_place_of_layer_norms(networks: Get, tmp_path: Path) -> None:
    network = networks("classify", "vit_tiny_patch16_224")
    planned = network.plan("replace LayerNorm RMSNorm")
    assert sum(isinstance(part, nn.RMSNorm) for part in planned.network.modules()) == 25
    weight, old = planned.network.get_parameter("network.norm.weight"), network.module.get_parameter("network.norm.weight")
    assert torch.equal(weight, old)
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    images = pixels(network)
    assert torch.equal(answers(saccade.load(file, device="cpu").module, images), answers(planned.network, images))  # type: ignore[union-attr]
    wider = Network(planned.network, planned.card, network.build).plan("widen blocks.0.mlp 1.5")
    assert wider.edit.promise == "exact"


def test_a_pattern_replaces_what_fits_it(networks: Get) -> None:
    network = networks("classify", "small_resnet_8px")
    planned = network.plan("replace features.*.0.* GroupNorm 2")
    assert planned.edit.modules() == [f"network.features.{stage}.0.bn{at}" for stage in (1, 2, 3) for at in (1, 2)]
