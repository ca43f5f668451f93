"""Steps that put one module in the place of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.core.errors import UserError
from saccade.editing.sources import Source
from saccade.editing.steps.base import STRICT, Count, Draws, Sources, part, put

_KINDS = (nn.ELU, nn.GELU, nn.Hardswish, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Tanh)
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _KINDS}


@dataclass(frozen=True)
class Replace:
    """Another activation."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    module: str
    by: str
    do: Literal["replace"] = "replace"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        if self.by not in ACTIVATIONS or part(network, self.module).state_dict() or not self.module:
            raise UserError(f"{self.module!r} cannot be replaced by {self.by!r}", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """None: activations have no tensors."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in."""
        put(network, self.module, ACTIVATIONS[self.by]().train(part(network, self.module).training))


@dataclass(frozen=True)
class Group:
    """A normalisation by groups of channels in the place of one by batches."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    groups: Count
    do: Literal["group"] = "group"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        norm = part(network, self.module)
        if not groupable(norm) or norm.num_features % self.groups:
            raise UserError(f"{self.module!r} is no batch normalisation of {self.groups} groups of channels", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """Other numbers, though of the same shapes."""
        name = f"{self.module}.0" if beside(part(network, self.module)) else self.module
        return {f"{name}.weight": Source(""), f"{name}.bias": Source("")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in; what stood in the normalisation beside it stays."""
        norm = part(network, self.module)
        new = nn.GroupNorm(self.groups, norm.num_features, norm.eps)
        new.weight, new.bias = (nn.Parameter(value, norm.weight.requires_grad) for value in folded(norm, self.groups))
        rest = beside(norm)
        put(network, self.module, (nn.Sequential(new, *rest) if rest else new).train(norm.training))


def groupable(norm: nn.Module) -> bool:
    """Whether groups of channels can be normalised in its place: a batch normalisation that keeps statistics."""
    return isinstance(norm, _BatchNorm) and norm.affine and norm.running_mean is not None


def beside(norm: nn.Module) -> list[nn.Module]:
    """What some normalisations of timm hold too, and run after themselves."""
    return [module for name in ("drop", "act") if isinstance(module := getattr(norm, name, None), nn.Module)]


@torch.no_grad()
def folded(norm: Any, groups: int) -> tuple[Tensor, Tensor]:
    """Weight and bias `[C]` with which groups of channels, where they have the statistics that the running ones of their channels give
    together, are normalised to just what the batch normalisation gives.

    Of a group of channels with means m and variances v the mean is M = mean(m), the variance S^2 = mean(v + m^2) - M^2.
    """
    mean, variance = norm.running_mean.double().view(groups, -1), norm.running_var.double().view(groups, -1)
    centre = mean.mean(1, keepdim=True)
    wide = (variance + mean.square()).mean(1, keepdim=True) - centre.square()
    slope = norm.weight.double().view(groups, -1) * torch.rsqrt(variance + norm.eps)
    weight = slope * (wide.clamp(min=0) + norm.eps).sqrt()
    bias = norm.bias.double().view(groups, -1) + slope * (centre - mean)
    return weight.flatten().to(norm.weight.dtype), bias.flatten().to(norm.bias.dtype)


@dataclass(frozen=True)
class Unbiased:
    """A normalisation by the root of the mean square in the place of one by layers."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    do: Literal["rms"] = "rms"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        if not layered(part(network, self.module)):
            raise UserError(f"{self.module!r} is no LayerNorm", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """The weight stays, the bias goes."""
        return {f"{self.module}.weight": Source(f"{self.module}.weight")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in."""
        norm = part(network, self.module)
        new = nn.RMSNorm(norm.normalized_shape, norm.eps)
        new.weight = norm.weight
        put(network, self.module, new.train(norm.training))


def layered(norm: nn.Module) -> bool:
    """Whether a module is an ordinary LayerNorm: those of maps, which move the channels first, are subclasses of other names."""
    return isinstance(norm, nn.LayerNorm) and type(norm).__name__ == "LayerNorm" and norm.weight is not None
