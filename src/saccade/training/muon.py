"""Muon: a step that is as long in every direction of a weight matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

ITERATIONS = 3
QUINTIC = (3.4445, -4.7750, 2.0315)  # a s + b s^3 + c s^5 of each singular value s: towards 1, within about 0.3 (Jordan et al. 2024)
LENGTH = 0.2  # root of the mean square of a step at a rate of 1, AdamW's usual one (Liu et al. 2025, arXiv:2502.16982, section 2.2)


class Muon(torch.optim.AdamW):
    """AdamW, but for groups of matrices (`"matrix": True`), which move by their Nesterov momentum made orthogonal.

    A weight `[out, in, ...]` is the matrix `[out, in * ...]`. The rate and the weight decay mean the same in both kinds of groups, as a
    matrix moves as far as under AdamW. What is remembered of a matrix: "momentum_buffer".
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, betas: tuple[float, float], fused: bool) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=fused)
        self.momentum = momentum
        self._step_supports_amp_scaling = False  # a step with infinite gradients is left out whole, not by the fused kernel for its part

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both kinds of groups, by the gradients that there are. Those of matrices are used up: AdamW passes them over."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"] if group["matrix"] else ():
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    self._move(parameter, parameter.grad, group["lr"])
                    parameter.grad = None
        super().step()
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        held = state["momentum_buffer"].lerp_(gradient, 1 - self.momentum)
        ahead = torch.lerp(gradient, held, self.momentum)
        step = orthogonal(ahead.reshape(len(ahead), -1))
        parameter.add_(step.reshape(parameter.shape), alpha=-rate * LENGTH * max(step.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values of 1 to a float `[M, N]`, by a few Newton-Schulz iterations: they come near 1, no nearer."""
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = found @ found.T
        found = a * found + (b * square + c * (square @ square)) @ found
    return found if matrix.shape[0] <= matrix.shape[1] else found.T
