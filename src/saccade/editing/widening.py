"""More channels, and fewer."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from saccade.core.errors import UserError
from saccade.editing.groups import Channels, Group, TiedError, inputs_after
from saccade.editing.pieces import FRESH, Pieces, pieces
from saccade.editing.steps import Resize, part, spread
from saccade.editing.subject import Operation, Subject, common, usage
from saccade.editing.tracing import by_channel, depthwise, mixes, transposed

MOST_FACTOR = 16.0


@dataclass(frozen=True)
class _Resizing(Operation):
    """A layer: it and all that is tied to its channels. Any other module: what is inside of it, of which nothing else knows."""

    path: str
    factor: float

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """PATH F."""
        if len(words) != 2 or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", words[1]):
            raise usage(cls, words)
        found = cls(words[0], float(words[1]))
        found._check()
        return found

    @abstractmethod
    def _check(self) -> None:
        """Raise UserError for a factor that is none."""

    @abstractmethod
    def _outputs(self, subject: Subject, group: Group) -> Pieces:
        """The new channels of a group."""

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Resize one group after the other."""
        channels = Channels(subject.trace())
        groups: list[Group] = []
        refused: UserError | None = None
        for name in subject.find(self.path):  # of the modules of a pattern those count that can be resized
            try:
                groups += self._groups(subject, channels, name)
            except TiedError as error:
                refused = refused or self._refused(subject, channels, name, error)
        if refused and not groups:
            raise refused
        for group in {frozenset(group.layers): group for group in groups}.values():  # told from any of its layers
            try:
                self._resize(subject, channels, group)
            except TiedError as error:
                why = " ".join(subject.shown(word) for word in error.message.split())
                fix = f"{self.name} others alone, one after the other"
                raise UserError(f"cannot {self.name} {subject.shown(group.layers[0])}: {why}", where=self.path, fix=fix) from None
        return {}

    def _groups(self, subject: Subject, channels: Channels, name: str) -> list[Group]:
        if mixes(part(subject.network, name)):
            return [channels.group(name)]
        found: list[Group] = []
        alone = depthwise(part(subject.network, name)) or by_channel(part(subject.network, name))
        nothing = TiedError("its channels are those of a layer before it" if alone else "it has no layers that give channels")
        reason: TiedError | None = None
        for layer in channels.trace.order:
            if not layer.startswith(f"{name}.") or any(layer in group.layers for group in found):
                continue
            try:
                found.append(self._inside(channels, name, layer))
            except TiedError as error:
                reason = reason or error
        if not found:
            raise reason or nothing
        return found

    def _inside(self, channels: Channels, name: str, layer: str) -> Group:
        """The group of a layer, where all of it stands in a module."""
        group = channels.group(layer)
        outside = [one for one in (*group.layers, *group.readers) if not one.startswith(f"{name}.")]
        if outside:
            raise TiedError(f"the channels of {layer} are tied to {outside[0]}, outside of it")
        return group

    def _refused(self, subject: Subject, channels: Channels, name: str, error: UserError) -> UserError:
        """The one line that says why, and what would go."""
        possible = []
        for layer in channels.trace.order:
            try:
                channels.group(layer)
                possible.append(layer)
            except TiedError:
                continue
        inside = [one for one in possible if one.startswith(f"{name}.")] or sorted(possible, key=lambda one: -common(one, name))
        fix = f"{self.name} {subject.shown(inside[0])} {self.factor:g} would go" if inside else "no layer of this network would go"
        why = " ".join(subject.shown(word) for word in error.message.split())
        return UserError(f"cannot {self.name} {subject.shown(name)}: {why}", where=self.path, fix=fix)

    def _resize(self, subject: Subject, channels: Channels, group: Group) -> None:
        group = channels.group(group.layers[0])  # its readers may have changed with another group
        outputs = list(self._outputs(subject, group))
        for layer in group.layers:
            subject.take(Resize(layer, outputs=outputs, std=spread(subject.network, layer)))
        inputs = inputs_after(channels.trace, group, outputs)
        for reader, runs in inputs.items():
            mixing = mixes(part(subject.network, reader))
            subject.take(Resize(reader, inputs=runs) if mixing else Resize(reader, outputs=runs))
        channels.follow(group, inputs)


class Widen(_Resizing):
    """More channels, whose outgoing weights are 0: the function stays as it is, and they learn from the first step on (Chen et al. 2016,
    "Net2Net", keeps the function by copies, which would get equal gradients)."""

    name = "widen"
    usage = "widen PATH F, of F times the channels: widen layer2 1.5"

    def _check(self) -> None:
        if not 1 < self.factor <= MOST_FACTOR:
            fix = f"widen {self.path} {MOST_FACTOR:g}, and once more" if self.factor > 1 else "prune PATH F takes channels away"
            raise UserError(f"must be more than 1 and at most {MOST_FACTOR:g}, was {self.factor:g}", where=f"widen {self.path}", fix=fix)

    def _outputs(self, subject: Subject, group: Group) -> Pieces:
        more = max(1, round(group.channels * (self.factor - 1)))
        return [(0, group.channels), (FRESH, more)]


class Prune(_Resizing):
    """Fewer channels: those whose weights have the smallest sums of magnitudes go (Li et al. 2017, "Pruning filters")."""

    name = "prune"
    usage = "prune PATH F, the share of the channels that go: prune layer3 0.3"
    promise = "changes the function"
    keeps = False

    def _check(self) -> None:
        if not 0 < self.factor < 1:
            fix = "remove PATH takes a module out" if self.factor >= 1 else f"prune {self.path} 0.1"
            raise UserError(f"must be more than 0 and less than 1, was {self.factor:g}", where=f"prune {self.path}", fix=fix)

    def _outputs(self, subject: Subject, group: Group) -> Pieces:
        kept = max(1, round(group.channels * (1 - self.factor)))
        strength = torch.zeros(group.channels, dtype=torch.float64)
        for name in group.layers:
            layer = part(subject.network, name)
            weight = layer.weight.detach().double().abs()
            strength += (weight.transpose(0, 1) if transposed(layer) else weight).flatten(1).sum(1)
        order = torch.sort(strength, descending=True, stable=True).indices[:kept]
        return pieces(sorted(order.tolist()))
