"""Steps on what the network takes: the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from torch import nn

from saccade.core.bands import MOST
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.editing.steps.base import STRICT, Draws, Sources, part, put
from saccade.nn.layers.normalize import Normalize


@dataclass(frozen=True)
class Input:
    """Another normalisation of the image."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    channels: Annotated[int, Ge(1), Le(MOST)]
    mean: list[float]
    std: list[float]
    do: Literal["input"] = "input"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps; means and deviations are checked where they are taken."""
        first_step(network)

    def sources(self, network: nn.Module) -> Sources:
        """None: it is no part of the state."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in."""
        name = first_step(network)
        old = part(network, name)
        new = Normalize(InputSpec(self.channels, (1, 1), mean=tuple(self.mean), std=tuple(self.std)))
        put(network, name, new.to(old.scale.device).train(old.training))


def first_step(network: nn.Module) -> str:
    """The name of the module that takes the image; raises UserError where there is none."""
    name = next((name for name, module in network.named_modules() if isinstance(module, Normalize)), None)
    if name is None:
        raise UserError("the network has no normalisation of its input")
    return name
