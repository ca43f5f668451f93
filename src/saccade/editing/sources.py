"""Where each tensor of a changed network comes from: the same description moves weights now, and moments and averages of them later."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from saccade.core import keys
from saccade.editing.pieces import Pieces, index, length
from saccade.editing.tracing import layer_types


@dataclass(frozen=True)
class Source:
    """name: of the old tensor, "" for one that is new; axes: along which of its axes what is gathered, by runs; what is fresh on the
    first of them is drawn with deviation `std` about `value`, on others it is 0."""

    name: str
    axes: Mapping[int, Pieces] = field(default_factory=dict)
    value: float = 0.0
    std: float = 0.0

    def shape(self, old: Tensor) -> list[int]:
        """Of the new tensor."""
        return [length(self.axes[axis]) if axis in self.axes else size for axis, size in enumerate(old.shape)]

    def carried(self, old: Tensor, generator: np.random.Generator) -> Tensor:
        """The new tensor. For one that is new `old` gives shape and dtype; one on the meta device has a shape alone."""
        if old.is_meta:
            return torch.empty(self.shape(old), dtype=old.dtype, device="meta")
        if not self.name:
            return self._fresh(old, list(old.shape), generator)
        new = old.detach().clone()
        for number, (axis, runs) in enumerate(self.axes.items()):
            places = index(runs)
            gathered = new.index_select(axis, torch.from_numpy(np.maximum(places, 0)).to(old.device))
            fresh = torch.from_numpy(np.flatnonzero(places < 0)).to(old.device)
            shape = list(gathered.shape)
            shape[axis] = len(fresh)
            filled = gathered.new_zeros(shape) if number else self._fresh(gathered, shape, generator)
            new = gathered.index_copy(axis, fresh, filled)
        return new

    def _fresh(self, like: Tensor, shape: list[int], generator: np.random.Generator) -> Tensor:
        new = torch.full(shape, self.value, dtype=like.dtype, device=like.device)
        if self.std:
            new += torch.from_numpy(generator.standard_normal(shape, np.float32)).to(new) * self.std
        return new


def generator(seed: int, number: int, name: str) -> np.random.Generator:
    """What the fresh part of a tensor is drawn by: seed, number of the edit, name."""
    return keys.generator(seed, f"edit {name}", number)


def of_block(block: nn.Module, like: str, zero: Collection[str]) -> dict[str, Source]:
    """The tensors of a new block: drawn, or at rest; those named in `zero` 0; those of modules not known as in the block `like`."""
    return {name: Source("") if name in zero else _started(block, like, name, value) for name, value in block.state_dict().items()}


def _started(block: nn.Module, like: str, name: str, value: Tensor) -> Source:
    path, _, last = name.rpartition(".")
    owner = block.get_submodule(path)
    if isinstance(owner, layer_types()):
        if last == "bias":
            return Source("")
        return Source("", std=math.sqrt(2 / max(1, math.prod(value.shape[1:]))))  # He et al. 2015, equation 10
    if isinstance(owner, _NormBase | nn.LayerNorm | nn.GroupNorm):
        return Source("", value=float(last in ("weight", "running_var")))
    return Source(f"{like}.{name}")
