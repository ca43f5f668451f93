"""One optimizer step: accumulation, weights, clipping, refusal of what is not finite, freezing by phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from saccade.core.config import TrainConfig
from saccade.data.loader import Batch
from saccade.task import Losses, Phase
from saccade.training.step import NotFiniteError, Updater

CPU = torch.device("cpu")
SGD = TrainConfig(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(n: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 2, 2, generator=generator)
    weight = torch.rand(n, generator=generator) + torch.arange(n) % 3
    return Batch(images, {"label": torch.arange(n) % 3, "weight": weight}, np.arange(n))


def parts(whole: Batch, size: int) -> list[Batch]:
    cuts = [slice(start, start + size) for start in range(0, len(whole), size)]
    return [Batch(whole.images[c], {k: v[c] for k, v in whole.targets.items()}, whole.positions[c]) for c in cuts]


def weighted(net: nn.Module) -> Callable[[Batch, int], Losses]:
    def loss(batch: Batch, step: int) -> Losses:
        each = nn.functional.cross_entropy(net(batch.images), batch.targets["label"], reduction="none")
        return Losses((each * batch.targets["weight"]).sum(), float(batch.targets["weight"].sum()))

    return loss


def updater(net: nn.Module, phases: Sequence[Phase], config: TrainConfig = SGD) -> Updater:
    return Updater(net, phases, config, "fp32")


def trained(size: int, config: TrainConfig) -> tuple[nn.Sequential, dict[str, float]]:
    net = network()
    update = updater(net, [Phase("train", [net], weighted(net))], config)
    for step in range(4):
        means = update.step(parts(batch(), size), step, 1.0)
    return net, means


@pytest.mark.parametrize("config", [SGD, replace(SGD, clip=0.05), TrainConfig(lr=0.01)], ids=["sgd", "clipped", "adamw"])
def test_micro_batches_of_any_size_and_weight_give_the_same_weights(config: TrainConfig) -> None:
    whole, means = trained(7, config)
    for size in (1, 3, 4):
        net, others = trained(size, config)
        for p, q in zip(net.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-6, rtol=0)
        assert others == pytest.approx(means, abs=1e-6)


def test_the_gradient_is_that_of_the_weighted_mean() -> None:
    net, reference, data = network(), network(), batch()
    updater(net, [Phase("train", [net], weighted(net))]).step(parts(data, 3), 0, 0.5)
    losses = weighted(reference)(data, 0)
    (losses.total / losses.weight).backward()
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.1 * 0.5 * q.grad, atol=1e-6, rtol=0)


def test_clipping_bounds_the_whole_norm() -> None:
    net, before = network(), network()
    updater(net, [Phase("train", [net], weighted(net))], replace(SGD, clip=0.01)).step([batch()], 0, 1.0)
    moved = torch.cat([(p - q).flatten() for p, q in zip(net.parameters(), before.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    net = network()

    def loss(batch: Batch, step: int) -> Losses:
        return Losses(net(batch.images).square().sum() * (bad if step == 2 else 1.0), float(len(batch)))

    update = updater(net, [Phase("train", [net], loss)], TrainConfig(lr=0.01))
    for step in (0, 1):
        update.step([batch()], step, 1.0)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(NotFiniteError) as caught:
        update.step(parts(batch(), 3), 2, 1.0)
    assert (caught.value.phase.name, caught.value.what) == ("train", "loss")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert {int(s["step"]) for s in update.optimizers["train"].state.values()} == {2}


def test_phases_freeze_each_other_and_take_turns() -> None:
    net = nn.ModuleDict({"a": nn.Linear(12, 4), "b": nn.Linear(4, 1), "c": nn.Linear(4, 1)})
    net["c"].requires_grad_(False)
    seen: list[tuple[str, int, list[bool]]] = []
    after: list[int] = []

    def loss(name: str) -> Callable[[Batch, int], Losses]:
        def compute(batch: Batch, step: int) -> Losses:
            seen.append((name, step, [module.weight.requires_grad for module in net.values()]))
            total = net["b"](net["a"](batch.images.flatten(1))).sum()
            return Losses(total, float(len(batch)), {"extra": total.detach() * 2})

        return compute

    phases = [Phase("a", [net["a"]], loss("a"), every=2, after_step=after.append), Phase("b", [net["b"]], loss("b"))]
    update = updater(net, phases)
    start = {name: module.weight.detach().clone() for name, module in net.items()}
    both = update.step([batch()], 0, 1.0)
    moved = net["a"].weight.detach().clone()
    assert set(both) == {"a/loss", "a/extra", "b/loss", "b/extra"}
    assert both["b/extra"] == pytest.approx(2 * both["b/loss"])
    assert set(update.step([batch()], 1, 1.0)) == {"b/loss", "b/extra"}
    assert seen == [("a", 0, [True, False, False]), ("b", 0, [False, True, False]), ("b", 1, [False, True, False])]
    assert after == [0]
    assert torch.equal(net["a"].weight, moved), "phase b must leave a alone"
    assert not torch.equal(start["a"], moved)
    assert not torch.equal(start["b"], net["b"].weight)
    assert torch.equal(start["c"], net["c"].weight)
    assert [module.weight.requires_grad for module in net.values()] == [True, True, False]


def test_what_a_module_draws_is_keyed_by_the_position() -> None:
    def weights(noise: int, first: int) -> torch.Tensor:
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), network()[1])
        torch.manual_seed(noise)
        moved = replace(batch(), positions=np.arange(7) + first)
        loss = Phase("train", [net], lambda b, step: Losses(net(b.images).square().sum(), float(len(b))))
        updater(net, [loss]).step([moved], 0, 1.0)
        return net[2].weight.detach()

    assert torch.equal(weights(1, 0), weights(2, 0))
    assert not torch.equal(weights(1, 0), weights(1, 7))


def test_training_mode_is_taken_up_again() -> None:
    net = network().eval()
    updater(net, [Phase("train", [net], weighted(net))]).step([batch()], 0, 1.0)
    assert net.training
