"""How a network runs: what drops in training, and at how many pixels it sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import nn

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.geometry import whole
from saccade.editing.feeding import makes
from saccade.editing.steps import Drop, Grow, Size, droppable, drops, sized
from saccade.editing.subject import Operation, Subject, probability, usage
from saccade.nn.stems import Resized, is_a

MOST_SIDE, UNIT = 16384, 32


@dataclass(frozen=True)
class SetDrop(Operation):
    """The probability of all dropout and stochastic depth, or of that in a module; nothing changes but in training."""

    name = "set-drop"
    usage = "set-drop P [PATH], from 0 to below 1: set-drop 0.2, set-drop 0.1 *.drop_path*"

    p: float
    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """P [PATH]."""
        if not 1 <= len(words) <= 2 or not probability(words[0]):
            raise usage(cls, words)
        return cls(float(words[0]), words[1] if len(words) == 2 else "")

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Set each, in place of modules that are named and do nothing too."""
        named = subject.find(self.path) if self.path else [""]
        modules = dict(subject.network.named_modules())
        inside = set(subject.inside(self.path, modules))
        found = [name for name, one in modules.items() if (name in inside and drops(one)) or (name in named and droppable(name, one))]
        if not found:
            there = next((subject.shown(name) for name, module in subject.network.named_modules() if drops(module)), "")
            fix = f"set-drop {self.p:g} {there} would go" if there else "insert-after PATH Dropout puts one in"
            raise UserError(f"nothing drops in {self.path or 'this network'}", where=self.name, fix=fix)
        for name in found:
            subject.take(Drop(name, self.p))
        return {}


@dataclass(frozen=True)
class SetSize(Operation):
    """Images are brought to another size. The positions of a vision transformer are interpolated; what a network enlarges its image to
    grows alike."""

    name = "set-size"
    usage = "set-size HxW, height by width in pixels: set-size 320x320"
    promise = "changes the function"
    keeps = False

    size: tuple[int, int]

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """HxW."""
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", words[0]) if len(words) == 1 else None
        if found is None or not all(1 <= int(side) <= MOST_SIDE for side in found.groups()):
            raise usage(cls, words)
        return cls((int(found[1]), int(found[2])))

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Tell the parts that have a size of their own."""
        old = subject.card.input.size
        if makes(subject.network):
            fix = f"grow-resolution lets a GAN (r3gan) make them of {2 * old[0]}x{2 * old[1]}"
            raise UserError("a model that makes images makes them of the size that it has learned", where=self.name, fix=fix)
        if old == self.size:
            fix = f"{self.name} {2 * old[0]}x{2 * old[1]} would be another"
            raise UserError(f"the model takes images of {old[0]}x{old[1]} already", where=self.name, fix=fix)
        self._check(subject.network)
        height, width = whole(self.size, subject.card.input.resize)
        for module in subject.network.modules():
            if isinstance(module, Resized):
                height, width = (_grown(*sides) for sides in zip(module.size, self.size, old, strict=True))
        tall, wide = _patch(subject.network)
        if height % tall or width % wide:
            fix = f"{self.name} {-(-height // tall) * tall}x{-(-width // wide) * wide} would go"
            raise UserError(f"the network cuts its image into patches of {tall}x{wide}", where=self.name, fix=fix)
        subject.take(Size(height, width))
        return {"size": list(old)}

    def _check(self, network: nn.Module) -> None:
        for module in network.modules():
            told = getattr(module, "pretrained_cfg", None) or {}
            if told.get("fixed_input_size", False) and sized(network) is None:
                raise UserError("this network is built for images of one size", where=self.name, fix="train one for the other size")

    def card(self, card: Card) -> Card:
        """With the new size."""
        return replace(card, input=replace(card.input, size=self.size))


@dataclass(frozen=True)
class GrowResolution(Operation):
    """Images of twice the size: those of before, each pixel as four, to which a new stage adds nothing yet; so for the judge."""

    name = "grow-resolution"
    usage = "grow-resolution"
    keeps = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """No words."""
        if words:
            raise usage(cls, words)
        return cls()

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Let the network grow."""
        size = subject.card.input.size
        if not makes(subject.network):
            raise UserError("this model makes no images", where=self.name, fix=f"set-size {2 * size[0]}x{2 * size[1]} takes larger ones")
        if max(size) > MOST_SIDE // 2:
            raise UserError(f"images have at most {MOST_SIDE} pixels a side", where=self.name, fix="this model does not grow further")
        subject.take(Grow())
        return {"size": list(size)}

    def card(self, card: Card) -> Card:
        """With twice the size."""
        height, width = card.input.size
        return replace(card, input=replace(card.input, size=(2 * height, 2 * width)))


def _grown(inner: int, new: int, old: int) -> int:
    """A side to which an image is enlarged, as much larger as the image; a multiple of 32, of 16 or of less, as it was."""
    unit = next(unit for unit in (UNIT, 16, 8, 4, 2, 1) if not inner % unit)
    return max(unit, -(-inner * new // (old * unit)) * unit)


def _patch(network: nn.Module) -> tuple[int, int]:
    """Height and width of the patches that an image is cut into; 1 where it is not."""
    cut: Any = next((module for module in network.modules() if is_a(module, "layers.patch_embed.PatchEmbed")), None)
    return (int(cut.patch_size[0]), int(cut.patch_size[1])) if cut else (1, 1)
