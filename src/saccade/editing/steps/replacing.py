"""Steps that put one module in the place of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from saccade.core.errors import UserError
from saccade.editing.steps.base import STRICT, Draws, Sources, part, put

_KINDS = (nn.ELU, nn.GELU, nn.Hardswish, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Tanh)
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _KINDS}


@dataclass(frozen=True)
class Replace:
    """Another activation."""

    __pydantic_config__: ClassVar[Any] = STRICT

    module: str
    by: str
    do: Literal["replace"] = "replace"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        if self.by not in ACTIVATIONS or part(network, self.module).state_dict() or not self.module:
            raise UserError(f"{self.module!r} cannot be replaced by {self.by!r}", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """None: activations have no tensors."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in."""
        put(network, self.module, ACTIVATIONS[self.by]().train(part(network, self.module).training))
