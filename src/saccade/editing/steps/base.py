"""What every step has to hand: numbers within bounds, modules by name, and what fresh numbers follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from annotated_types import Ge, Le, MaxLen
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.editing.pieces import FRESH
from saccade.editing.sources import Source
from saccade.nn.hooks import hand_over

Count = Annotated[int, Ge(1), Le(1 << 24)]
Place = Annotated[int, Ge(FRESH), Le(1 << 24)]
Runs: TypeAlias = Annotated[list[tuple[Place, Count]], MaxLen(1 << 14)]
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
MOST_MODULES = 100_000
Sources = dict[str, Source]


@dataclass(frozen=True)
class Draws:
    """What fresh numbers of an edit follow from."""

    seed: int
    number: int


def part(network: nn.Module, name: str) -> Any:
    """A module by its name; raises UserError where there is none."""
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise UserError(f"the network has no module {name[:200]!r}", where="card") from None


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """A module in the place of another, to which the hooks of the place go over (`nn.hooks`)."""
    parent, _, last = name.rpartition(".")
    modules = network.get_submodule(parent)._modules
    old = modules.get(last)
    if old is not None and old is not module:
        hand_over(old, module)
    modules[last] = module


def set_tensor(network: nn.Module, name: str, value: Tensor) -> None:
    """A tensor in the place of another."""
    path, _, last = name.rpartition(".")
    owner = network.get_submodule(path)
    old = owner._parameters.get(last)
    if old is not None:
        owner._parameters[last] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        owner._buffers[last] = value
