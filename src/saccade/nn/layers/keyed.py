"""Dropout and stochastic depth whose draws are a function of (seed, phase, layer, the image's position in the stream).

They stand in for torch's, timm's and torchvision's modules while a network trains, so that no result depends on how a batch is cut into
micro-batches or spread over processes. They have no state: a network's names and weights are the same with and without them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.core import keys

_MASK = (1 << 64) - 1


class Draws:
    """What the keyed modules of a network share: the seed, and which images the forward pass in progress is about."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._phase = ""
        self._positions: NDArray[np.int64] = np.empty(0, np.int64)
        self._calls: dict[str, int] = {}

    def begin(self, phase: str, positions: NDArray[np.int64]) -> None:
        """A forward pass over the images at `positions` [B] begins."""
        self._phase, self._positions, self._calls = phase, positions, {}

    def uniform(self, layer: str, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
        """Numbers of [0, 1), float32 `shape`, a function of each row's position; None where the rows are not the images.

        A layer that is passed through several times in one forward pass draws anew each time.
        """
        if shape[0] != len(self._positions):
            return None
        call = self._calls[layer] = self._calls.get(layer, -1) + 1
        key = keys.derive(self.seed, f"dropout {self._phase} {layer}", call)
        rows = _mixed(torch.from_numpy(self._positions).to(device) ^ key)
        count = math.prod(shape[1:])
        places = torch.arange(1, count + 1, device=device) * _signed(0x9E3779B97F4A7C15)
        bits = _mixed(rows[:, None] + places)
        return ((bits >> 40) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).reshape(shape)


def _mixed(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") on int64."""
    value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, by: int) -> Tensor:
    """A logical shift to the right: torch's copies the sign."""
    return (value >> by) & (_MASK >> by)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


class KeyedDropout(nn.Module):
    """Zeroes with probability `p` and scales the rest by 1 / (1 - p) (Srivastava et al. 2014).

    own: how many axes of the input, from the first, have draws of their own: 0 for all of them, 2 for whole channels
    (Tompson et al. 2015), 1 for whole images (stochastic depth, Huang et al. 2016). scale: whether the rest is scaled.
    """

    def __init__(self, p: float, draws: Draws, layer: str, *, own: int = 0, scale: bool = True) -> None:
        super().__init__()
        self.p, self.own, self.scale = p, own, scale
        self._draws, self._layer = draws, layer

    def forward(self, x: Tensor) -> Tensor:
        """The input in evaluation mode."""
        if not self.training or not self.p:
            return x
        shape = tuple(x.shape[: self.own or x.ndim]) + (1,) * (x.ndim - (self.own or x.ndim))
        drawn = self._draws.uniform(self._layer, shape, x.device)
        if drawn is None:  # windows or tokens for rows: torch's generator, seeded by the first image of the forward pass
            drawn = torch.rand(shape, device=x.device)
        kept = (drawn >= self.p).to(x.dtype)
        return x * (kept / (1 - self.p) if self.scale and self.p < 1 else kept)

    def extra_repr(self) -> str:
        """p as torch's modules show it."""
        return f"p={self.p}"


def stand_in(network: nn.Module, seed: int) -> Draws:
    """Put keyed modules in the place of those inside `network` that draw from torch's generator; returns what they share."""
    draws = Draws(seed)
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, KeyedDropout):  # of a network that is made ready once more
            module._draws, module._layer = draws, name
            continue
        keyed = _keyed(module, draws, name)
        if keyed is not None and name:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, keyed.train(module.training))
    return draws


def _keyed(module: Any, draws: Draws, name: str) -> KeyedDropout | None:
    """What stands in for a module; None where it may stay. timm and torchvision are told by name: they need not be loaded."""
    kind = type(module)
    if kind is nn.Dropout and module.p:
        return KeyedDropout(module.p, draws, name)
    if kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d) and module.p:
        return KeyedDropout(module.p, draws, name, own=2)
    if kind.__name__ == "DropPath" and kind.__module__.startswith("timm.") and module.drop_prob:
        return KeyedDropout(module.drop_prob, draws, name, own=1, scale=module.scale_by_keep)
    if kind.__name__ == "StochasticDepth" and kind.__module__.startswith("torchvision.") and module.p and module.mode == "row":
        return KeyedDropout(module.p, draws, name, own=1)
    return None
