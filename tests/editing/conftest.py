"""One thread for every test of this folder; small networks with weights that hide nothing, as model files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.core import modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.data.sample import Schema
from saccade.editing import planning
from saccade.editing.edit import Build
from saccade.editing.planning import Planned
from saccade.nn import weights
from saccade.task import Budget
from saccade.tasks import room
from saccade.tasks.classification.models.classifier import Classifier
from saccade.tasks.classification.task import MEAN, STD
from small_jobs import one_thread as one_thread

SIZES = {"classify": (17, 11), "segment": (33, 20), "detect": (40, 64), "instances": (40, 64)}
CLASSES = ("a cat", "b", "c=d")


@dataclass
class Network:
    """A network, its card and how its room builds another."""

    module: nn.Module
    card: Card
    build: Build

    def plan(self, text: str, seed: int = 0) -> Planned:
        return planning.plan(text, self.module, self.card, self.build, seed)

    def save(self, path: Path) -> Path:
        return modelfile.save(path, weights.to_buffers(self.module), self.card)


def stir(module: nn.Module) -> nn.Module:
    """Weights and statistics that are neither 0 nor 1 anywhere, so that nothing is equal by chance."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.running_mean.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.03)
    return module.eval()


def make(task: str, model: str, size: tuple[int, int] | None = None) -> Network:
    size = size or SIZES[task]
    own = room(task)
    schema = Schema(task, CLASSES, {"train": (80, 80, 80), "val": (2, 2, 2)}, 3, size, True, {"train": 240, "val": 6}, ids=(4, 17, 90))
    config, _ = own.recipe(schema, "cpu", Budget(model=model, size=size, epochs=1))
    torch.manual_seed(0)
    module, card = own.create(override(config, {"device": "cpu", "precision": "fp32"}), schema)
    return Network(stir(module), card, own.build)


def flattening() -> Network:
    """A plain network of convolutions, whose map of 2x1 cells is flattened for linear layers (Simonyan & Zisserman 2015, "VGG")."""

    def cell(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    torch.manual_seed(0)
    features = nn.Sequential(*cell(3, 6), *cell(6, 8), *cell(8, 10))
    head = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 3))
    spec = InputSpec(3, (17, 11), "crop", MEAN, STD)
    network = nn.Sequential()
    network.features, network.flatten, network.head = features, nn.Flatten(), head
    card = Card("classify", CLASSES, {"source": "test", "arguments": {}}, spec)
    return Network(stir(Classifier(network, spec)), card, lambda card, elements: flattening().module)


def pixels(network: Network, n: int = 3, channels: int | None = None) -> Tensor:
    size = network.card.input.size
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (n, channels or network.card.input.channels, *size), generator=generator).to(torch.uint8)


@torch.no_grad()
def answers(module: nn.Module, images: Tensor) -> Tensor:
    found = module(images)
    return torch.cat([one.flatten(1) for one in found], 1) if isinstance(found, tuple) else found


@pytest.fixture(scope="session")
def networks() -> Callable[[str, str], Network]:
    """Each made once; tests leave it as it is."""
    kept: dict[tuple[str, str], Network] = {}

    def get(task: str, model: str) -> Network:
        if (task, model) not in kept:
            sizes = {"vit_tiny_patch16_224": (32, 32), "convnext_atto": (32, 32), "resnet18": (32, 32), "densenet121": (32, 32)}
            kept[task, model] = flattening() if model == "flattening" else make(task, model, sizes.get(model))
        return kept[task, model]

    return get
