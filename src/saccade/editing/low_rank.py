"""LoRA: what is learned of a layer told by two thin ones; and layers that are two thin ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import nn
from torch.nn.modules.conv import _ConvNd

from saccade.core.errors import UserError
from saccade.editing.blocks import Adapted
from saccade.editing.steps import Adapt, Factor, Merge, part, sides, thinned
from saccade.editing.subject import Operation, Subject, nearest_of, usage

MOST_RANK = 1 << 16


@dataclass(frozen=True)
class AddLora(Operation):
    """Two layers, of R channels in between, beside each layer of a module (Hu et al. 2021, "LoRA"), scaled by 1; the layer itself is
    frozen. The second layer starts at 0, so that nothing changes."""

    name = "add-lora"
    usage = "add-lora R PATH, R the rank: add-lora 8 layer4"

    rank: int
    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """R PATH."""
        if len(words) != 2 or not rank(words[0]):
            raise usage(cls, words)
        return cls(int(words[0]), words[1])

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Beside each layer that has more channels than R."""
        for name in _layers(self, subject, self.path, self.rank, lambda layer: self.rank < min(sides(layer))):
            subject.take(Adapt(name, self.rank))
        return {}


@dataclass(frozen=True)
class MergeLora(Operation):
    """Each layer with LoRA becomes one plain layer again, which is trained as others are."""

    name = "merge-lora"
    usage = "merge-lora [PATH], all of the network without one"

    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """[PATH]."""
        if len(words) > 1:
            raise usage(cls, words)
        return cls(words[0] if words else "")

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Merge what is there."""
        adapted = [name for name, module in subject.network.named_modules() if isinstance(module, Adapted)]
        found = subject.inside(self.path, adapted)
        if not found:
            first = subject.find(self.path)[0] if self.path else ""
            near = subject.shown(nearest_of(subject.network, first, adapted)) if adapted else ""
            fix = f"{self.name} {near} would go" if near else "add-lora adds some"
            raise UserError(f"no layer of {self.path or 'the network'} has LoRA", where=self.name, fix=fix)
        for name in found:
            subject.take(Merge(name))
        return {}


@dataclass(frozen=True)
class Factorize(Operation):
    """Two layers of RANK channels in between in the place of one, by its largest singular vectors; a convolution as one of its kernel's
    size to RANK channels, and one of 1x1. At its full rank a layer does what it did."""

    name = "factorize"
    usage = "factorize PATH RANK: factorize head 16"
    promise = "changes the function"
    keeps = False

    path: str
    rank: int

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """PATH RANK."""
        if len(words) != 2 or not rank(words[1]):
            raise usage(cls, words)
        return cls(words[0], int(words[1]))

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Each layer that has fewer numbers then; one that is named itself whatever it has."""
        for name in _layers(self, subject, self.path, self.rank, lambda layer: self.rank * sum(sides(layer)) < layer.weight.numel()):
            subject.take(Factor(name, self.rank))
        return {}


def rank(word: str) -> bool:
    """Whether a word is a rank."""
    return word.isdecimal() and 1 <= int(word) <= MOST_RANK


def _layers(operation: Operation, subject: Subject, path: str, wanted: int, worth: Callable[[Any], bool]) -> list[str]:
    """The layers of a path: itself, or those inside that run and are worth it; raises UserError where there are none."""
    network, runs = subject.network, subject.calls()

    def free(name: str, layer: nn.Module) -> bool:
        return name in runs and thinned(layer) and not isinstance(part(network, name.rpartition(".")[0]), Adapted)

    named = subject.find(path)
    layers = [name for name, layer in network.named_modules() if free(name, layer)]
    inside = [name for name in layers if any(name.startswith(f"{one}.") for one in named) and worth(part(network, name))]
    itself = [name for name in layers if name in named and wanted <= min(sides(part(network, name)))]
    found = [name for name in layers if name in itself or name in inside]
    if found:
        return found
    first, least = part(network, named[0]), [name for name in layers if worth(part(network, name))]
    near = nearest_of(network, named[0], least)
    words = f"{wanted} {subject.shown(near)}" if operation.name == "add-lora" else f"{subject.shown(near)} {wanted}"
    if not near:
        near, most = max(((name, _most(operation, part(network, name))) for name in layers), key=lambda one: one[1], default=("", 0))
        words = f"{most} {subject.shown(near)}" if operation.name == "add-lora" else f"{subject.shown(near)} {most}"
        near = near if most else ""
    fix = f"{operation.name} {words} would go" if near else "no layer of this network would go"
    raise UserError(
        f"cannot {operation.name.replace('-lora', ' LoRA to')} {subject.shown(named[0])}: {_why(first, wanted)}", where=path, fix=fix
    )


def _most(operation: Operation, layer: Any) -> int:
    """The largest rank that a layer is worth it at."""
    return min(sides(layer)) - 1 if operation.name == "add-lora" else int((layer.weight.numel() - 1) // sum(sides(layer)))


def _why(module: nn.Module, wanted: int) -> str:
    if isinstance(module, Adapted):
        return "it has LoRA already: merge-lora makes it one layer"
    if thinned(module):
        return f"its rank is {min(sides(module))} and not {wanted}" if min(sides(module)) < wanted else "it does not run as one module"
    if list(module.children()):
        return f"it has no layers that would be smaller at rank {wanted}"
    return f"it is a {type(module).__name__}" + (" whose channels are not mixed" if isinstance(module, _ConvNd) else "")
