"""The average: starts near the weights, then follows by its half-life; never disturbs the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.training.ema import Average


def filled(value: float) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.fill_(value)
    return net


def test_the_first_update_takes_most_and_counters_are_copied() -> None:
    average = Average(filled(0), half_life=100)
    average.update(filled(10), 0)
    state = average.state()
    assert state["0.weight"].unique().tolist() == pytest.approx([9.0])
    assert state["1.running_var"].unique().tolist() == pytest.approx([9.0])
    assert state["1.num_batches_tracked"].item() == 10


def test_half_life() -> None:
    average = Average(filled(1), half_life=7)
    model = filled(0)
    for step in range(1000, 1007):
        average.update(model, step)
    assert average.state()["0.bias"].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


def test_decay_is_capped_early() -> None:
    average = Average(filled(0), half_life=1e9)
    average.update(filled(1), 90)
    assert average.state()["0.bias"][0].item() == pytest.approx(0.09)


def test_it_is_a_copy_of_its_own_in_evaluation_mode() -> None:
    model = filled(1).to(memory_format=torch.channels_last).train()
    average = Average(model, half_life=3)
    average.update(filled(5), 3)
    assert model[0].weight.unique().tolist() == [1.0]
    assert model.training
    assert not average.module.training
    assert all(not p.requires_grad for p in average.module.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_a_half_life_of_nothing_is_the_model_itself() -> None:
    average = Average(filled(0), half_life=0)
    average.update(filled(3), 50)
    assert average.state()["0.weight"].unique().tolist() == [3.0]
