"""Dropout keyed by the image's position: the same draws however a batch is cut, and the distribution that it must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from saccade.nn.layers.keyed import KeyedDropout, stand_in


def network(*layers: nn.Module, seed: int = 3) -> tuple[nn.Sequential, object]:
    made = nn.Sequential(*layers)
    return made, stand_in(made, seed)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout(0.4), (7,)),
        (nn.Dropout(0.4), (3, 5, 4)),
        (nn.Dropout2d(0.4), (6, 5, 4)),
        (DropPath(0.4), (3, 4)),
        (StochasticDepth(0.4, "row"), (3, 4, 2)),
    ],
)
def test_a_part_of_a_batch_draws_as_the_whole_does(layer: nn.Module, shape: tuple[int, ...]) -> None:
    net, draws = network(nn.Identity(), layer)
    assert type(net[1]) is KeyedDropout
    positions = np.arange(100, 112)
    x = torch.rand(12, *shape) + 0.5
    draws.begin("train", positions)
    whole = net(x)
    torch.manual_seed(99)
    for start in (0, 5):
        draws.begin("train", positions[start : start + 5])
        assert torch.equal(net(x[start : start + 5]), whole[start : start + 5])
    draws.begin("train", positions[::-1].copy())
    assert torch.equal(net(x.flip(0)), whole.flip(0))
    kept = whole != 0
    assert torch.allclose(whole[kept], (x / 0.6)[kept])
    assert torch.equal(net.eval()(x), x)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_dropped_is_p_in_every_direction(p: float) -> None:
    net, draws = network(nn.Dropout(p))
    draws.begin("train", np.arange(400))
    dropped = (net(torch.ones(400, 600)) == 0).float()
    assert abs(float(dropped.mean()) - p) < 0.004
    assert float((dropped.mean(0) - p).abs().max()) < 5 * (p * (1 - p) / 400) ** 0.5
    assert float((dropped.mean(1) - p).abs().max()) < 5 * (p * (1 - p) / 600) ** 0.5
    centred = dropped - dropped.mean()
    rows = (centred @ centred.T / 600 / (p * (1 - p))).fill_diagonal_(0)
    assert float(rows.abs().max()) < 6 / 600**0.5, "no two images share draws"


def test_draws_differ_by_seed_phase_layer_position_and_call() -> None:
    net, draws = network(nn.Dropout(0.5), nn.Dropout(0.5))
    other, others = network(nn.Dropout(0.5), seed=4)
    x, positions = torch.ones(4, 64), np.arange(4)
    draws.begin("train", positions)
    first, second = net[0](x), net[1](x)
    again = net[0](x)
    draws.begin("other", positions)
    phase = net[0](x)
    draws.begin("train", positions + 4)
    later = net[0](x)
    others.begin("train", positions)
    seed = other[0](x)
    found = [first, second, again, phase, later, seed]
    assert len({tuple(one.flatten().tolist()) for one in found}) == len(found)
    draws.begin("train", positions)
    assert torch.equal(net[0](x), first)


def test_gradients_pass_where_the_values_do() -> None:
    net, draws = network(nn.Dropout(0.5))
    x = torch.ones(4, 8, requires_grad=True)
    draws.begin("train", np.arange(4))
    y = net(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_what_may_stay_stays() -> None:
    shared = nn.Dropout(0.3)
    net, _ = network(nn.Dropout(0.0), StochasticDepth(0.3, "batch"), nn.AlphaDropout(0.2), shared, nn.Sequential(shared))
    kinds = [type(module) for module in net]
    assert kinds[:3] == [nn.Dropout, StochasticDepth, nn.AlphaDropout]
    assert isinstance(net[3], KeyedDropout) and isinstance(net[4][0], KeyedDropout), "also what stands in two places"
    assert list(net.state_dict()) == []


def test_rows_that_are_not_images_draw_from_torch() -> None:
    net, draws = network(nn.Dropout(0.5))
    draws.begin("train", np.arange(2))
    torch.manual_seed(0)
    one = net(torch.ones(6, 50))
    torch.manual_seed(0)
    assert torch.equal(net(torch.ones(6, 50)), one)
    assert 0.3 < float((one == 0).float().mean()) < 0.7
