"""What learns and what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from saccade.editing.steps.base import STRICT, Draws, Sources, part


@dataclass(frozen=True)
class Freeze:
    """The parameters of a module are learned no longer, or (`on` false) again. Statistics of its normalisations rest with them."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    module: str
    on: bool
    do: Literal["freeze"] = "freeze"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.module)

    def sources(self, network: nn.Module) -> Sources:
        """None: the tensors stay."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Tell the parameters."""
        part(network, self.module).requires_grad_(not self.on)
