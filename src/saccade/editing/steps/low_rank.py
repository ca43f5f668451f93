"""Steps that put two thin layers beside one, or in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.editing.blocks import Adapted, Factored
from saccade.editing.sources import Source, generator
from saccade.editing.steps.base import STRICT, Draws, Sources, part, put, set_tensor
from saccade.editing.tracing import mixes, transposed

Rank = Annotated[int, Ge(1), Le(1 << 16)]
_POINTWISE: dict[type, type] = {  # by the type of a layer, that of one that mixes channels alone
    nn.Linear: nn.Linear,
    nn.Conv1d: nn.Conv1d,
    nn.Conv2d: nn.Conv2d,
    nn.Conv3d: nn.Conv3d,
    nn.ConvTranspose1d: nn.Conv1d,
    nn.ConvTranspose2d: nn.Conv2d,
    nn.ConvTranspose3d: nn.Conv3d,
}


def thinned(layer: nn.Module) -> bool:
    """Whether a layer can be told as two thin ones: one of torch's own, each channel of which is made of all."""
    return type(layer) in _POINTWISE and mixes(layer)


def sides(layer: Any) -> tuple[int, int]:
    """Outputs of a layer, and numbers that each is made of: the shape of its weight as a matrix."""
    outputs = int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
    return outputs, layer.weight.numel() // outputs


def _thin(layer: Any, rank: int, *, bias: bool) -> tuple[nn.Module, nn.Module]:
    """A layer like another, with so many outputs, and one from these to those of the other."""
    with torch.device(layer.weight.device):
        if isinstance(layer, nn.Linear):
            down: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            up: nn.Module = nn.Linear(rank, layer.out_features, bias=bias)
        else:
            more = {"output_padding": layer.output_padding} if transposed(layer) else {}
            shape = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "padding_mode": layer.padding_mode}
            down = type(layer)(layer.in_channels, rank, layer.kernel_size, bias=False, **shape, **more)
            up = _POINTWISE[type(layer)](rank, layer.out_channels, 1, bias=bias)
    return down.to(layer.weight.dtype).train(layer.training), up.to(layer.weight.dtype).train(layer.training)


def _check(network: nn.Module, name: str, rank: int, most: int) -> None:
    layer = part(network, name)
    if not name or not thinned(layer):
        raise UserError(f"{name!r} is no layer that could be told as two", where="card")
    if rank > min(sides(layer)) or rank * sum(sides(layer)) > most:
        raise UserError(f"{name!r} has no rank of {rank}, or that many numbers are not in the file", where="card")


@dataclass(frozen=True)
class Adapt:
    """Two thin layers beside one, of `rank` channels in between, the second of zeros; the one itself is not trained any more."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = False

    module: str
    rank: Rank
    do: Literal["adapt"] = "adapt"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        _check(network, self.module, self.rank, most)

    def sources(self, network: nn.Module) -> Sources:
        """The tensors of the layer, which have new names, and those beside it; of these the first is drawn (He et al. 2015)."""
        layer = part(network, self.module)
        found = {f"{self.module}.base.{name}": Source(f"{self.module}.{name}") for name in layer.state_dict()}
        found[f"{self.module}.down.weight"] = Source("", std=math.sqrt(2 / sides(layer)[1]))
        return found | {f"{self.module}.up.weight": Source("")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put them beside it."""
        layer, sources = part(network, self.module), self.sources(network)
        down, up = _thin(layer, self.rank, bias=False)
        put(network, self.module, Adapted(layer.requires_grad_(False), down, up).train(layer.training))
        for name, old in ((f"{self.module}.down.weight", down.weight), (f"{self.module}.up.weight", up.weight)):
            set_tensor(network, name, sources[name].carried(old, generator(draws.seed, draws.number, name)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Merge:
    """The layers beside one taken up by it."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    do: Literal["merge"] = "merge"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        if not isinstance(part(network, self.module), Adapted):
            raise UserError(f"{self.module!r} has no layers beside it", where="card")

    def sources(self, network: nn.Module) -> Sources:
        """A sum is no gathering: the weight is new to what follows it."""
        names = part(network, self.module).base.state_dict()
        found = {f"{self.module}.{name}": Source(f"{self.module}.base.{name}") for name in names}
        return found | {f"{self.module}.weight": Source("")}

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put the layer back where it was."""
        adapted = part(network, self.module)
        layer = adapted.base.requires_grad_(True)
        if not layer.weight.is_meta:
            layer.weight = nn.Parameter(merged(adapted))
        put(network, self.module, layer)


@torch.no_grad()
def merged(adapted: Any) -> Tensor:
    """The weight of a layer with what stands beside it: W + BA (Hu et al. 2021, "LoRA", equation 3)."""
    weight, down, up = (one.weight.double() for one in (adapted.base, adapted.down, adapted.up))
    terms = "or,ir...->io..." if transposed(adapted.base) else "or,ri...->oi..."
    total: Tensor = weight + torch.einsum(terms, up.flatten(1), down)
    return total.to(adapted.base.weight.dtype)


@dataclass(frozen=True)
class Factor:
    """Two thin layers in the place of one, of `rank` channels in between."""

    __pydantic_config__: ClassVar[Any] = STRICT
    shrinks: ClassVar[bool] = True

    module: str
    rank: Rank
    do: Literal["factor"] = "factor"

    def check(self, network: nn.Module, most: int) -> None:
        """As of all steps."""
        _check(network, self.module, self.rank, most)

    def sources(self, network: nn.Module) -> Sources:
        """Products are no gathering; the bias stays."""
        found = {f"{self.module}.0.weight": Source(""), f"{self.module}.1.weight": Source("")}
        bias = part(network, self.module).bias is not None
        return found | ({f"{self.module}.1.bias": Source(f"{self.module}.bias")} if bias else {})

    def apply(self, network: nn.Module, draws: Draws) -> None:
        """Put them in."""
        layer = part(network, self.module)
        down, up = _thin(layer, self.rank, bias=layer.bias is not None)
        put(network, self.module, Factored(down, up).train(layer.training))
        if not layer.weight.is_meta and layer.weight.isfinite().all():  # any numbers where those that count are still to come
            first, second = factors(layer, self.rank)
            set_tensor(network, f"{self.module}.0.weight", first)
            set_tensor(network, f"{self.module}.1.weight", second.view_as(up.weight))  # type: ignore[arg-type]
        if layer.bias is not None:
            set_tensor(network, f"{self.module}.1.bias", layer.bias.detach())


@torch.no_grad()
def factors(layer: Any, rank: int) -> tuple[Tensor, Tensor]:
    """The two weights whose product is nearest to a layer's, among those of `rank`: its largest singular vectors, the square roots of their
    singular values in each (of the matrix of outputs by all else; Zhang et al. 2016, "Accelerating very deep convolutional networks").

    Found by the eigenvectors of the smaller of W W^T and W^T W, in float64.
    """
    weight = layer.weight.double()
    weight = weight.transpose(0, 1) if transposed(layer) else weight
    matrix = weight.flatten(1)
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    values, vectors = values[-rank:].clamp(min=0).sqrt(), vectors[:, -rank:]
    root = torch.where(values > values.max() * 1e-9, values, 1).sqrt()
    up, down = (vectors, vectors.T @ matrix) if wide else (matrix @ vectors, vectors.T)
    up, down = (up * root, down / root[:, None]) if wide else (up / root, down * root[:, None])
    first = down.reshape(rank, *weight.shape[1:])
    first = first.transpose(0, 1) if transposed(layer) else first
    return first.contiguous().to(layer.weight.dtype), up.to(layer.weight.dtype)
