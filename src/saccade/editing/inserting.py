"""Modules put in behind others, and taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from saccade.core.card import Card
from saccade.core.errors import UserError, unknown
from saccade.editing.edit import Promise
from saccade.editing.steps import ACTIVATIONS, DROPS, OF_MAPS, Insert, Remove, part
from saccade.editing.subject import HELD, AtPath, Operation, Subject, nearest_first, nearest_of, probability, stands_alone, usage
from saccade.editing.tracing import is_map

MODULES = ["SqueezeExcite", *DROPS, *(name for name in ACTIVATIONS if name != "Identity")]
Calls = Mapping[str, list[tuple[Any, Any]]]


@dataclass(frozen=True)
class InsertAfter(Operation):
    """SqueezeExcite starts as one that changes nothing; so is dropout, but in training; an activation changes the function."""

    name = "insert-after"
    usage = "insert-after PATH MODULE: insert-after layer4 SqueezeExcite, insert-after head Dropout [P]"

    path: str
    kind: str
    p: float

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """PATH MODULE [P]."""
        if not 2 <= len(words) <= 3:
            raise usage(cls, words)
        if words[1] not in MODULES:
            raise unknown("module", words[1], MODULES, where=cls.name)
        drops = words[1] in DROPS
        if len(words) == 3 and not (drops and probability(words[2])):
            raise usage(cls, words)
        return cls(words[0], words[1], float(words[2]) if len(words) == 3 else 0.5 if drops else 0.0)

    def promised(self, card: Card) -> Promise:
        """As the class says."""
        return "changes the function" if self.kind in ACTIVATIONS else "exact"

    def plan(self, subject: Subject) -> dict[str, Any]:
        """One behind each module of the path."""
        calls, inputs, network = subject.calls(), subject.trace().inputs, subject.network
        for name in subject.find(self.path):
            problem, channels = self._channels(network, name, calls)
            if not problem and not stands_alone(network, name, inputs):
                problem = HELD
            if problem:
                fitting = nearest_first(network, name, (one for one in calls if not self._channels(network, one, calls)[0]))
                near = next((one for one in fitting if stands_alone(network, one, inputs)), "")
                fix = f"{self.name} {subject.shown(near)} {self.kind} would go" if near else "no module of this network would go"
                raise UserError(f"cannot insert {self.kind} behind {subject.shown(name)}: {problem}", where=self.path, fix=fix)
            if self.kind in OF_MAPS:
                subject.take(Insert(name, kind=self.kind, channels=channels, zero=["fc2.weight", "fc2.bias"]))
            else:
                subject.take(Insert(name, kind=self.kind, p=self.p))
        return {}

    def _channels(self, network: nn.Module, name: str, calls: Calls) -> tuple[str, int]:
        """Why it cannot stand there, "" where it can; the channels of the maps that the module gives."""
        module, outputs = part(network, name), [output for _, output in calls.get(name, [])]
        if not outputs:
            return "it does not run as one module", 0
        if not all(isinstance(output, Tensor) and output.is_floating_point() for output in outputs):
            return "it gives no single tensor", 0
        shapes = {tuple(output.shape) for output in outputs}
        if self.kind not in OF_MAPS and self.kind != "Dropout2d":
            return "", 0
        if not all(output.ndim == 4 and is_map(module, output) for output in outputs) or len({shape[1] for shape in shapes}) != 1:
            return f"it gives no map [B, C, H, W] but {_sizes(outputs[0])}", 0
        return "", int(outputs[0].shape[1])


@dataclass(frozen=True)
class Take(AtPath):
    """A module goes, and what it takes goes on: one that gives what has the shape of that."""

    name = "remove"
    usage = "remove PATH"
    promise = "changes the function"
    keeps = False

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Take each module of the path out."""
        calls = subject.calls()
        for name in subject.find(self.path):
            problem = _kept(calls.get(name, []))
            if problem:
                near = nearest_of(subject.network, name, (one for one, met in calls.items() if not _kept(met)))
                fix = f"{self.name} {subject.shown(near)} would go" if near else "no module of this network would go"
                raise UserError(f"cannot remove {subject.shown(name)}: {problem}", where=self.path, fix=fix)
            subject.take(Remove(name))
        return {}


def _kept(met: Sequence[tuple[Any, Any]]) -> str:
    """Why a module is needed, by its calls; "" where its output could be its input."""
    if not met:
        return "it does not run as one module"
    for given, output in met:
        if not (isinstance(given, Tensor) and isinstance(output, Tensor)):
            return "it does not take one tensor to another"
        if given.shape != output.shape or given.dtype != output.dtype:
            return f"it takes {_sizes(given)} and gives {_sizes(output)}"
    return ""


def _sizes(x: Tensor) -> str:
    kind = "" if x.is_floating_point() else f"{x.dtype} ".removeprefix("torch.")
    return kind + "x".join(map(str, x.shape))
