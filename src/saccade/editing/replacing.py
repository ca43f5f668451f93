"""Other activations, other normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.core.errors import UserError, nearest, unknown
from saccade.editing.steps import ACTIVATIONS, Group, Replace, Step, Unbiased, groupable, layered, part
from saccade.editing.subject import Operation, Subject, usage

MOST_GROUPS, LEAST_CHANNELS = 32, 8  # of GroupNorm: 32 groups (Wu & He 2018), fewer where they would have less than 8 channels
NORMS: dict[str, type[nn.Module]] = {  # that may go, by the names of their types; "BatchNorm": of whatever number of axes
    "BatchNorm": _BatchNorm,
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "LayerNorm": nn.LayerNorm,
}


@dataclass(frozen=True)
class Place:
    """What a module can stand in the place of: its kind, and whether another is of that."""

    kind: str
    fits: Callable[[nn.Module], bool]


ACTIVATION = Place("activation", lambda module: type(module).__name__ in ACTIVATIONS)
PLACES = {
    **dict.fromkeys(ACTIVATIONS, ACTIVATION),
    "GroupNorm": Place("batch normalisation with statistics", groupable),
    "RMSNorm": Place("LayerNorm of the last axis", layered),
}


@dataclass(frozen=True)
class Exchange(Operation):
    """Every activation of a type, or the one of a name, by another; so normalisations. GroupNorm has the weights with which maps whose
    statistics are the running ones are normalised as they were; RMSNorm has no bias."""

    name = "replace"
    usage = "replace TYPE|PATH TYPE: replace ReLU SiLU, replace BatchNorm GroupNorm [GROUPS]"
    promise = "changes the function"
    keeps = False

    what: str
    by: str
    groups: int = 0

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """TYPE|PATH TYPE [GROUPS]."""
        if not 2 <= len(words) <= 3:
            raise usage(cls, words)
        if words[1] not in PLACES:
            raise unknown("module", words[1], PLACES, where=cls.name)
        if len(words) == 2:
            return cls(words[0], words[1])
        if words[1] != "GroupNorm" or not words[2].isdecimal() or not 1 <= int(words[2]) <= 1 << 16:
            raise usage(cls, words)
        return cls(words[0], words[1], int(words[2]))

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Put them in one by one."""
        for name in self._found(subject):
            subject.take(self._step(subject, name))
        return {}

    def _step(self, subject: Subject, name: str) -> Step:
        if self.by == "RMSNorm":
            return Unbiased(name)
        if self.by != "GroupNorm":
            return Replace(name, self.by)
        channels = part(subject.network, name).num_features
        most = min(MOST_GROUPS, max(1, channels // LEAST_CHANNELS))
        groups = self.groups or _groups(channels, most)
        if channels % groups:
            problem = f"the {channels} channels of {subject.shown(name)} cannot be {groups} groups"
            raise UserError(
                problem, where=self.name, fix=f"{self.name} {subject.shown(name)} GroupNorm {_groups(channels, groups)} would go"
            )
        return Group(name, groups)

    def _found(self, subject: Subject) -> list[str]:
        """The modules that go: of those of a type or pattern the ones that fit."""
        place, modules = PLACES[self.by], dict(subject.network.named_modules())
        if self.what in ACTIVATIONS:
            named = [name for name, module in modules.items() if type(module) is ACTIVATIONS[self.what]]
        elif self.what in NORMS:
            named = [name for name, module in modules.items() if isinstance(module, NORMS[self.what])]
        else:
            named = self._of_path(subject)
        found = [name for name in named if place.fits(modules[name])]
        if found:
            return found
        problem = f"the network has no module of type {self.what}"
        if named:
            article = "an" if place.kind[0] in "aeiou" else "a"
            problem = f"{self.by} is for {article} {place.kind}: {subject.shown(named[0])} is a {type(modules[named[0]]).__name__}"
        near = next((subject.shown(name) for name, module in modules.items() if place.fits(module) and type(module) is not nn.Identity), "")
        fix = f"{self.name} {near} {self.by} would go" if near else f"it has no module that {self.by} could stand for"
        raise UserError(problem, where=self.name, fix=fix)

    def _of_path(self, subject: Subject) -> list[str]:
        """The modules of a name or pattern; raises UserError with the nearest names, types of modules too where one is near."""
        try:
            return subject.find(self.what)
        except UserError:
            types = {type(module).__name__ for module in subject.network.modules()} & {*ACTIVATIONS, *NORMS}
            if nearest(self.what, types):
                raise unknown("module or type of module", self.what, [*sorted(types), *subject.names()], where=self.name) from None
            raise


def _groups(channels: int, most: int) -> int:
    """The largest number of equal groups, at most `most`."""
    return next(count for count in range(min(most, channels), 0, -1) if not channels % count)
