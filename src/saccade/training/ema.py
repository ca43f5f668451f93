"""The running average of a model's weights (Polyak averaging), buffers included."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saccade.core.modelfile import Buffer
from saccade.nn import weights
from saccade.nn.weights import is_sharded, like
from saccade.training.sharding import whole


class Average:
    """A copy of the model whose weights follow the trained ones; `half_life` in steps.

    The decay rises from 0.1 at the first step, so that the random start does not linger.
    """

    def __init__(self, model: nn.Module, half_life: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = 0.5 ** (1 / max(half_life, 1e-9))
        self._spread: dict[str, Tensor] = {}

    def spread(self, model: nn.Module) -> None:
        """Keep the average of what `model` has spread over processes in the same way; `module` is out of date then until `settle`."""
        own = self.module.state_dict()
        self._spread = {name: like(own[name], value) for name, value in model.state_dict().items() if is_sharded(value)}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take up the weights after `step` (counted from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.state(), model.state_dict()
        for kind in (False, True):  # what is spread and what is not cannot be computed on together
            floats = [name for name, value in mine.items() if value.is_floating_point() and is_sharded(value) == kind]
            if floats:
                torch._foreach_lerp_([mine[name] for name in floats], [theirs[name].to(mine[name].dtype) for name in floats], share)
        for name, value in mine.items():
            if not value.is_floating_point():
                value.copy_(theirs[name])

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return {**self.module.state_dict(), **self._spread}

    def load(self, buffers: Mapping[str, Buffer], where: str) -> None:
        """Take up what a checkpoint holds."""
        weights.load_into(self.module, buffers, where=where)
        own = self.module.state_dict()
        self._spread = {name: like(own[name], value) for name, value in self._spread.items()}

    def take(self, other: nn.Module, model: nn.Module) -> None:
        """Take up the weights of another network, and keep them spread as those of `model` are."""
        self.module.load_state_dict(other.state_dict())
        self.spread(model)

    def settle(self) -> nn.Module:
        """`module` with the averaged weights, whole: every process must ask for it."""
        if self._spread:
            self.module.load_state_dict(whole(self.state()))
        return self.module
