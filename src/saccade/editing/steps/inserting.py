"""Steps that put modules in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import nn

from saccade.core.errors import UserError
from saccade.editing.blocks import Followed, Passed, Residual, SqueezeExcite
from saccade.editing.sources import Source, generator, of_block
from saccade.editing.steps.base import MOST_MODULES, STRICT, Draws, Sources, part, put, set_tensor
from saccade.editing.steps.replacing import ACTIVATIONS
from saccade.nn.layers.exits import Exit

OF_MAPS: dict[str, type[nn.Module]] = {"Residual": Residual, "SqueezeExcite": SqueezeExcite}
DROPS: dict[str, type[nn.Module]] = {"Dropout": nn.Dropout, "Dropout2d": nn.Dropout2d}
KINDS = {*OF_MAPS, *DROPS, *ACTIVATIONS}
MOST_GRID = 4  # parts of a map's side that an exit tells apart


@dataclass(frozen=True)
class _Behind:
    """A new module at the end of a stage, or, where `at` is none, behind it."""

    at: str

    def block(self, network: nn.Module) -> nn.Module:
        """The new block, not yet with its numbers; on the device of the network."""
        raise NotImplementedError

    def drawn(self, block: nn.Module) -> Sources:
        """Where its tensors come from."""
        raise NotImplementedError

    def name(self, network: nn.Module) -> str:
        """Of the new block."""
        stage = part(network, self.at)
        return f"{self.at}.{len(stage)}" if isinstance(stage, nn.Sequential | nn.ModuleList) else f"{self.at}.1"

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the new block, and, where it stands behind a module, those of that, which has a new name."""
        stage, name = part(network, self.at), self.name(network)
        found = {f"{name}.{key}": source for key, source in self.drawn(self.block(network)).items()}
        if not isinstance(stage, nn.Sequential | nn.ModuleList):
            found |= {f"{self.at}.0.{key}": Source(f"{self.at}.{key}") for key in stage.state_dict()}
        return found

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Make the block and put it in."""
        stage, name, block = part(network, self.at), self.name(network), self.block(network)
        state = block.state_dict()
        for key, source in self.drawn(block).items():
            if not source.name:
                set_tensor(block, key, source.carried(state[key], generator(draws.seed, draws.number, f"{name}.{key}")))
        block.train(stage.training)
        if isinstance(stage, nn.Sequential | nn.ModuleList):
            stage.append(block)
        else:
            put(network, self.at, Followed(stage, block).train(stage.training))

    def _fits(self, network: nn.Module, block: nn.Module, most: int) -> None:
        """Raise UserError for a block of more than `most` numbers."""
        needed = sum(p.numel() for p in block.parameters())
        modules = sum(1 for _ in block.modules())
        if needed > most or modules + sum(1 for _ in network.modules()) > MOST_MODULES:
            raise UserError(f"a block of {needed:,} numbers is more than the file holds, {most:,}", where="card")


@dataclass(frozen=True)
class Insert(_Behind):
    """A new module at the end of a stage, or, where `at` is none, behind it. like: the block that it is a copy of, "": one of `kind`, for
    maps of `channels`, or that drops with probability `p`; zero: its tensors that start at 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    like: str = ""
    kind: str = "Residual"
    channels: Annotated[int, Ge(0), Le(1 << 20)] = 0
    p: float = 0.0
    zero: list[str] = field(default_factory=list)
    do: Literal["insert"] = "insert"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.at)
        if not self.at or not (self.like or self.kind in KINDS):
            raise UserError(f"{self.kind[:200]!r} cannot stand behind {self.at!r}", where="card")
        if not self.like and self.kind in OF_MAPS and not self.channels:
            raise UserError("a block must be like another, or have channels", where="card")
        if not 0 <= self.p <= 1:
            raise UserError(f"nothing drops with probability {self.p}", where="card")
        with torch.device("meta"):
            block = part(network, self.like) if self.like else self.block(network)
        self._fits(network, block, most)

    def block(self, network: nn.Module) -> nn.Module:
        """The new block, not yet with its numbers; on the device of the network."""
        if self.like:
            return copy.deepcopy(part(network, self.like)).requires_grad_(True)
        return _alike(network, self._made)

    def drawn(self, block: nn.Module) -> Sources:
        """As of those that it is like."""
        return of_block(block, self.like, self.zero)

    def _made(self) -> nn.Module:
        if self.kind in OF_MAPS:
            return OF_MAPS[self.kind](self.channels)
        return DROPS[self.kind](self.p) if self.kind in DROPS else ACTIVATIONS[self.kind]()


@dataclass(frozen=True)
class Leave(_Behind):
    """An exit (`nn/layers/exits.py`), whose layer starts at 0. channels: of what it takes, by grid x grid parts of a map, 0: on the last
    axis, of no map; classes: that it tells apart; weight: of its loss."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    channels: Annotated[int, Ge(1), Le(1 << 20)]
    classes: Annotated[int, Ge(1), Le(1 << 20)]
    grid: Annotated[int, Ge(0), Le(MOST_GRID)]
    weight: Annotated[float, Ge(0), Le(1)]
    do: Literal["leave"] = "leave"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.at)
        if not self.at:
            raise UserError("an exit must stand behind a module", where="card")
        with torch.device("meta"):
            self._fits(network, self.block(network), most)

    def block(self, network: nn.Module) -> nn.Module:
        """The exit, on the device of the network."""
        return _alike(network, lambda: Exit(self.channels, self.classes, self.grid, self.weight))

    def drawn(self, block: nn.Module) -> Sources:
        """All of it is 0: the weights before it are drawn nowhere at its first step."""
        return {name: Source("") for name in block.state_dict()}


def _alike(network: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A new module on the device of a network, with numbers of its type."""
    value = next(network.parameters())
    with torch.device(value.device):
        return make().to(value.dtype)


@dataclass(frozen=True)
class Remove:
    """A module taken out, so that what it takes goes on as it is."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    do: Literal["remove"] = "remove"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.module)
        if not self.module:
            raise UserError("a network cannot be removed from itself", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """None: nothing is left of it."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Take it out; its name stays."""
        put(network, self.module, Passed().train(part(network, self.module).training))
