"""Which layer of a network each parameter belongs to, counted from the input: for rates that fall with depth, and layers that wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from saccade.nn.fitting import innermost

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def depths(module: nn.Module) -> dict[str, int]:
    """The layer of each parameter by its name: 0 nearest the input, and no number left out.

    Networks of timm say themselves which layers they have (`group_matcher`). Of others each block of a stack is one, and each module that
    holds no stack; normalisation belongs to the layer before it, and what stands outside of all layers to the first.
    """
    network, prefix = innermost(module)
    found = {prefix + name: depth for name, depth in (_of_timm(network) or _of_blocks(network)).items()}
    levels = {depth: place for place, depth in enumerate(sorted({*found.values(), 0}))}
    return {name: levels[found.get(name, 0)] for name, _ in module.named_parameters()}


def _of_timm(network: Any) -> dict[str, int]:
    if not type(network).__module__.startswith("timm.models."):
        return {}
    from timm.models import group_parameters

    try:
        found: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    except (AttributeError, AssertionError, NotImplementedError, RuntimeError):  # a few say nothing
        return {}
    return found


def _of_blocks(network: nn.Module) -> dict[str, int]:
    found, depth = dict[str, int](), -1
    for prefix, block in _blocks(network, ""):
        named = list(block.named_parameters())
        if depth < 0 or any(value.ndim > 1 for _, value in named):
            depth += 1
        found |= {prefix + name: depth for name, _ in named}
    return found


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules in their order with what stands before their parameters' names, stacks taken apart; what stands in a stack is a block, or a
    stack again."""
    for name, part in module.named_children():
        if not any(True for _ in part.parameters()):
            continue
        if _holds_a_stack(part) and (isinstance(part, CONTAINERS) or not isinstance(module, CONTAINERS)):
            yield from _blocks(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}.", part


def _holds_a_stack(module: nn.Module) -> bool:
    """Whether it is or has within it a container of modules that are more than one operation."""
    return any(isinstance(part, CONTAINERS) and any(_is_block(child) for child in part.children()) for part in module.modules())


def _is_block(module: nn.Module) -> bool:
    return any(any(True for _ in child.parameters()) for child in module.children())
