"""Weights from any file - a model of saccade's, safetensors, or pickled by others - into a network, with a report of what matched."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.core import licenses, modelfile
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.nn import fitting, matching, unpickling, weights
from saccade.nn.weights import Report, Rows

FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights. tensors: in its order where it has one (ordered), else by name; card: of a model of saccade's; inside: the keys
    under which a pickled file had them."""

    path: Path
    tensors: dict[str, Buffer]
    card: Card | None = None
    inside: str = ""
    ordered: bool = False

    def descent(self, license: str = licenses.UNKNOWN, source: str = "", data: str = "") -> tuple[Mapping[str, str], ...]:
        """The chain that ends in this file. What a card states is its own; of a file from elsewhere the user says what he knows."""
        if self.card is not None:
            trained = licenses.link(licenses.name_of(self.path), file=self.path, data=self.card.data)
            return (*self.card.licenses, trained)
        return (licenses.link(licenses.name_of(self.path), license=license, source=source, file=self.path, data=data),)


@dataclass(frozen=True)
class Taken:
    """What a network took of a file. share: of the network's numbers, those that belong to classes apart; match: how it was found."""

    report: Report
    share: float
    match: matching.Match

    def __str__(self) -> str:
        how = [f"without {self.match.without!r}"] if self.match.without else []
        how += [f"{self.match.ordered} by shape and order"] if self.match.ordered else []
        told = f"{self.report.loaded} tensors, {self.share:.1%} of the network{''.join(f', {one}' for one in how)}"
        return f"{told}; {self.report}" if self.report else told


def read(path: Path) -> Checkpoint:
    """The weights of a file. Raises UserError for what is none, and for a pickled file that holds more than weights."""
    if modelfile.is_pickled(path):
        found = unpickling.unpickled(path)
        return Checkpoint(path, found.tensors, inside=found.inside, ordered=True)
    tensors, card = modelfile.load_any(path)
    return Checkpoint(path, tensors, card)


@dataclass(frozen=True)
class Place:
    """What a network's tensors are for. rows: those with rows of classes; inputs: those of the layers that see the image; channels: of the
    image; size: (height, width) of the images that the file learned from, where it says so and they are others than here."""

    rows: Mapping[str, Rows] = field(default_factory=dict)
    inputs: Collection[str] = ()
    channels: int = 3
    size: tuple[int, int] | None = None


def take(module: nn.Module, checkpoint: Checkpoint, place: Place, same: Sequence[tuple[int, int]], least: float) -> Taken:
    """Copy into `module` what the checkpoint has of it: see `matching.match`, and `weights.load_matching` for rows and same. What would not
    fit because its images had other channels or another size is made to (`nn.fitting`).

    Nothing is taken of rows where no class is the same. Raises UserError where less than a share of `least` of the module's numbers would
    be filled; nothing is copied then.
    """
    rows = place.rows
    renaming: Any = next((part for part in module.modules() if hasattr(part, "translated")), None)
    if renaming is not None and checkpoint.card is None:  # its library has given its tensors other names over time
        checkpoint = replace(checkpoint, tensors=renaming.translated(checkpoint.tensors))
    state = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    checkpoint, found = _best(module, state, checkpoint, place)
    if not same:
        found = replace(found, names={name: other for name, other in found.names.items() if name not in rows})
    needed = [name for name in state if name not in rows and not name.endswith(matching.COUNTERS)]
    share = _filled(needed, state, found) / max(1, sum(math.prod(state[name]) for name in needed))
    tensors = {name: checkpoint.tensors[other] for name, other in found.names.items()}
    tensors = {name: buffer if name in rows else replace(buffer, shape=state[name]) for name, buffer in tensors.items()}
    used = set(found.names.values())
    rest = {name: buffer for name, buffer in checkpoint.tensors.items() if name not in used}
    if not found.names or share < least:
        report = weights.compare(module, {**{found.named(name) or name: buffer for name, buffer in rest.items()}, **tensors})
        report = replace(report, missing=tuple(name for name in report.missing if not name.endswith(matching.COUNTERS)))
        raise UserError(
            f"its weights fill {math.floor(1000 * share) / 10}% of this network, must be {least:.0%} at least: {report}",
            where=str(checkpoint.path),
            fix="give the --model that they were made for",
        )
    report = weights.load_matching(module, tensors, rows, same)
    return Taken(replace(report, unexpected=tuple(name for name in rest if not name.endswith(matching.COUNTERS))), share, found)


def _filled(names: Iterable[str], state: Mapping[str, matching.Shape], found: matching.Match) -> int:
    return sum(math.prod(state[name]) for name in names if name in found.names)


def _best(
    module: nn.Module, state: Mapping[str, matching.Shape], checkpoint: Checkpoint, place: Place
) -> tuple[Checkpoint, matching.Match]:
    """The checkpoint as it is or made to fit, whichever fills more, and what of it is whose."""
    others = {name: part.others for name, part in place.rows.items()}
    found = matching.match(state, _shapes(checkpoint), others, ordered=checkpoint.ordered)
    most = _filled(state, state, found)
    if place.size is None and all(name in found.names or name.endswith(matching.COUNTERS) for name in state):
        return checkpoint, found
    other = replace(checkpoint, tensors=_fitted(module, state, checkpoint, found, place), ordered=False)
    again = matching.match(state, _shapes(other), others, ordered=False)
    filled = _filled(state, state, again)
    if filled > most or (filled == most and place.size is not None):
        return other, replace(again, without=found.without)
    return checkpoint, found


def _shapes(checkpoint: Checkpoint) -> dict[str, matching.Shape]:
    return {name: tuple(buffer.shape) for name, buffer in checkpoint.tensors.items()}


def _fitted(
    module: nn.Module, state: Mapping[str, matching.Shape], checkpoint: Checkpoint, found: matching.Match, place: Place
) -> dict[str, Buffer]:
    """All of a file by its names in the network, first layers for its channels, positions for its size."""
    if not found.names:
        found = matching.Match({}, matching.wrappings(_shapes(checkpoint))[-1], fitting.innermost(module)[1])
    named = {found.named(name) or name: buffer for name, buffer in checkpoint.tensors.items()}
    floats = weights.from_buffers({name: buffer for name, buffer in named.items() if buffer.dtype in FLOATS})
    floats |= fitting.resampled(module, floats, place.size)
    for name in place.inputs:
        there = fitting.sees(state[name], floats[name].shape, place.channels) if name in floats else 0
        if there and tuple(floats[name].shape) != state[name]:
            floats[name] = fitting.channels(floats[name], there, place.channels)
    return {name: buffer for name, buffer in named.items() if buffer.dtype not in FLOATS} | weights.to_buffers(floats)


def classes(checkpoint: Checkpoint, module: nn.Module, rows: Mapping[str, Rows]) -> int:
    """How many classes the weights tell apart, by the rows of `module`'s tensors that count them; raises UserError where none matches."""
    state = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shapes = {name: tuple(buffer.shape) for name, buffer in checkpoint.tensors.items()}
    found = matching.match(state, shapes, {name: part.others for name, part in rows.items()}, ordered=checkpoint.ordered)
    for name, part in rows.items():
        if name in found.names and (count := part.count(shapes[found.names[name]][0])) >= 0:
            return count
    raise UserError("its weights do not say how many classes they tell apart", where=str(checkpoint.path), fix="give --classes")


def turn_colours(module: nn.Module) -> None:
    """Make a network that was trained on blue, green, red take red, green, blue: its first convolution's weights change places."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise UserError("has no first convolution on three colours", where="--bgr", fix="leave it out")
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))
