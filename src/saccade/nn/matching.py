"""Whose tensor is whose, where a file of weights names them otherwise than the network that they are for. Shapes and names alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

Shape = tuple[int, ...]
DEEPEST = 4  # parts of a name that may be a wrapping
COUNTERS = "num_batches_tracked"  # of batch normalisation: older files have none, and nothing hangs on them
AVERAGED = "ema"  # in names of averaged copies, which are what is used


@dataclass(frozen=True)
class Match:
    """names: of the network's tensors -> of the file's; without: what names of the file have been freed of, inside: those of the network;
    ordered: how many of them were found by their shapes and order, as no names agreed."""

    names: dict[str, str]
    without: str = ""
    inside: str = ""
    ordered: int = 0

    def named(self, other: str) -> str:
        """What a tensor of the file is called in the network, as names go; "" where it does not begin as the others do."""
        return self.inside + other.removeprefix(self.without) if other.startswith(self.without) else ""


def match(module: Mapping[str, Shape], file: Mapping[str, Shape], rows: Mapping[str, int], *, ordered: bool) -> Match:
    """The tensors of the file that are the network's: by name, whatever wrapping ("module.", "model.") stands before all of them, or before
    one of two copies, the averaged one where one is called so; then, where ordered says that the file keeps the order of its network, those
    that are left by shape, if all of them agree in turn.

    rows: of the tensors whose first axis counts classes, how many rows there are beside those: any number of them fits.
    """
    best = Match({})
    most = 0
    for without in sorted(wrappings(file), key=lambda prefix: AVERAGED not in re.split(r"[._]", prefix.lower())):
        for inside in wrappings(module):
            names = {name: other for name, other in _named(module, file, inside, without) if _fits(name, module[name], file[other], rows)}
            filled = sum(math.prod(module[name]) for name in names if not name.endswith(COUNTERS))
            if filled > most:
                best, most = Match(names, without, inside), filled
    return _by_order(best, module, file, rows) if ordered else best


def _named(module: Mapping[str, Shape], file: Mapping[str, Shape], inside: str, without: str) -> Iterator[tuple[str, str]]:
    for name in module:
        if name.startswith(inside) and (other := without + name.removeprefix(inside)) in file:
            yield name, other


def _by_order(found: Match, module: Mapping[str, Shape], file: Mapping[str, Shape], rows: Mapping[str, int]) -> Match:
    taken = set(found.names.values())
    left = [name for name in module if name not in found.names and not name.endswith(COUNTERS)]
    theirs = [name for name in file if name not in taken and not name.endswith(COUNTERS)]
    pairs = list(zip(left, theirs, strict=False))
    if len(left) != len(theirs) or not all(_fits(name, module[name], file[other], rows) for name, other in pairs):
        return found
    return replace(found, names={**found.names, **dict(pairs)}, ordered=len(pairs))


def wrappings(names: Mapping[str, Shape]) -> list[str]:
    """What at least two in five of the names begin with, shortest first: one of two copies does, beside which little else stands."""
    counts: dict[str, int] = {"": len(names)}
    for name in names:
        parts = name.split(".")
        for depth in range(1, min(DEEPEST, len(parts) - 1) + 1):
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return sorted((prefix for prefix, count in counts.items() if 5 * count >= 2 * len(names)), key=len)


def _fits(name: str, shape: Shape, other: Shape, rows: Mapping[str, int]) -> bool:
    """The same shape, or the same numbers for each of the same outputs (a 1x1 convolution and a matrix), or any number of classes."""
    if shape == other:
        return True
    if name in rows:
        return len(shape) == len(other) and shape[1:] == other[1:] and other[0] > rows[name]
    return len(shape) != len(other) and shape[:1] == other[:1] and math.prod(shape) == math.prod(other)
