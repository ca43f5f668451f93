"""Our own network: any size, stable names and numbers, true counts; hostile cards are refused before anything is allocated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.tasks.classification import models
from saccade.tasks.classification.models import classifier
from saccade.tasks.classification.models.small import SmallResNet
from saccade.tasks.classification.task import MEAN, STD

ARGUMENTS = {"classes": 3, "channels": 3, "width": 8, "blocks": [1, 1], "stem_stride": 1}
CARD = Card(
    "classify", ("a", "b", "c"), {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, InputSpec(3, (16, 16), "crop", MEAN, STD)
)


def with_arguments(**changes: Any) -> Card:
    return replace(CARD, architecture={**CARD.architecture, "arguments": {**ARGUMENTS, **changes}})


@pytest.mark.parametrize("size", [(8, 8), (17, 11), (65, 33), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_forward_and_backward_at_any_size(size: tuple[int, int], stride: int) -> None:
    torch.manual_seed(0)
    network = SmallResNet(5, 1, width=4, blocks=(1, 0, 2), stem_stride=stride)
    outputs = network(torch.randn(2, 1, *size))
    assert outputs.shape == (2, 5)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("size", "stride", "cells"), [((17, 11), 1, (9, 6)), ((65, 33), 2, (17, 9)), ((8, 8), 4, (1, 1))])
def test_the_map_is_halved_upwards(size: tuple[int, int], stride: int, cells: tuple[int, int]) -> None:
    network = SmallResNet(5, 3, width=4, blocks=(1, 1), stem_stride=stride)
    assert network.features(torch.randn(2, 3, *size)).shape == (2, 8, *cells)


def test_names_of_the_state_are_stable() -> None:
    """A model file of today must load tomorrow."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = ["conv1.weight", *(f"bn1.{n}" for n in norm), "conv2.weight", *(f"bn2.{n}" for n in norm)]
    shortcut = ["shortcut.1.weight", *(f"shortcut.2.{n}" for n in norm)]
    expected = ["features.0.0.weight", *(f"features.0.1.{n}" for n in norm)]
    expected += [f"features.1.0.{name}" for name in block] + [f"features.2.0.{name}" for name in [*block, *shortcut]]
    assert list(SmallResNet(3, width=8, blocks=(1, 1)).state_dict()) == [*expected, "head.weight", "head.bias"]


def test_golden_outputs() -> None:
    network = SmallResNet(4, 3, width=8, blocks=(1, 2), stem_stride=2, max_width=12).eval()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            values = torch.arange(parameter.numel(), dtype=torch.float32).add(index).mul(0.37).sin()
            parameter.copy_(values.view_as(parameter) * 0.3)
        image = torch.arange(3 * 17 * 11, dtype=torch.float32).mul(0.1).cos().view(1, 3, 17, 11)
        outputs = network(image)
    assert outputs[0].tolist() == pytest.approx(GOLDEN, abs=1e-4)


GOLDEN = [-0.199605, 0.226564, -0.062128, -0.579206]


def test_it_starts_as_its_shortcuts_and_undecided() -> None:
    torch.manual_seed(0)
    network = SmallResNet(3, width=8, blocks=(1, 1)).eval()
    assert all(block.bn2.weight.eq(0).all() for stage in network.features[1:] for block in stage)
    with torch.no_grad():
        assert network(torch.randn(4, 3, 9, 9)).softmax(1).sub(1 / 3).abs().max() < 0.1


@pytest.mark.parametrize("row", models.OWN, ids=lambda row: row.name)
def test_counts_of_our_own_are_true(row: Any) -> None:
    made = classifier.own(models.own(row.name, classes=1000, channels=3))
    assert sum(p.numel() for p in made.parameters()) == row.parameters
    assert bool(row.flops) == (row.size is not None)  # the others take any size
    if row.size is not None:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            made.eval()(torch.zeros(1, 3, *row.size))
        assert counter.get_total_flops() == row.flops


def test_counts_of_timms_are_true() -> None:
    import timm

    rows = sorted((r for r in models.rows() if r.source == "timm" and r.parameters < 30_000_000), key=lambda r: hash_of(r.name))[:6]
    for row in rows:
        with torch.device("meta"):
            network = timm.create_model(row.name, num_classes=1000, in_chans=3)
        assert sum(p.numel() for p in network.parameters()) == row.parameters, row.name


def hash_of(name: str) -> float:
    from saccade.core.keys import path_hash

    return path_hash(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 4},
        {"channels": 1},
        {"blocks": [10**9]},
        {"blocks": [1] * 60},
        {"blocks": []},
        {"blocks": "11"},
        {"blocks": [1.5]},
        {"blocks": [True]},
        {"blocks": {"1": 1}},
        {"blocks": [-1]},
        {"width": 0},
        {"width": 10**30},
        {"width": 2.0},
        {"width": "8"},
        {"width": None},
        {"max_width": 0},
        {"stem_stride": 0},
        {"stem_stride": 3},
        {"stem_stride": -1},
        {"dropout": 2},
        {"dropout": "much"},
        {"classes": "3"},
        {"unknown": 1},
        {"self": 1},
    ],
    ids=str,
)
def test_a_hostile_card_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        classifier.rebuild(with_arguments(**changes), 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "architecture", [{}, {"source": "saccade"}, {"source": "saccade", "arguments": [1]}, {"source": "pickle"}, {"source": []}]
)
def test_what_is_no_architecture_is_refused(architecture: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        classifier.rebuild(replace(CARD, architecture=architecture), 100_000)


def test_more_numbers_than_the_file_holds_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(UserError, match="but the file holds 100,000"):
        classifier.rebuild(with_arguments(width=8192), 100_000)  # 600 million numbers
    needed = sum(value.numel() for value in classifier.rebuild(CARD).state_dict().values())
    classifier.rebuild(CARD, needed)
    with pytest.raises(UserError):
        classifier.rebuild(CARD, needed - 1)


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.5,), (0.5,)), ((0.5,) * 3, (0.5,) * 2), ((0.5,) * 3, (0.5, 0.0, 1.0))])
def test_an_input_without_its_mean_and_std_is_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="mean and a std"):
        classifier.rebuild(replace(CARD, input=InputSpec(3, (16, 16), "crop", mean, std)))


def test_pixels_are_standardised_inside() -> None:
    module = classifier.rebuild(CARD)
    pixels = torch.randint(0, 255, (2, 3, 4, 5), dtype=torch.uint8)
    expected = (pixels.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(3, 1, 1)
    for given in (pixels, pixels.float()):
        found = module.normalize(given)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert not any("normalize" in name for name in module.state_dict()), "the card has it"
