"""Muon: orthogonal steps; which weights are matrices to it; AdamW for the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from saccade.core.config import TrainConfig
from saccade.task import Losses, Phase
from saccade.training import optim
from saccade.training.muon import FARTHER, ITERATIONS, QUINTIC, Muon, orthogonal

CONFIG = TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.1)


def phase(module: nn.Module) -> Phase:
    return Phase("train", [module], lambda batch, step: Losses(torch.zeros(()), 1.0))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (17, 153), (200, 20), (1, 5)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_all_singular_values_come_near_one(shape: tuple[int, int], scale: float) -> None:
    matrix = drawn(*shape) * scale
    found = orthogonal(matrix)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ found @ v.T  # in the basis of the matrix's own directions: what becomes of each singular value
    assert torch.allclose(turned, turned.diag().diag(), atol=1e-4), "directions stay"
    wide = s > 0.05 * s.norm()  # three iterations lift no value that is smaller
    assert bool(((turned.diag()[wide] > 0.6) & (turned.diag()[wide] < 1.3)).all())
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(16, 16), (17, 153), (200, 20)])
def test_the_iterations_one_by_one(shape: tuple[int, int]) -> None:
    """Singular values over four powers of ten: what is computed of their squares is none the worse."""
    matrix = drawn(*shape) * torch.logspace(0, -4, shape[1])
    plain = matrix.double() / matrix.double().norm()
    for _ in range(ITERATIONS):
        square = plain @ plain.T
        plain = QUINTIC[0] * plain + (QUINTIC[1] * square + QUINTIC[2] * square @ square) @ plain
    assert torch.allclose(orthogonal(matrix).double(), plain, atol=1e-5)


def test_a_step_by_hand() -> None:
    """Decay apart from the gradient, Nesterov's look ahead; farther where there are more rows than columns."""
    layer = nn.Conv2d(16, 200, 3, bias=False)
    before, gradient = layer.weight.detach().clone(), drawn(200, 16, 3, 3)
    optimizer = optim.build(phase(layer), CONFIG)
    layer.weight.grad = gradient.clone()
    optimizer.step()
    momentum = 0.05 * gradient
    ahead = 0.05 * gradient + 0.95 * momentum
    step = orthogonal(ahead.view(200, 144)).view(200, 16, 3, 3)
    rate = 0.01 * FARTHER
    assert torch.allclose(layer.weight, before * (1 - rate * 0.1) - rate * (200 / 144) ** 0.5 * step, atol=1e-6)
    assert torch.allclose(optimizer.state[layer.weight]["momentum_buffer"], momentum, atol=1e-7)


def test_what_is_a_matrix() -> None:
    net = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 16, 3),
            "dense": nn.Conv2d(16, 16, 3),
            "up": nn.ConvTranspose2d(16, 32, 2),
            "depthwise": nn.Conv2d(16, 16, 3, groups=16),
            "linear": nn.Linear(16, 32),
            "head": nn.Linear(32, 10),
            "table": nn.Embedding(32, 32),
            "norm": nn.LayerNorm(32),
        }
    )
    optimizer = optim.build(phase(net), CONFIG)
    assert isinstance(optimizer, Muon)
    names = {id(value): name for name, value in net.named_parameters()}
    found = {names[id(one)] for group in optimizer.param_groups if group["matrix"] for one in group["params"]}
    assert found == {"dense.weight", "up.weight", "linear.weight"}


def test_all_else_moves_by_adamw() -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16 * 4, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    made = [optim.build(phase(net), replace(CONFIG, optimizer=kind)) for net, kind in zip(nets, ("muon", "adamw"), strict=True)]  # type: ignore[arg-type]
    for seed in range(3):
        for net, optimizer in zip(nets, made, strict=True):
            optimizer.zero_grad()
            net(drawn(2, 3, 4, 4, seed=seed)).square().sum().backward()
            optimizer.step()
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_no_gradient_no_step() -> None:
    layer = nn.Linear(16, 16)
    before = layer.weight.detach().clone()
    optimizer = optim.build(phase(layer), CONFIG)
    optimizer.step()
    assert torch.equal(layer.weight, before) and not optimizer.state


def test_moments_of_another_kind_are_not_taken_up() -> None:
    """A layer that an edit made wide enough for a matrix starts afresh; the others go on."""
    small, wide = nn.Sequential(nn.Linear(15, 16), nn.Linear(16, 16)), nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    before, after = optim.build(phase(small), CONFIG), optim.build(phase(wide), CONFIG)
    small(drawn(2, 15)).sum().backward()
    before.step()
    held = optim.moments(before, {id(value): name for name, value in small.named_parameters()})
    moved = {
        name: {part: torch.ones(16, 16) if name == "0.weight" and value.ndim else value for part, value in parts.items()}
        for name, parts in held.items()
    }
    optim.take(after, moved, dict(wide.named_parameters()))
    assert wide[0].weight not in after.state and "momentum_buffer" in after.state[wide[1].weight]
    wide(drawn(2, 16)).sum().backward()
    after.step()
    assert after.state[wide[0].weight].keys() == {"momentum_buffer"}
