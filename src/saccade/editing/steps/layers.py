"""Steps on the numbers of a layer: other channels, a normalisation taken up, other inputs of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from saccade.core.errors import UserError
from saccade.editing.pieces import length
from saccade.editing.sources import Source, generator
from saccade.editing.steps.base import STRICT, Draws, Place, Runs, Sources, part, put, set_tensor
from saccade.editing.steps.replacing import beside
from saccade.editing.tracing import by_channel, depthwise, layer_types, mixes, transposed


@dataclass(frozen=True)
class Resize:
    """A layer with other outputs, or other inputs. std: of the weights of fresh outputs; bias: theirs; fresh inputs have weights of 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    outputs: Runs | None = None
    inputs: Runs | None = None
    std: float = 0.0
    bias: float = 0.0
    do: Literal["resize"] = "resize"

    def check(self, network: nn.Module, most: int) -> None:
        """Raise UserError for what does not fit, or would have more than `most` numbers."""
        layer = part(network, self.module)
        if not (mixes(layer) or depthwise(layer) or by_channel(layer)) or (self.inputs is not None and not mixes(layer)):
            raise UserError(f"{type(layer).__name__} {self.module!r} has no channels to change", where="card")
        if (self.outputs is None) == (self.inputs is None):
            raise UserError(f"{self.module!r} must get other outputs or other inputs", where="card")
        if not (math.isfinite(self.std) and math.isfinite(self.bias)):
            raise UserError("fresh weights must be finite", where="card")
        state = self._state(layer)
        for name, source in self.sources(network).items():
            old = state[name]
            size, runs = old.shape[source.axis], source.runs or ()
            if source.runs is not None and (not runs or any(start >= 0 and start + count > size for start, count in runs)):
                raise UserError(f"{name} has {size} channels, of which the edit takes others", where="card")
            if math.prod(source.shape(old)) > most:
                raise UserError(f"{name} would have more than the {most:,} numbers of the file", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the layer."""
        layer = part(network, self.module)
        found: Sources = {}
        for full in self._state(layer):
            name = full.rpartition(".")[2]
            if isinstance(layer, layer_types()):
                found[full] = self._of_layer(full, name, layer)
            elif self.outputs is not None:
                rest = 0.25 if isinstance(layer, nn.PReLU) else float(name in ("weight", "running_var"))
                found[full] = Source(full, 0, self.outputs, rest)
        return found

    def _state(self, layer: nn.Module) -> dict[str, Tensor]:
        tensors = {**layer._parameters, **layer._buffers}
        return {f"{self.module}.{name}": value for name, value in tensors.items() if value is not None and value.ndim}

    def _of_layer(self, full: str, name: str, layer: Any) -> Source:
        if name == "bias":
            return Source(full, 0, self.outputs, self.bias)
        out, into = (1, 0) if transposed(layer) and not depthwise(layer) else (0, 1)
        return Source(full, out, self.outputs, std=self.std) if self.inputs is None else Source(full, into, self.inputs)

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Change the layer where it stands."""
        layer = part(network, self.module)
        state = self._state(layer)
        for name, source in self.sources(network).items():
            set_tensor(network, name, source.carried(state[name], generator(draws.seed, draws.number, name)))
        outputs = None if self.outputs is None else length(self.outputs)
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = outputs or layer.out_features, layer.weight.shape[1]
        elif isinstance(layer, nn.PReLU):
            layer.num_parameters = outputs or layer.num_parameters
        elif by_channel(layer):
            layer.num_features = outputs or layer.num_features
        elif depthwise(layer):
            layer.out_channels = layer.in_channels = layer.groups = outputs or layer.groups
        else:
            layer.out_channels = outputs or layer.out_channels
            layer.in_channels = layer.weight.shape[0 if transposed(layer) else 1]


@dataclass(frozen=True)
class Fold:
    """A batch normalisation taken up by the layer before it."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    layer: str
    norm: str
    do: Literal["fold"] = "fold"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        layer, norm = part(network, self.layer), part(network, self.norm)
        fits = foldable(layer) and isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.affine
        if not fits or norm.num_features != layer.weight.shape[0]:
            raise UserError(f"{self.norm!r} is no normalisation of {self.layer!r}", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """Products are no gathering: the tensors are new to what follows them."""
        return {f"{self.layer}.weight": Source(""), f"{self.layer}.bias": Source("")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Change the layer; what stood in the normalisation beside it stays."""
        layer, norm = part(network, self.layer), part(network, self.norm)
        fused = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        numbers = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fused(layer.weight, layer.bias, *numbers)
        layer.weight, layer.bias = (nn.Parameter(value.detach().clone()) for value in (weight, bias))
        rest = beside(norm)
        put(network, self.norm, (nn.Sequential(*rest) if rest else nn.Identity()).train(norm.training))


def foldable(module: nn.Module) -> bool:
    """Whether a normalisation behind a module can be a part of it."""
    return isinstance(module, layer_types()) and not transposed(module)


@dataclass(frozen=True)
class Mix:
    """A first layer for other channels of the image. terms: (new input, old input, factor), of which each new one is the sum."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    inputs: Annotated[int, Ge(1), Le(1 << 16)]
    terms: list[tuple[Place, Place, float]]
    do: Literal["mix"] = "mix"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        layer = part(network, self.module)
        if not mixes(layer) or transposed(layer):
            raise UserError(f"{self.module} has no inputs to mix", where="card")
        size = layer.weight.shape[1]
        if not all(0 <= new < self.inputs and 0 <= old < size and math.isfinite(factor) for new, old, factor in self.terms):
            raise UserError(f"{self.module} has {size} inputs, of which the edit takes others", where="card")
        if layer.weight.numel() // size * self.inputs > most:
            raise UserError(f"{self.module} would have more than the {most:,} numbers of the file", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """Sums of channels are no gathering: the weight is new to what follows it."""
        return {f"{self.module}.weight": Source("")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Change the layer where it stands."""
        layer = part(network, self.module)
        weight = layer.weight.detach()
        new = weight.new_zeros(weight.shape[0], self.inputs, *weight.shape[2:])
        for place, old, factor in self.terms if not weight.is_meta else ():
            new[:, place] += factor * weight[:, old]
        set_tensor(network, f"{self.module}.weight", new)
        if isinstance(layer, nn.Linear):
            layer.in_features = self.inputs
        else:
            layer.in_channels = self.inputs


def spread(network: nn.Module, layer: str) -> float:
    """The deviation of a layer's weights, by which fresh ones beside them are drawn."""
    weight = part(network, layer).weight.detach().float()
    found = float(weight.std()) if weight.numel() > 1 else 0.0
    return found if 0 < found < math.inf else math.sqrt(2 / max(1, math.prod(weight.shape[1:])))
