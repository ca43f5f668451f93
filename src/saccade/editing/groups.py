"""Layers whose channels are one and the same, and all that reads them: what has to change together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from saccade.core.errors import UserError
from saccade.editing.pieces import FRESH, Pieces, index, pieces
from saccade.editing.tracing import NONE, SEVERAL, Codes, Marks, Trace, depthwise, mixes, width


class TiedError(UserError):
    """Channels that cannot be changed in number: `why` says what they would need."""


@dataclass(frozen=True)
class Group:
    """layers: those that give the channels; readers: what takes them, with the channel that has reached each of its own."""

    channels: int
    layers: tuple[str, ...]
    readers: Mapping[str, Codes]


class Channels:
    """The groups of a network, found when asked for."""

    def __init__(self, found: Trace) -> None:
        self.trace = found
        self._reach = found.reach()
        self._marks: dict[str, Marks] = {}

    def part(self, name: str) -> nn.Module:
        """A module of the network."""
        return self.trace.network.get_submodule(name)

    def marks(self, name: str) -> Marks:
        """Where the channels of a layer arrive."""
        if name not in self._marks:
            self._marks[name] = self.trace.marks((name,), width(self.part(name)))
        return self._marks[name]

    def group(self, name: str) -> Group:
        """All that is tied to a layer's channels; raises TiedError where they cannot be changed in number."""
        channels, layers, waiting = width(self.part(name)), [name], [name]
        readers: dict[str, Codes] = {}
        while waiting:
            marks = self._free(waiting.pop())
            taken = {reader: codes for reader, codes in marks.codes.items() if (codes != NONE).any()}
            for reader, codes in taken.items():
                readers[reader] = np.maximum(readers[reader], codes) if reader in readers else codes
                new = [other for other in self._others(reader, codes) if other not in layers]
                layers += new
                waiting += new
        self._check_readers(channels, readers)
        return Group(channels, tuple(layers), readers)

    def follow(self, group: Group, inputs: Mapping[str, Pieces]) -> None:
        """Take up that the layers of a group give other channels by now, and that its readers have these `inputs`."""
        for layer in group.layers:
            self._marks.pop(layer, None)
        for name, marks in self._marks.items():
            self._marks[name] = replace(marks, codes={one: _gathered(codes, inputs.get(one), NONE) for one, codes in marks.codes.items()})
        for name, reach in self._reach.items():
            layers = {one: _gathered(row, inputs.get(one), name in group.layers) for one, row in reach.layers.items()}
            self._reach[name] = replace(reach, layers=layers)

    def _free(self, layer: str) -> Marks:
        """The marks of a layer, where nothing holds its channels."""
        reach = self._reach[layer]
        if reach.output:
            raise TiedError(f"the channels of {layer} are what the network gives")
        if reach.whole:
            kind = type(self.part(reach.whole[0])).__name__
            raise TiedError(f"{reach.whole[0]} ({kind}) takes all channels of {layer} together, so that more would change each")
        marks = self.marks(layer)
        mixed = next((reader for reader, codes in marks.codes.items() if (codes == SEVERAL).any()), None)
        if mixed is not None:
            raise TiedError(f"several channels of {layer} reach one of {mixed}: they have fixed places")
        unmet = [one for one in self.trace.unmet if getattr(self.part(one), "in_channels", 0) == width(self.part(layer))]
        if unmet:
            raise TiedError(f"{unmet[0]} does not run outside of training, and may take the channels of {layer}")
        return marks

    def _others(self, reader: str, codes: Codes) -> list[str]:
        """Further layers that reach the same channels of a reader; each must be the same channel, and there must be no more of them."""
        found = []
        for other, reach in self._reach.items():
            if reader not in reach.layers or not (reach.layers[reader] & (codes >= 0)).any():
                continue
            theirs = self.marks(other).codes[reader]
            both = (codes >= 0) & (theirs != NONE)
            if (theirs[both] != codes[both]).any() or ((theirs != NONE) & (codes == NONE)).any():
                raise TiedError(f"channels of {other} are joined with others than their like before {reader}")
            found.append(other)
        return found

    def _check_readers(self, channels: int, readers: Mapping[str, Codes]) -> None:
        if not any(mixes(self.part(reader)) for reader in readers):
            raise TiedError("no layer takes its channels")
        for reader, codes in readers.items():
            alone = not mixes(self.part(reader))
            if set(codes[codes >= 0].tolist()) != set(range(channels)):
                raise TiedError(f"{reader} takes only some of its channels")
            if alone and depthwise(self.part(reader)) and (codes == NONE).any():
                raise TiedError(f"{reader} has filters for other channels too")


def inputs_after(trace: Trace, group: Group, outputs: Pieces) -> dict[str, list[tuple[int, int]]]:
    """Of each reader of a group the new inputs by where they come from, once the layers of the group give `outputs`, as they do in the
    traced network by now."""
    origin = index(outputs)
    marks = trace.marks(group.layers, len(origin))
    return {reader: pieces(_origins(marks.codes.get(reader), codes, origin, reader)) for reader, codes in group.readers.items()}


def _gathered(values: NDArray[Any], runs: Pieces | None, fresh: Any) -> NDArray[Any]:
    if runs is None:
        return values
    places = index(runs)
    return np.where(places >= 0, values[np.maximum(places, 0)], fresh)


def _origins(after: Codes | None, before: Codes, origin: Codes, reader: str) -> list[int]:
    """Each new input as the old one it was: that which the same channel reached, in the same turn."""
    if after is None or (after == SEVERAL).any():
        raise TiedError(f"{reader} would not know its channels apart")
    places: dict[int, list[int]] = {}
    for place, code in enumerate(before.tolist()):
        places.setdefault(code, []).append(place)
    turns: dict[int, int] = {}
    found = []
    for code in after.tolist():
        old = int(origin[code]) if code >= 0 else NONE
        if code >= 0 and old < 0:
            found.append(FRESH)
            continue
        turn = turns[code] = turns.get(code, -1) + 1
        if turn >= len(places.get(old, [])):
            raise TiedError(f"{reader} would take more than {len(before)} channels of before")
        found.append(places[old][turn])
    return found
