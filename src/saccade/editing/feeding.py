"""What a network is run with to look at it: images, or, where it makes images itself, what it makes them from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from saccade.nn.features import evaluating
from saccade.nn.layers.exits import heard

Inputs = Sequence[Tensor]


def makes(network: nn.Module) -> TypeGuard[Any]:
    """Whether a network makes images: then it says how many numbers (`latent`) from, of how many `classes`, and `run_through` runs all of
    its parts."""
    return callable(getattr(network, "run_through", None))


def latents(network: Any, count: int) -> Inputs:
    """Normal numbers `[count, latent]`, and labels int64 `[count]` where images are made by class."""
    drawn = torch.randn(count, network.latent, generator=torch.Generator().manual_seed(1))
    return (drawn, torch.arange(count) % network.classes) if network.classes else (drawn,)


def doubled(inputs: Inputs) -> Inputs:
    """The same, and mirrored ones behind them."""
    return tuple(torch.cat([one, one.flip(-1)]) for one in inputs)


def run(network: nn.Module, inputs: Inputs) -> Any:
    """What all parts of a network give, in evaluation mode and without gradients; then what its exits say."""
    with evaluating(network), torch.no_grad():
        if makes(network):
            return network.run_through(*inputs)
        output, found = heard(network, *inputs)
        return (output, [told for _, told in found]) if found else output
