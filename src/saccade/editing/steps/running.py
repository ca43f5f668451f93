"""Steps on how a network runs: what drops, and the pixels that it takes."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from saccade.core.errors import UserError
from saccade.editing.feeding import makes
from saccade.editing.sources import Source, generator, of_block
from saccade.editing.steps.base import STRICT, Draws, Sources, part, put, set_tensor
from saccade.nn.layers.keyed import KeyedDropout
from saccade.nn.stems import Resized, is_a

MOST_SIDE = 16384
Side = Annotated[int, Ge(1), Le(MOST_SIDE)]


def drops(module: nn.Module) -> str:
    """The name of the probability by which a module drops: of features, or of whole branches (stochastic depth); "" where it does not."""
    if isinstance(module, _DropoutNd | KeyedDropout | StochasticDepth):
        return "p"
    return "drop_prob" if is_a(module, "layers.drop.DropPath") else ""


def droppable(name: str, module: nn.Module) -> bool:
    """Whether branches could be dropped in the place of a module: where timm, for a probability of 0, has put one that does nothing."""
    return isinstance(module, nn.Identity) and bool(re.fullmatch(r"drop_path\d?", name.rpartition(".")[2]))


@dataclass(frozen=True)
class Drop:
    """Another probability."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    module: str
    p: Annotated[float, Ge(0), Le(1)]
    do: Literal["drop"] = "drop"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        module = part(network, self.module)
        if not (drops(module) or droppable(self.module, module)) or not 0 <= self.p <= 1:
            raise UserError(f"{self.module!r} drops nothing, or not with probability {self.p}", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """None: it has no tensors."""
        return {}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Set it."""
        module = part(network, self.module)
        if drops(module):
            setattr(module, drops(module), self.p)
        else:
            put(network, self.module, StochasticDepth(self.p, "row").train(module.training))


@dataclass(frozen=True)
class Size:
    """The pixels that a network runs at: of a vision transformer, whose positions are interpolated; of one that enlarges its image."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    height: Side
    width: Side
    do: Literal["size"] = "size"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""

    def sources(self, network: nn.Module) -> Sources:
        """Positions that are interpolated are new."""
        shapes = copy.deepcopy(network).to("meta")
        before = shapes.state_dict(keep_vars=True)
        with torch.device("meta"):
            self.apply(shapes, Draws(0, 0))
        return {name: Source("") for name, value in shapes.state_dict(keep_vars=True).items() if value is not before.get(name)}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Tell those parts that need to know."""
        size = (self.height, self.width)
        for module in network.modules():
            if isinstance(module, Resized):
                module.size = size
            if hasattr(module, "example_size"):
                module.example_size = size  # type: ignore[assignment]
        fixed: Any = sized(network)
        if fixed is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scipy's remarks, through timm
                fixed.set_input_size(img_size=size)
        except Exception as error:  # timm's networks raise anything for a size that does not fit them
            raise UserError(
                f"the network takes no images of {size[0]}x{size[1]}: {str(error)[:100]}", fix="take sides that are a multiple of its own"
            ) from None


@dataclass(frozen=True)
class Grow:
    """Images of twice the size, of a network that makes them and has a `grow` that says what is new."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    do: Literal["grow"] = "grow"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        if not makes(network) or max(network.shape[1:]) > MOST_SIDE // 2:
            raise UserError("this network does not grow", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the new stages."""
        grown = copy.deepcopy(network).to("meta")
        return _new(grown, _grown(grown))

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Let it grow."""
        value = next(network.parameters())
        with torch.device(value.device):
            stages = _grown(network)
        state = network.state_dict()
        for name, source in _new(network, stages).items():
            set_tensor(network, name, source.carried(state[name].to(value.dtype), generator(draws.seed, draws.number, name)))
        for name in stages:
            part(network, name).train(network.training)


def _grown(network: Any) -> Mapping[str, Sequence[str]]:
    if not callable(getattr(network, "grow", None)):
        raise UserError("this network does not grow", fix="a GAN does: r3gan")
    stages: Mapping[str, Sequence[str]] = network.grow()
    return stages


def _new(network: nn.Module, stages: Mapping[str, Sequence[str]]) -> Sources:
    blocks = {name: of_block(part(network, name), "", zero) for name, zero in stages.items()}
    return {f"{name}.{key}": source for name, block in blocks.items() for key, source in block.items()}


def sized(network: nn.Module) -> nn.Module | None:
    """The part of a network that has a size of its own, and can be given another; what cuts patches is a part of such."""
    parts = (module for module in network.modules() if not is_a(module, "layers.patch_embed.PatchEmbed"))
    return next((module for module in parts if callable(getattr(module, "set_input_size", None))), None)
