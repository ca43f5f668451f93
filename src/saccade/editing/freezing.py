"""Parts of a network that are learned no longer, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from saccade.core.errors import UserError
from saccade.editing import steps
from saccade.editing.subject import AtPath, Subject, nearest_of


@dataclass(frozen=True)
class _Freezing(AtPath):
    """The modules of a name or pattern; on: whether they rest from here on, or learn again."""

    on: ClassVar[bool]

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Tell each module that has parameters of the other kind. Raises UserError where there is none, and where nothing would learn."""
        named = subject.find(self.path)
        found = [name for name in named if any(p.requires_grad == self.on for p in steps.part(subject.network, name).parameters())]
        if not found:
            raise self._refused(subject, f"{self.path} {'learns' if not self.on else 'does not learn'} already", named[0])
        for name in found:
            subject.take(steps.Freeze(name, self.on))
        if not any(p.requires_grad for p in subject.network.parameters()):
            raise UserError("nothing would be left that learns", where=f"{self.name} {self.path}", fix=self._part(subject, found[0]))
        return {}

    def _refused(self, subject: Subject, why: str, name: str) -> UserError:
        """With the nearest module that is not so already."""
        modules = dict(subject.network.named_modules())
        others = [one for one, module in modules.items() if any(p.requires_grad == self.on for p in module.parameters())]
        near = nearest_of(subject.network, name, others)
        instead = f"{self.name} {subject.shown(near)} would go" if near else f"all of the network {'learns' if not self.on else 'rests'}"
        return UserError(why, where=self.name, fix=instead)

    def _part(self, subject: Subject, name: str) -> str:
        """A part of what was to be frozen, so that the rest learns."""
        inner = [
            one for one, module in subject.network.named_modules() if one.startswith(f"{name}.") and any(True for _ in module.parameters())
        ]
        return f"{self.name} {subject.shown(inner[0])} would go" if inner else "leave another part that learns: unfreeze PATH"


class Freeze(_Freezing):
    """Its parameters, and the statistics of its batch normalisations, stay as they are in training."""

    name = "freeze"
    usage = "freeze PATH: freeze layer1, freeze 'features.[01]'"
    on = True


class Unfreeze(_Freezing):
    """It learns again."""

    name = "unfreeze"
    usage = "unfreeze PATH: unfreeze '*'"
    on = False
