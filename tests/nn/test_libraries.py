"""Networks of timm and torchvision take the state dict of their own library, and answer as the library's do."""

from __future__ import annotations

import os
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.core.config import TrainConfig
from saccade.data.sample import Schema
from saccade.nn import checkpoints
from saccade.nn.checkpoints import Checkpoint
from saccade.nn.weights import to_buffers
from saccade.tasks import room
from saccade.tasks.classification import models

FAMILIES = ("resnet*", "vgg*", "densenet*", "torchvision/*")
ROWS = [row for row in models.rows() if any(fnmatch(row.name, family) for family in FAMILIES)]
LARGE = 12_000_000
QUICK = (
    "resnet18",
    "torchvision/vgg11",
    "torchvision/densenet121",
    "torchvision/mnasnet0_5",
    "torchvision/googlenet",
    "torchvision/vit_b_32",
)


def theirs(name: str) -> nn.Module:
    """The library's own, with batch statistics that are none of a fresh network's."""
    torch.manual_seed(0)
    base = name.removeprefix("torchvision/")
    module: Any
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if base == name:
            import timm

            module = timm.create_model(name, pretrained=False, num_classes=10)
        else:
            from torchvision.models import get_model, get_model_weights

            size = get_model_weights(base).DEFAULT.transforms().crop_size[0]
            module = get_model(base, weights=None, num_classes=10, **({"image_size": size} if base.startswith("vit_") else {}))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def check(row: Any) -> None:
    module = theirs(row.name)
    size = row.size
    schema = Schema("classify", tuple(map(str, range(10))), {}, 3, size, uniform=True)
    config = TrainConfig(task="classify", model=row.name, size=size)
    network, card = room("classify").create(config, schema)
    # The tensors as a file has them, behind a wrapping.
    tensors = {f"module.{name}": buffer for name, buffer in to_buffers(module).items()}
    taken = checkpoints.take(network, Checkpoint(Path(row.name), tensors), checkpoints.Place(), (), least=1.0)
    assert taken.share == 1.0
    pixels = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.input.mean, card.input.std))
    with torch.no_grad():
        # Both see the same floats: what rounds in the last bit of an input grows through 150 layers of random weights beyond 1e-5.
        seen = network.normalize(pixels)
        torch.testing.assert_close(seen, (pixels.float() / 255 - mean) / std, rtol=0, atol=1e-5)
        wanted = module(seen)
        found = network.eval()(pixels)
    scale = float(wanted.abs().max().clamp_min(1))
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", QUICK)
def test_a_few(name: str) -> None:
    check(models.find(name))


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in QUICK], ids=lambda row: row.name)
def test_all(row: Any) -> None:
    if row.parameters > LARGE and not os.environ.get("SACCADE_LARGE_MODELS"):
        pytest.skip("a larger one, to save minutes: runs with SACCADE_LARGE_MODELS=1")
    check(row)
