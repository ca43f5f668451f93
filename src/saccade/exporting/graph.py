"""The whole of what ships as one module: pixels in, normalisation, network and decode, named arrays out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.core import geometry
from saccade.core.card import Card

Decode = Callable[[Tensor, tuple[int, int]], dict[str, Tensor]]

AXES = ("batch", "height", "width")


@dataclass(frozen=True)
class Graph:
    """What is exported. names: of the outputs, in their order; sample: uint8 `[2, C, h, w]` of the card's size; sizes: two others, not
    square, that the network takes as well, none where it takes no other."""

    module: nn.Module
    card: Card
    names: Sequence[str]
    sample: Tensor
    sizes: Sequence[tuple[int, int]]


class _Deployed(nn.Module):
    """`module`, then `decode`; the outputs as a tuple."""

    def __init__(self, module: nn.Module, decode: Decode, size: tuple[int, int]) -> None:
        super().__init__()
        self.module = module
        self._decode, self._size = decode, size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 `[B, C, H, W]` -> the decoded outputs."""
        return tuple(self._decode(self.module(images), self._size).values())


@torch.no_grad()
def assemble(module: nn.Module, decode: Decode, card: Card) -> Graph:
    """A copy of `module` on the CPU, in evaluation mode, with its decode behind it. `module` itself is left as it is."""
    module = copy.deepcopy(module).cpu().eval().to(memory_format=torch.contiguous_format)

    height, width = geometry.whole(card.input.size, card.input.resize)
    sample = torch.randint(0, 256, (2, card.input.channels, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    names = tuple(decode(module(sample), card.input.size))
    others = (height + 32, width + 64), (height + 3 * max(1, height // 8), max(1, width - width // 8))
    sizes = [geometry.whole(other, card.input.resize) for other in others]
    try:
        for other in sizes:
            module(torch.zeros(1, card.input.channels, *other, dtype=torch.uint8))
    except Exception:  # a network of fixed size says so in its own way: an assertion, a shape that does not fit
        sizes = []
    return Graph(_Deployed(module, decode, card.input.size), card, names, sample, sizes)
