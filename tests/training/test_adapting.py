"""Weights that have learned before: rates by layer, layers that wait, decay to the start; resumed to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted
from saccade.data.loader import Batch
from saccade.nn import layering
from saccade.nn.backbones import classifier
from saccade.task import Losses, Phase
from saccade.tasks.classification.models.classic import CifarResNet
from saccade.tasks.classification.models.small import SmallResNet
from saccade.training import optim
from saccade.training.loop import Job, Trainer
from saccade.training.step import Updater
from small_jobs import CONFIG, STEPS, Stopping, fit, go_on, job

SGD = TrainConfig(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)
ADAMW = TrainConfig(lr=0.1, weight_decay=0.5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))


def updater(net: nn.Module, config: TrainConfig, still: bool = False, **more: Any) -> Updater:
    """Of a network that learns to give ones; still: its gradients are all 0."""

    def loss(batch: Batch, step: int) -> Losses:
        outputs = net(batch.images.flatten(1))
        return Losses((outputs * 0 if still else (outputs - 1).square()).sum(), float(len(batch)))

    return Updater(net, [Phase("train", [net], loss)], config, "fp32", **more)


def batch() -> list[Batch]:
    return [Batch(torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(1)), {}, np.arange(4))]


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def changed(before: Mapping[str, Tensor], net: nn.Module) -> set[str]:
    return {name.partition(".")[0] for name, value in net.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("make", "first", "last", "count"),
    [
        (lambda: SmallResNet(3), "features.0.1.bias", "head.bias", 5),
        (lambda: CifarResNet(3, 3, 2), "bn1.weight", "linear.weight", 8),
        pytest.param(lambda: classifier("test_resnet", classes=3)[0], "conv1.0.weight", "fc.weight", 6, marks=pytest.mark.long),
        (lambda: classifier("test_vit", classes=3)[0], "cls_token", "head.weight", 8),
        (lambda: classifier("torchvision/squeezenet1_1", classes=3)[0], "features.0.weight", "classifier.1.weight", 10),
    ],
    ids=["ours", "cifar", "timm", "timm's transformer", "torchvision"],
)
def test_layers_of_a_network(make: Callable[[], nn.Module], first: str, last: str, count: int) -> None:
    net = make()
    depths = layering.depths(net)
    assert depths.keys() == dict(net.named_parameters()).keys()
    assert set(depths.values()) == set(range(count)), "no number is left out"
    assert (depths[first], depths[last]) == (0, count - 1)
    assert list(depths.values())[1:-1] == sorted(depths.values())[1:-1], "in the order of the network"
    outer = nn.Module()
    outer.network = net
    assert layering.depths(outer) == {f"network.{name}": depth for name, depth in depths.items()}


def test_groups_are_as_they_were_where_layers_learn_alike() -> None:
    net = network()
    groups = optim.build(Phase("train", [net], lambda batch, step: Losses(torch.zeros(()), 1.0)), ADAMW).param_groups
    assert [[value.ndim for value in group["params"]] for group in groups] == [[2, 2, 2], [1, 1, 1]]
    assert [(group["scale"], group["depth"], group["weight_decay"]) for group in groups] == [(1.0, 1.0, 0.5), (1.0, 1.0, 0.0)]


def test_the_rate_of_each_layer() -> None:
    net, even = network(), network()
    before = state(net)
    updater(net, replace(SGD, layer_decay=0.5)).step(batch(), 0, 0.8)
    updater(even, SGD).step(batch(), 0, 0.8)
    for name, value in net.named_parameters():
        share = 0.5 ** (2 - int(name[0]))
        torch.testing.assert_close(value - before[name], share * (even.get_parameter(name) - before[name]))


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_layers_wait_for_their_turn(config: TrainConfig) -> None:
    net = network()
    update = updater(net, replace(config, unfreeze=0.5))
    update.progress = lambda step: step / 12
    learning = []
    for step in range(12):
        before = state(net)
        update.step(batch(), step, 1.0)
        learning.append(changed(before, net))
        assert all((value.grad is not None) == (name[0] in learning[-1]) for name, value in net.named_parameters())
        assert all(value.requires_grad for value in net.parameters())
    assert learning == [{"2"}] * 3 + [{"1", "2"}] * 3 + [{"0", "1", "2"}] * 6


def test_what_was_frozen_by_hand_stays_so() -> None:
    net = network()
    net[0].requires_grad_(False)
    update = updater(net, replace(SGD, unfreeze=0.5))
    before = state(net)
    update.step(batch(), 9, 1.0)  # measured without a schedule: all that may learn does
    assert changed(before, net) == {"1", "2"}


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_decay_to_the_start(config: TrainConfig) -> None:
    """By its formula: what has learned before goes back a share of rate times strength; what has not decays to zero as ever."""
    net = network()
    start = state(net)
    held = {name: start[name] for name in ("0.weight", "0.bias", "1.weight")}
    update = updater(net, replace(config, start_decay=2.0), still=True, start=held)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    update.step(batch(), 0, 0.5)
    rate = 0.1 * 0.5
    for name, value in net.named_parameters():
        if name in ("0.weight", "0.bias", "1.weight"):
            wanted = start[name] + (1 - rate * 2.0)
        else:
            decay = config.weight_decay if value.ndim > 1 else 0.0
            wanted = (start[name] + 1) * (1 - rate * decay)
        torch.testing.assert_close(value, wanted)


ADAPTING = replace(CONFIG, layer_decay=0.7, unfreeze=0.6, start_decay=0.3)
CONFIGS = {"adamw": ADAPTING, "sgd": replace(ADAPTING, optimizer="sgd", lr=0.05)}


@pytest.mark.parametrize(("name", "after"), [("adamw", 2), ("adamw", 7), ("sgd", 5)])
def test_resumed_to_the_bit(tmp_path: Path, name: str, after: int) -> None:
    def made(place: str, **changes: Any) -> Job:
        plain = job(tmp_path / place, CONFIGS[name], **changes)
        return replace(plain, learned=[name for name, _ in plain.model.named_parameters() if "head" not in name])

    whole = fit(made("whole"))
    assert whole.loop["step"] == STEPS
    with pytest.raises(Interrupted):
        Trainer(made("cut", progress=Stopping(after))).fit()
    assert go_on(made("cut")).differs(whole) == []
    assert fit(job(tmp_path / "plain", CONFIG)).differs(whole), "or it would be no test"
