"""What an edit is planned on, and what every kind of edit has."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import nn

from saccade.core.card import Card
from saccade.core.errors import UserError, nearest
from saccade.core.geometry import whole
from saccade.editing.blocks import Followed
from saccade.editing.edit import Build, Promise
from saccade.editing.feeding import Inputs, doubled, run
from saccade.editing.steps import Draws, Step, part
from saccade.editing.steps.base import put
from saccade.editing.tracing import Trace, trace

HELD = "other parts of the network read what it holds"  # why nothing stands behind a module
TINY, SMALL = 8, 32  # pixels of a side that a network is traced at, and tried at, where it takes them
WRAPPER = "network."  # in front of every name of a network that stands behind its normalisation


@dataclass
class Subject:
    """A copy of a network that steps are tried on as they are found; card: of the network before; build: the room's."""

    network: nn.Module
    card: Card
    build: Build
    draws: Draws
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, network: nn.Module, card: Card, build: Build, seed: int) -> Self:
        """`network` itself is left as it is."""
        return cls(copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format), card, build, Draws(seed, len(card.edits)))

    def take(self, step: Step) -> None:
        """Change the copy, and note how."""
        step.apply(self.network, self.draws)
        self.steps.append(step)

    def trace(self) -> Trace:
        """The network as it is now, run once."""
        return trace(self.network, self.card.input.channels, sizes(self.card, least=TINY))

    def calls(self) -> dict[str, list[tuple[Any, Any]]]:
        """By module that runs: of each call the first input and the output, for two images or what they are made from."""
        found: dict[str, list[tuple[Any, Any]]] = {}

        def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found.setdefault(name, []).append((inputs[0] if inputs else None, output))

        inputs = doubled(self.trace().inputs)
        handles = [part.register_forward_hook(partial(note, name)) for name, part in self.network.named_modules()]
        try:
            run(self.network, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def shown(self, name: str) -> str:
        """A module's name as users give it."""
        return shown(self.network, name)

    def names(self) -> dict[str, str]:
        """All modules: as users name them -> as they are named."""
        found: dict[str, str] = {}
        for name, _ in self.network.named_modules():
            if name and name != WRAPPER[:-1]:
                found[self.shown(name)] = name
        return found

    def find(self, path: str) -> list[str]:
        """The modules of a name or pattern, without those inside others of them; raises UserError with the nearest names."""
        names = self.names()
        if path in names or path in names.values():
            return [names.get(path, path)]
        found = [full for name, full in names.items() if fnmatchcase(name, path)] if any(c in path for c in "*?[") else []
        if not found:
            tail = [name for name in names if name.endswith(f".{path}")][:3]
            close = tail or nearest(path, names, 3) or [name for name in names if "." not in name][:5]
            raise UserError(f"the network has no module {path!r}", where=path, fix=f"did you mean {', '.join(close)}?")
        return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]

    def inside(self, path: str, names: Iterable[str]) -> list[str]:
        """Those of the names that are, or stand in, the modules of a name or pattern; all of them for "". Raises UserError as `find`."""
        if not path:
            return list(names)
        named = tuple(f"{one}." for one in self.find(path))
        return [name for name in names if f"{name}.".startswith(named)]


class Operation(ABC):
    """One kind of edit. name, usage: of its text; promise: what becomes of the outputs;
    keeps: whether the card's figures hold after it, where it is exact."""

    name: ClassVar[str]
    usage: ClassVar[str]
    promise: Promise = "exact"
    keeps: bool = True

    @classmethod
    @abstractmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """The edit that the words after the name ask for; raises UserError."""

    @abstractmethod
    def plan(self, subject: Subject) -> dict[str, Any]:
        """Take the steps on the subject's copy; gives the card's fields that it changes, as they were. Raises UserError where it
        cannot be done."""

    def card(self, card: Card) -> Card:
        """The card after it, but for the edit itself."""
        return card

    def promised(self, card: Card) -> Promise:
        """The promise, for a model of this card."""
        return self.promise

    def kept(self, card: Card) -> Sequence[tuple[int, int]]:
        """The place before and after of each class that is still told."""
        return [(place, place) for place in range(len(card.classes))]


@dataclass(frozen=True)
class AtPath(Operation):
    """One whose text is a name or pattern of modules, and no more."""

    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """PATH."""
        if len(words) != 1:
            raise usage(cls, words)
        return cls(words[0])


def sizes(card: Card, *, least: int = SMALL) -> list[tuple[int, int]]:
    """The (height, width) that a network may be tried at, small ones first."""
    height, width = card.input.size
    sides = [side for side in (TINY, 2 * TINY, SMALL) if side >= least]
    small = [whole((min(height, side), min(width, side)), card.input.resize) for side in sides]
    return list(dict.fromkeys([*small, whole(card.input.size, card.input.resize)]))


def shown(network: nn.Module, name: str) -> str:
    """A name without what every network stands in: `network.`, where there is one."""
    inner: object = network
    while name.startswith(WRAPPER) and isinstance(inner := getattr(inner, "network", None), nn.Module):
        name = name.removeprefix(WRAPPER)
    return name


def usage(operation: type[Operation], words: Sequence[str]) -> UserError:
    """The error for words that are no edit of this kind."""
    return UserError(f"must be {operation.usage!r}", where=" ".join([operation.name, *words]))


def common(one: str, other: str) -> int:
    """How many parts two names have in common from the first on."""
    count = 0
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        count += 1
    return count


def stands_alone(network: nn.Module, name: str, inputs: Inputs) -> bool:
    """Whether a module can get another behind it: it is in a row of modules, or nothing of the network reads what it holds."""
    module = part(network, name)
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return True
    put(network, name, Followed(module, nn.Identity()))
    try:
        run(network, inputs)
    except AttributeError:
        return False
    finally:
        put(network, name, module)
    return True


def nearest_first(network: nn.Module, name: str, others: Iterable[str]) -> list[str]:
    """Other modules with weights: those of the same type first, then those that have most of a name."""

    def near(other: str) -> tuple[bool, int, int]:
        return type(part(network, other)) is type(part(network, name)), common(other, name), -other.count(".")

    fitting = (other for other in others if other not in ("", WRAPPER[:-1], name) and part(network, other).state_dict())
    return sorted(fitting, key=near, reverse=True)


def nearest_of(network: nn.Module, name: str, others: Iterable[str]) -> str:
    """The first of those, "" where there is none."""
    return next(iter(nearest_first(network, name, others)), "")


def around(network: nn.Module, name: str, others: Iterable[str]) -> list[str]:
    """Other modules with weights: what a module stands in first, from the inside out, then those that have most of a name."""
    fitting = [one for one in others if one not in ("", WRAPPER[:-1], name) and part(network, one).state_dict()]
    return sorted(fitting, key=lambda one: (not name.startswith(f"{one}."), -common(one, name), one.count(".")))


def probability(word: str) -> bool:
    """Whether a word is a number of [0, 1)."""
    return bool(re.fullmatch(r"0|0?\.\d+|0\.", word))
