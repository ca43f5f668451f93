"""What an optimizer remembers of each parameter, through an edit: it moves as the weights do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saccade.editing.pieces import index
from saccade.editing.sources import Source
from saccade.editing.steps import Sources
from saccade.editing.undoing import GoneError, Shapes, back

Parts = Mapping[str, Mapping[str, Tensor]]  # by parameter, then by name: exp_avg, exp_avg_sq, step; momentum_buffer
SQUARES = "exp_avg_sq"
START = "start"  # not remembered by an optimizer, but moved as if: what a run that is drawn to its start began with (`start_decay`)


@dataclass(frozen=True)
class Forward:
    """Through an edit that was made. steps: each with where its tensors come from, and the names of all tensors after it."""

    steps: Sequence[tuple[Sources, frozenset[str]]]

    def __call__(self, parts: Parts) -> Parts:
        """Those of tensors that were not touched are the same; of a changed one the channels are gathered as its weights are. Fresh
        channels have no momentum, and the mean second moment of their tensor, so that their first steps are of a usual length; a tensor
        that is new has none."""
        for sources, names in self.steps:
            moved = {name: _moved(name, sources, parts, names) for name in names}
            parts = {name: part for name, part in moved.items() if part is not None}
        return parts


@dataclass(frozen=True)
class Backward:
    """Through an edit that was taken back. history: of each step the shapes of all tensors before it, and where its own come from."""

    history: Sequence[tuple[Shapes, Sources]]

    def __call__(self, parts: Parts) -> Parts:
        """Of what was gone there is none."""
        for shapes, sources in reversed(self.history):
            returned = {name: _returned(name, shape, sources, parts) for name, shape in shapes.items()}
            parts = {name: part for name, part in returned.items() if part}
        return parts


def _moved(name: str, sources: Sources, parts: Parts, names: frozenset[str]) -> Mapping[str, Tensor] | None:
    source = sources.get(name)
    if source is None:
        return parts.get(name)
    if source.name != name and source.name in names:  # a copy of what stays
        return None
    old = parts.get(source.name)
    return old and {part: _gathered(source, part, value) for part, value in old.items()}


def _gathered(source: Source, part: str, value: Tensor) -> Tensor:
    if source.runs is None or not value.ndim:
        return value
    places = index(source.runs)
    found = value.index_select(source.axis, torch.from_numpy(np.maximum(places, 0)).to(value.device))
    fresh = torch.from_numpy(np.flatnonzero(places < 0)).to(value.device)
    return found.index_fill_(source.axis, fresh, float(value.mean()) if part == SQUARES else source.value if part == START else 0.0)


def _returned(name: str, shape: torch.Size, sources: Sources, parts: Parts) -> dict[str, Tensor]:
    kinds = {kind for part in parts.values() for kind in part}
    found = {}
    for kind in sorted(kinds):
        values = {other: part[kind] for other, part in parts.items() if kind in part}
        try:
            found[kind] = back(name, shape, sources, values)
        except GoneError:
            continue
    return found
