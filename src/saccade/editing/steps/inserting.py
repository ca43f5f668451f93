"""Steps that put modules in."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import nn

from saccade.core.errors import UserError
from saccade.editing.blocks import Followed, Residual
from saccade.editing.sources import Source, generator, of_block
from saccade.editing.steps.base import MOST_MODULES, STRICT, Draws, Sources, part, put, set_tensor


@dataclass(frozen=True)
class Insert:
    """A new block at the end of a stage, or, where `at` is none, behind it. like: the block that it is a copy of, "": a residual one of
    `channels`; zero: its tensors that start at 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    at: str
    like: str = ""
    channels: Annotated[int, Ge(0), Le(1 << 20)] = 0
    zero: list[str] = field(default_factory=list)
    do: Literal["insert"] = "insert"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.at)
        block = part(network, self.like) if self.like else None
        needed = sum(p.numel() for p in block.parameters()) if block is not None else 18 * self.channels**2
        modules = sum(1 for _ in block.modules()) if block is not None else 5
        if needed > most or modules + sum(1 for _ in network.modules()) > MOST_MODULES:
            raise UserError(f"a block of {needed:,} numbers is more than the file holds, {most:,}", where="card")
        if not self.like and not self.channels:
            raise UserError("a block must be like another, or have channels", where="card")

    def name(self, network: nn.Module) -> str:
        """Of the new block."""
        stage = part(network, self.at)
        return f"{self.at}.{len(stage)}" if isinstance(stage, nn.Sequential | nn.ModuleList) else f"{self.at}.1"

    def block(self, network: nn.Module) -> nn.Module:
        """The new block, not yet with its numbers; on the device of the network."""
        if self.like:
            return copy.deepcopy(part(network, self.like))
        value = next(network.parameters())
        with torch.device(value.device):
            return Residual(self.channels).to(value.dtype)

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the new block, and, where it stands behind a module, those of that, which has a new name."""
        stage, name = part(network, self.at), self.name(network)
        block = of_block(self.block(network), self.like, self.zero)
        found = {f"{name}.{key}": source for key, source in block.items()}
        if not isinstance(stage, nn.Sequential | nn.ModuleList):
            found |= {f"{self.at}.0.{key}": Source(f"{self.at}.{key}") for key in stage.state_dict()}
        return found

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Make the block and put it in."""
        stage, name, block = part(network, self.at), self.name(network), self.block(network)
        state = block.state_dict()
        for key, source in of_block(block, self.like, self.zero).items():
            if not source.name:
                set_tensor(block, key, source.carried(state[key], generator(draws.seed, draws.number, f"{name}.{key}")))
        block.train(stage.training)
        if isinstance(stage, nn.Sequential | nn.ModuleList):
            stage.append(block)
        else:
            put(network, self.at, Followed(stage, block).train(stage.training))
