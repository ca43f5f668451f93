"""Muon: a step that is as long in every direction of a weight matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 3
QUINTIC = (3.4445, -4.7750, 2.0315)  # a s + b s^3 + c s^5 of each singular value s: towards 1, within about 0.3 (Jordan et al. 2024)
FARTHER = 25.0  # singular values of a step of a matrix, as multiples of the rate, which is AdamW's; in trials twice as much did as well


class Muon(torch.optim.AdamW):
    """AdamW, but for groups of matrices (`"matrix": True`), which move by their Nesterov momentum made orthogonal.

    A weight `[out, in, ...]` is the matrix `[out, in * ...]`; one of more rows than columns moves farther by the root of their ratio. What
    is remembered of a matrix: "momentum_buffer".
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], fused: bool) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=fused)
        self._step_supports_amp_scaling = False  # a step with infinite gradients is left out whole, not by the fused kernel for its part

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both kinds of groups, by the gradients that there are. Those of matrices are used up: AdamW passes them over."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"] if group["matrix"] else ():
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, FARTHER * group["lr"], group["weight_decay"])
                    parameter.grad = None
        super().step()
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        held = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        ahead = torch.lerp(gradient, held, MOMENTUM)
        step = orthogonal(ahead.reshape(len(ahead), -1))
        length = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
        parameter.mul_(1 - rate * decay).add_(step.reshape(parameter.shape), alpha=-rate * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values of 1 to a float `[M, N]`, by a few Newton-Schulz iterations: they come near 1, no nearer.

    An iteration takes X to (a + b XX' + c XX'XX') X, so that all are one product of polynomials of the first XX', and X itself is
    multiplied once: half of the work where X is much wider than high.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found = wide / wide.norm().clamp(min=1e-7)
    square = found @ found.T
    product = factor = _polynomial(square)
    for _ in range(ITERATIONS - 1):
        square = factor @ square @ factor
        factor = _polynomial(square)
        product = factor @ product
    found = product @ found
    return found if matrix.shape[0] <= matrix.shape[1] else found.T


def _polynomial(square: Tensor) -> Tensor:
    """a + b S + c SS of S `[M, M]`."""
    a, b, c = QUINTIC
    found = torch.addmm(square, square, square, beta=b, alpha=c)
    found.diagonal().add_(a)
    return found
