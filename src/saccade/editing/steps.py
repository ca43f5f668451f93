"""What every edit comes down to: few steps on modules, plain values that a model's card carries and that may come from an untrusted file.

Each says where the tensors that it touches come from (`sources`), and changes the network; `check` refuses, before anything is allocated,
what does not fit the network or is larger than it may be.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Le, MaxLen
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.editing.blocks import Followed, Residual
from saccade.editing.pieces import FRESH, length
from saccade.editing.sources import Source, generator, of_block
from saccade.editing.tracing import by_channel, depthwise, layer_types, mixes, transposed
from saccade.nn.layers.normalize import Normalize

Count = Annotated[int, Ge(1), Le(1 << 24)]
Place = Annotated[int, Ge(FRESH), Le(1 << 24)]
Runs: TypeAlias = Annotated[list[tuple[Place, Count]], MaxLen(1 << 14)]
_STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
MOST_MODULES = 100_000
_KINDS = (nn.ELU, nn.GELU, nn.Hardswish, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Tanh)
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _KINDS}
Sources = dict[str, Source]


@dataclass(frozen=True)
class Draws:
    """What fresh numbers of an edit follow from."""

    seed: int
    number: int


def part(network: nn.Module, name: str) -> Any:
    """A module by its name; raises UserError where there is none."""
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise UserError(f"the network has no module {name[:200]!r}", where="card") from None


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """A module in the place of another."""
    parent, _, last = name.rpartition(".")
    network.get_submodule(parent)._modules[last] = module


def _set(network: nn.Module, name: str, value: Tensor) -> None:
    """A tensor in the place of another."""
    path, _, last = name.rpartition(".")
    owner = network.get_submodule(path)
    old = owner._parameters.get(last)
    if old is not None:
        owner._parameters[last] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        owner._buffers[last] = value


@dataclass(frozen=True)
class Resize:
    """A layer with other outputs, or other inputs. std: of the weights of fresh outputs; bias: theirs; fresh inputs have weights of 0."""

    __pydantic_config__: ClassVar[Any] = _STRICT

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
            _set(network, name, source.carried(state[name], generator(draws.seed, draws.number, name)))
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
class Insert:
    """A new block at the end of a stage, or, where `at` is none, behind it. like: the block that it is a copy of, "": a residual one of
    `channels`; zero: its tensors that start at 0."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    at: str
    like: str = ""
    channels: Annotated[int, Ge(0), Le(1 << 20)] = 0
    zero: list[str] = field(default_factory=list)
    do: Literal["insert"] = "insert"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        part(network, self.at)
        block = part(network, self.like) if self.like else None
        needed = sum(p.numel() for p in block.parameters()) if block is not None else 18 * self.channels**2
        modules = sum(1 for _ in block.modules()) if block is not None else 5
        if needed > most or modules + sum(1 for _ in network.modules()) > MOST_MODULES:
            raise UserError(f"a block of {needed:,} numbers is more than the file holds, {most:,}", where="card")
        if not self.like and not self.channels:
            raise UserError("a block must be like another, or have channels", where="card")

    def name(self, network: nn.Module) -> str:
        """Of the new block."""
        stage = part(network, self.at)
        return f"{self.at}.{len(stage)}" if isinstance(stage, nn.Sequential | nn.ModuleList) else f"{self.at}.1"

    def block(self, network: nn.Module) -> nn.Module:
        """The new block, not yet with its numbers; on the device of the network."""
        if self.like:
            return copy.deepcopy(part(network, self.like))
        value = next(network.parameters())
        with torch.device(value.device):
            return Residual(self.channels).to(value.dtype)

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the new block, and, where it stands behind a module, those of that, which has a new name."""
        stage, name = part(network, self.at), self.name(network)
        block = of_block(self.block(network), self.like, self.zero)
        found = {f"{name}.{key}": source for key, source in block.items()}
        if not isinstance(stage, nn.Sequential | nn.ModuleList):
            found |= {f"{self.at}.0.{key}": Source(f"{self.at}.{key}") for key in stage.state_dict()}
        return found

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Make the block and put it in."""
        stage, name, block = part(network, self.at), self.name(network), self.block(network)
        state = block.state_dict()
        for key, source in of_block(block, self.like, self.zero).items():
            if not source.name:
                _set(block, key, source.carried(state[key], generator(draws.seed, draws.number, f"{name}.{key}")))
        block.train(stage.training)
        if isinstance(stage, nn.Sequential | nn.ModuleList):
            stage.append(block)
        else:
            put(network, self.at, Followed(stage, block).train(stage.training))


@dataclass(frozen=True)
class Replace:
    """Another activation."""

    __pydantic_config__: ClassVar[Any] = _STRICT

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
class Fold:
    """A batch normalisation taken up by the layer before it."""

    __pydantic_config__: ClassVar[Any] = _STRICT

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
        rest = [module for name in ("drop", "act") if isinstance(module := getattr(norm, name, None), nn.Module)]
        put(network, self.norm, (nn.Sequential(*rest) if rest else nn.Identity()).train(norm.training))


def foldable(module: nn.Module) -> bool:
    """Whether a normalisation behind a module can be a part of it."""
    return isinstance(module, layer_types()) and not transposed(module)


@dataclass(frozen=True)
class Mix:
    """A first layer for other channels of the image. terms: (new input, old input, factor), of which each new one is the sum."""

    __pydantic_config__: ClassVar[Any] = _STRICT

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
        _set(network, f"{self.module}.weight", new)
        if isinstance(layer, nn.Linear):
            layer.in_features = self.inputs
        else:
            layer.in_channels = self.inputs


@dataclass(frozen=True)
class Input:
    """Another normalisation of the image."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    channels: Annotated[int, Ge(1), Le(4)]
    mean: list[float]
    std: list[float]
    do: Literal["input"] = "input"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps; means and deviations are checked where they are taken."""
        first_step(network)

    def sources(self, network: nn.Module) -> Sources:
        """None: it is no part of the state."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put it in."""
        name = first_step(network)
        old = part(network, name)
        new = Normalize(InputSpec(self.channels, (1, 1), mean=tuple(self.mean), std=tuple(self.std)))
        put(network, name, new.to(old.scale.device).train(old.training))


def first_step(network: nn.Module) -> str:
    """The name of the module that takes the image; raises UserError where there is none."""
    name = next((name for name, module in network.named_modules() if isinstance(module, Normalize)), None)
    if name is None:
        raise UserError("the network has no normalisation of its input")
    return name


Step: TypeAlias = Resize | Insert | Replace | Fold | Mix | Input


def spread(network: nn.Module, layer: str) -> float:
    """The deviation of a layer's weights, by which fresh ones beside them are drawn."""
    weight = part(network, layer).weight.detach().float()
    found = float(weight.std()) if weight.numel() > 1 else 0.0
    return found if 0 < found < math.inf else math.sqrt(2 / max(1, math.prod(weight.shape[1:])))
