"""Heads on the way through a network that classifies, at which an image that is told surely enough leaves it (Teerapittayanon et al. 2016,
"BranchyNet"; Kaya et al. 2019, "Shallow-Deep Networks").

A network with exits is called as it always was, and gives what its last layer does: an exit passes on what it takes. Who wants to hear
what the exits say listens while the network runs: training to all of them, a prediction until one is sure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError

FIX = "the file was put together wrongly"
Ear = Callable[["Exit", Tensor], Tensor]


class _Listening(threading.local):
    """Each thread listens to its own forward passes."""

    ear: Ear | None = None


_LISTENING = _Listening()


class Exit(nn.Module):
    """Passes on what it takes: a map `[B, C, H, W]` where `grid` is given, else `[B, ..., C]`.

    logits: of the means of grid x grid parts of the map, or over all places, by one linear layer. weight: of its loss beside that of the
    last layer.
    """

    def __init__(self, channels: int, classes: int, grid: int, weight: float) -> None:
        super().__init__()
        self.grid, self.weight = grid, weight
        self.linear = nn.Linear(channels * max(1, grid) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says; whoever listens may let go on fewer images."""
        ear = _LISTENING.ear
        return x if ear is None else ear(self, x)

    def logits(self, x: Tensor) -> Tensor:
        """What it takes -> `[B, K]`. Raises UserError where that is of other channels than it was made for."""
        if self.grid and x.ndim != 4:
            raise UserError(f"an exit for maps stands where there are numbers of {list(x.shape[1:])}", where="card", fix=FIX)
        if self.grid:
            rows, columns = (_parts(side, self.grid, x) for side in x.shape[2:])
            x = (rows @ x @ columns.T).flatten(1)
        elif x.ndim > 2:
            x = x.flatten(1, -2).mean(1)
        try:
            told: Tensor = self.linear(x)
        except RuntimeError as error:
            if "shapes cannot be multiplied" not in str(error):
                raise
            raise UserError(f"an exit of other channels stands where there are {x.shape[1]} numbers", where="card", fix=FIX) from None
        return told


def _parts(side: int, grid: int, like: Tensor) -> Tensor:
    """`[grid, side]`: by which a row of pixels becomes the means of its parts, as adaptive pooling cuts them; a product, as that has no
    deterministic gradient on CUDA, and keeps its input, which a layer behind the exit may change in place."""
    place, part = torch.arange(side, device=like.device), torch.arange(grid, device=like.device)[:, None]
    inside = (place >= part * side // grid) & (place < ((part + 1) * side + grid - 1) // grid)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


@contextmanager
def _listening(ear: Ear) -> Iterator[None]:
    before, _LISTENING.ear = _LISTENING.ear, ear
    try:
        yield
    finally:
        _LISTENING.ear = before


def names(network: nn.Module) -> list[str]:
    """The exits of a network, in the order of its modules."""
    return [name for name, part in network.named_modules() if isinstance(part, Exit)]


def heard(network: nn.Module, *inputs: Tensor) -> tuple[Any, list[tuple[Exit, Tensor]]]:
    """What a network gives, and each exit on the way with its logits `[B, K]`, in the order in which they are reached."""
    found: list[tuple[Exit, Tensor]] = []

    def ear(exit: Exit, x: Tensor) -> Tensor:
        found.append((exit, exit.logits(x)))
        return x

    with _listening(ear):
        return network(*inputs), found


class Telling(nn.Module):
    """A network with what its exits say: images -> logits `[B, K]`, and those of the exits `[B, E, K]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        logits, found = heard(self.network, images)
        return logits, torch.stack([told for _, told in found], 1)


class _LeftError(Exception):
    """No image is left, or nobody wants to know more."""


class Leaving(nn.Module):
    """A network that each image leaves at the first exit whose best probability is at least `threshold`: images -> logits `[B, K]`, each
    row those of the exit it left at, and the number of that, int64 `[B]`, from 1 on; the last layer has the number after them."""

    def __init__(self, network: nn.Module, threshold: float) -> None:
        super().__init__()
        self.network, self.threshold = network, threshold

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says. Rows that have left are computed no further, and the rest does not know of them."""
        left = torch.arange(len(images), device=images.device)
        gone: list[tuple[Tensor, Tensor]] = []  # at each exit: rows, logits

        def ear(exit: Exit, x: Tensor) -> Tensor:
            nonlocal left
            told = exit.logits(x)
            sure = told.float().softmax(1).amax(1) >= self.threshold
            gone.append((left[sure], told[sure]))
            left = left[~sure]
            if not len(left):
                raise _LeftError
            return x if not sure.any() else x[~sure]

        with suppress(_LeftError), _listening(ear):
            last = self.network(images)
            gone.append((left, last))
        numbers = torch.cat([torch.full_like(rows, number) for number, (rows, _) in enumerate(gone, 1)])
        order = torch.cat([rows for rows, _ in gone]).argsort()
        return torch.cat([told for _, told in gone])[order], numbers[order]


def telling(network: nn.Module) -> nn.Module:
    """The network with what its exits say, where it has some."""
    return Telling(network) if names(network) else network


def leaving(network: nn.Module, threshold: float | None) -> nn.Module:
    """The network left early, where it has exits, and is known how sure they must be."""
    return Leaving(network, threshold) if threshold is not None and names(network) else network


def passed_by(network: nn.Module, images: Tensor, stop: nn.Module) -> int:
    """Floating-point operations until `stop`, a part of the network, has run; those of exits before it are counted."""

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _LeftError

    handle = stop.register_forward_hook(end)
    try:
        return _counted(lambda: heard(network, images))
    finally:
        handle.remove()


def costs(network: nn.Module, images: Tensor) -> tuple[Sequence[str], Sequence[int]]:
    """The names of the exits in the order in which they are reached, and the operations of one of `images` that leaves at each, then of one
    that goes through to the end; the network must be in evaluation mode."""
    with torch.no_grad():
        _, found = heard(network, images)
        named = {id(part): name for name, part in network.named_modules()}
        counts = [_counted(lambda count=count: _until(network, images, count)) for count in range(1, len(found) + 2)]  # type: ignore[misc]
    return [named[id(exit)] for exit, _ in found], [count // len(images) for count in counts]


def _until(network: nn.Module, images: Tensor, count: int) -> None:
    """Run until so many exits have spoken."""
    spoken = 0

    def ear(exit: Exit, x: Tensor) -> Tensor:
        nonlocal spoken
        exit.logits(x)
        spoken += 1
        if spoken == count:
            raise _LeftError
        return x

    with _listening(ear):
        network(images)


def _counted(work: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, suppress(_LeftError):
        work()
    return int(counter.get_total_flops())
