"""Where each tensor of a changed network comes from: the same description moves weights now, and moments and averages of them later."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from saccade.core import keys
from saccade.editing.pieces import Pieces, index, length
from saccade.editing.tracing import layer_types


@dataclass(frozen=True)
class Source:
    """name: of the old tensor, "" for one that is new; runs: where the channels on `axis` come from, None: all as they were; what is fresh
    is drawn with deviation `std` about `value`."""

    name: str
    axis: int = 0
    runs: Pieces | None = None
    value: float = 0.0
    std: float = 0.0

    def shape(self, old: Tensor) -> list[int]:
        """Of the new tensor."""
        shape = list(old.shape)
        if self.runs is not None:
            shape[self.axis] = length(self.runs)
        return shape

    def carried(self, old: Tensor, generator: np.random.Generator) -> Tensor:
        """The new tensor. For one that is new `old` gives shape and dtype; one on the meta device has a shape alone."""
        if old.is_meta:
            return torch.empty(self.shape(old), dtype=old.dtype, device="meta")
        if not self.name:
            return self._fresh(old, list(old.shape), generator)
        if self.runs is None:
            return old.detach().clone()
        places = index(self.runs)
        gathered = old.detach().index_select(self.axis, torch.from_numpy(np.maximum(places, 0)).to(old.device))
        fresh = torch.from_numpy(np.flatnonzero(places < 0)).to(old.device)
        shape = list(gathered.shape)
        shape[self.axis] = len(fresh)
        return gathered.index_copy(self.axis, fresh, self._fresh(gathered, shape, generator))

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
    if isinstance(owner, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return Source("", value=float(last in ("weight", "running_var")))
    return Source(f"{like}.{name}")
