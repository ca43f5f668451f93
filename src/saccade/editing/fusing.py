"""Batch normalisations taken up by the layers before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.core.errors import UserError
from saccade.editing.feeding import Inputs, run
from saccade.editing.steps import Fold, foldable
from saccade.editing.subject import Operation, Subject, nearest_of, usage


@dataclass(frozen=True)
class Fuse(Operation):
    """Exact for a network that predicts; one that trains on has no batch statistics there any more."""

    name = "fuse"
    usage = "fuse [PATH], all of the network without one"

    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """[PATH]."""
        if len(words) > 1:
            raise usage(cls, words)
        return cls(words[0] if words else "")

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Fold each normalisation that reads nothing but one layer's output."""
        pairs = _pairs(subject.network, subject.trace().inputs)
        norms = subject.inside(self.path, (norm for _, norm in pairs))
        wanted = [pair for pair in pairs if pair[1] in norms]
        if not wanted:
            first = subject.find(self.path)[0] if self.path else ""
            near = nearest_of(subject.network, first, (norm for _, norm in pairs)) if pairs else ""
            fix = f"{self.name} {subject.shown(near)} would go" if near else "no module of this network would go"
            place = f"fuse {subject.shown(first)}" if first else "fuse"
            raise UserError("no batch normalisation stands right behind a layer", where=place, fix=fix)
        for layer, norm in wanted:
            subject.take(Fold(layer, norm))
        return {}


def _pairs(network: nn.Module, inputs: Inputs) -> list[tuple[str, str]]:
    """Layers and the normalisations that take just what they give; both run once."""
    given: list[tuple[str, Tensor]] = []
    taken: list[tuple[str, str]] = []

    def give(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        given.append((name, output))

    def take(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken.append((next((layer for layer, output in given if output is inputs[0]), ""), name))

    handles = []
    for name, part in network.named_modules():
        if foldable(part):
            handles.append(part.register_forward_hook(partial(give, name)))
        elif isinstance(part, _BatchNorm):
            handles.append(part.register_forward_pre_hook(partial(take, name)))
    try:
        run(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    layers, norms = [layer for layer, _ in given], [norm for _, norm in taken]
    return [(layer, norm) for layer, norm in taken if layer and layers.count(layer) == 1 and norms.count(norm) == 1]
