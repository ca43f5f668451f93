"""Optimizers: their state as tensors and back, to the bit, whatever the strides of the weights; decay on matrices alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from saccade.core import modelfile
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.nn import weights
from saccade.task import Losses, Phase
from saccade.training import checkpoint, optim

KINDS = {
    "adamw": TrainConfig(optimizer="adamw", lr=0.01),
    "sgd": TrainConfig(optimizer="sgd", lr=0.01),
    "plain sgd": TrainConfig(optimizer="sgd", lr=0.01, momentum=0.0),
    "muon": TrainConfig(optimizer="muon", lr=0.01),
}


def network(layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 17, 1), nn.Flatten()]
    net = nn.Sequential(*first, nn.Linear(17 * 4 * 6, 2))
    return net.to(memory_format=layout)


def phase(*modules: nn.Module) -> Phase:
    return Phase("train", modules, lambda batch, step: Losses(torch.zeros(()), 1.0))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        optimizer.zero_grad()
        net(torch.randn(4, 3, 6, 8)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_restored_state_gives_equal_further_steps(kind: str, layout: torch.memory_format) -> None:
    net = network(layout)
    optimizer = optim.build(phase(net), KINDS[kind])
    steps(net, optimizer, range(3))
    other = copy.deepcopy(net)
    again = optim.build(phase(other), KINDS[kind])
    files = checkpoint.encode(checkpoint.snapshot({"optimizer": optim.state(optimizer)}), {})
    optim.restore(again, modelfile.unpack(files["optimizer.safetensors"])[0], where="x")
    steps(net, optimizer, range(3, 6))
    steps(other, again, range(3, 6))
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert optim.state(optimizer).keys() == optim.state(again).keys()


def test_moments_have_the_strides_of_their_weights_and_share_no_memory() -> None:
    net = network(torch.channels_last)
    optimizer = optim.build(phase(net), KINDS["adamw"])
    steps(net, optimizer, range(1))
    kept = weights.to_buffers(optim.state(optimizer))
    before = {name: bytes(buffer.data) for name, buffer in kept.items()}
    optim.restore(optimizer, kept, where="x")
    weight = net[0].weight
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride() != weight.contiguous().stride()
    steps(net, optimizer, range(1, 2))
    assert all(before[name] == bytes(buffer.data) for name, buffer in kept.items())


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_vectors_do_not_decay(kind: str) -> None:
    net = network()
    optimizer = optim.build(phase(net), TrainConfig(optimizer=kind, lr=0.1, weight_decay=0.5))  # type: ignore[arg-type]
    before = copy.deepcopy(net.state_dict())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        if parameter.ndim < 2:
            assert torch.equal(parameter, before[name]), name
        else:
            assert parameter.norm() < 0.97 * before[name].norm(), name


def test_each_parameter_once_and_no_frozen_one() -> None:
    net = network()
    net[0].requires_grad_(False)
    found = optim.trained(phase(net, net[5], net))
    assert [id(p) for p in found] == [id(p) for one in (net[1], net[3], net[5]) for p in (one.weight, one.bias)]
    with pytest.raises(UserError, match="nothing to train"):
        optim.build(phase(net[0]), TrainConfig())


def test_nothing_was_learned_yet() -> None:
    optimizer = optim.build(phase(network()), TrainConfig())
    assert optim.state(optimizer) == {}
    optim.restore(optimizer, {}, where="x")
    assert not optimizer.state
