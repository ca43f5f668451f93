"""Other activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from saccade.core.errors import UserError, unknown
from saccade.editing.steps import ACTIVATIONS, Replace, part
from saccade.editing.subject import Operation, Subject, usage


@dataclass(frozen=True)
class Exchange(Operation):
    """Every activation of a type, or the one of a name, by another."""

    name = "replace"
    usage = "replace TYPE|PATH TYPE: replace ReLU SiLU"
    promise = "changes the function"
    keeps = False

    what: str
    by: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """TYPE|PATH TYPE."""
        if len(words) != 2:
            raise usage(cls, words)
        if words[1] not in ACTIVATIONS:
            raise unknown("activation", words[1], ACTIVATIONS, where=cls.name)
        return cls(*words)

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Put them in one by one."""
        for name in self._found(subject):
            subject.take(Replace(name, self.by))
        return {}

    def _found(self, subject: Subject) -> list[str]:
        modules = dict(subject.network.named_modules())
        if self.what not in ACTIVATIONS:
            found = subject.find(self.what)
            other = next((name for name in found if type(part(subject.network, name)).__name__ not in ACTIVATIONS), None)
            if other is not None:
                kind = type(part(subject.network, other)).__name__
                raise UserError(f"{subject.shown(other)} is no activation but a {kind}", where=self.what, fix="name an activation, or ReLU")
            return found
        found = [name for name, module in modules.items() if type(module) is ACTIVATIONS[self.what]]
        if not found:
            there = sorted({type(module).__name__ for module in modules.values()} & set(ACTIVATIONS))
            fix = f"it has {', '.join(there)}" if there else "its activations are functions, not modules"
            raise UserError(f"the network has no module of type {self.what}", where=self.name, fix=fix)
        return found
