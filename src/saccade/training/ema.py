"""The running average of a model's weights (Polyak averaging), buffers included."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """A copy of the model whose weights follow the trained ones; `half_life` in steps.

    The decay rises from 0.1 at the first step, so that the random start does not linger.
    """

    def __init__(self, model: nn.Module, half_life: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = 0.5 ** (1 / max(half_life, 1e-9))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take up the weights after `step` (counted from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.module.state_dict(), model.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name].to(mine[name].dtype) for name in floats], share)
        for name, value in mine.items():
            if not value.is_floating_point():
                value.copy_(theirs[name])

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self.module.state_dict()
