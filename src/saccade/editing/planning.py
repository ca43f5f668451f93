"""From the text of an edit to what it would do, tried out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from saccade.core.card import Card
from saccade.core.errors import UserError, unknown
from saccade.core.geometry import whole
from saccade.core.results import OBJECTS
from saccade.editing.classes import SetClasses, SetInputChannels
from saccade.editing.deepening import Deepen
from saccade.editing.edit import MOST_EDITS, Build, Edit
from saccade.editing.exiting import EarlyExit
from saccade.editing.feeding import Inputs, latents, makes, run
from saccade.editing.freezing import Freeze, Unfreeze
from saccade.editing.fusing import Fuse
from saccade.editing.inserting import InsertAfter, Take
from saccade.editing.low_rank import AddLora, Factorize, MergeLora
from saccade.editing.replacing import Exchange
from saccade.editing.running import GrowResolution, SetDrop, SetSize
from saccade.editing.subject import Operation, Subject, nearest_first, shown, sizes
from saccade.editing.widening import Prune, Widen
from saccade.nn import fitting
from saccade.nn.features import evaluating
from saccade.nn.layers.exits import heard

OPERATIONS: dict[str, type[Operation]] = {
    kind.name: kind
    for kind in (
        SetClasses,
        SetInputChannels,
        Widen,
        Deepen,
        Exchange,
        InsertAfter,
        Take,
        Prune,
        Fuse,
        AddLora,
        MergeLora,
        Factorize,
        SetDrop,
        SetSize,
        GrowResolution,
        EarlyExit,
        Freeze,
        Unfreeze,
    )
}
NEAR = 4  # modules that an edit is tried on in the place of another
TOLERANCE = 1e-5  # of outputs before and after an exact edit, float32; of the largest, where that is above 1


@dataclass(frozen=True)
class Effect:
    """What an edit would change. shapes: of tensors, by name, before and after ([] for none); flops: of one image of the card's size,
    a multiplication with its sum counted as two; difference: of the outputs that an exact edit keeps, the largest."""

    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int
    shapes: dict[str, tuple[list[int], list[int]]]
    difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        shapes = [{"name": name, "before": before, "after": after} for name, (before, after) in self.shapes.items()]
        keys = ("parameters_before", "parameters_after", "flops_before", "flops_after", "difference")
        return {key: getattr(self, key) for key in keys} | {"shapes": shapes}


@dataclass(frozen=True)
class Planned:
    """An edit that can be made: `network`, a copy, and `card` have it. modules: those that it touches, as users name them."""

    edit: Edit
    network: nn.Module = field(repr=False)
    card: Card
    effect: Effect
    modules: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for who asks what would change."""
        facts = {"text": self.edit.text, "promise": self.edit.promise, "modules": list(self.modules)}
        return facts | self.effect.to_dict()


def parse(text: str) -> Operation:
    """An edit from its one line; raises UserError with the nearest names."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        fix = "put the whole edit into one pair of quotes, and a class with a space in another"
        raise UserError(f"the quotes do not match: {error}", where=text, fix=fix) from None
    if not words:
        raise UserError("an edit must be named", where="EDIT", fix=f"one of {', '.join(OPERATIONS)}")
    if words[0] not in OPERATIONS:
        raise unknown("edit", words[0], OPERATIONS, where=text)
    if not all(words):
        raise UserError("has an empty word", where=text, fix=OPERATIONS[words[0]].usage)
    return OPERATIONS[words[0]].parse(words[1:])


class _BrokenError(UserError):
    """An edit that could be made, after which the network does not do what it should."""


def plan(text: str, network: nn.Module, card: Card, build: Build, seed: int = 0) -> Planned:
    """Find out what an edit would do to a network with its card, and try it; `network` is left as it is.

    build: the room's, from a card and the most numbers that it may need. Raises UserError for an edit that cannot be made, and for one
    that would not keep its promise.
    """
    operation = parse(text)
    if len(card.edits) >= MOST_EDITS:
        raise UserError(f"a model can have {MOST_EDITS} edits, and has as many", where=text, fix="take one back: --undo")
    subject = Subject.of(network, card, build, seed)
    try:
        return _planned(text, operation, subject, network)
    except _BrokenError as error:
        raise UserError(error.message, where=text, fix=_instead(text, operation, subject, network)) from None


def _instead(text: str, operation: Operation, subject: Subject, network: nn.Module) -> str:
    """The same edit of another module that would go; of the nearest few, since each is tried."""
    path, words = str(getattr(operation, "path", "")), shlex.split(text)
    if path in words:
        (first, *_), names = Subject.of(network, subject.card, subject.build, 0).find(path), [name for name, _ in network.named_modules()]
        for name in nearest_first(network, first, names)[:NEAR]:
            other = shlex.join(shown(network, name) if word == path else word for word in words)
            try:
                _planned(other, parse(other), Subject.of(network, subject.card, subject.build, subject.draws.seed), network)
            except Exception:  # whatever hinders a suggestion, what was asked is answered
                continue
            return f"{other} would go"
    return "this network cannot be edited there"


def _planned(text: str, operation: Operation, subject: Subject, network: nn.Module) -> Planned:
    """The edit on the subject's copy, tried. Raises _BrokenError where it does not keep its promise."""
    card, seed = subject.card, subject.draws.seed
    before = operation.plan(subject)
    promise = operation.promised(card)
    anew: Literal[True] | None = True if promise == "exact" and not operation.keeps else None
    edit = Edit(" ".join(text.split()), promise, seed, subject.draws.number, subject.steps, **before, anew=anew)
    after = operation.card(card)
    after = replace(after, edits=(*card.edits, edit.to_dict()), metrics=card.metrics if operation.keeps and promise == "exact" else {})
    difference = _tried(network, card, subject.network, after, operation.kept(card))
    if edit.promise == "exact" and not difference[0] <= TOLERANCE * max(1.0, difference[1]):
        raise _BrokenError(f"the outputs would change by {difference[0]:.2g}")
    found = effect(network, card, subject.network, after, difference[0] if edit.promise == "exact" else None)
    return Planned(edit, subject.network, after, found, tuple(subject.shown(name) for name in edit.modules()))


def effect(network: nn.Module, card: Card, edited: nn.Module, after: Card, difference: float | None = None) -> Effect:
    """What differs between a network and an edited one."""
    old = {name: list(value.shape) for name, value in network.state_dict().items()}
    new = {name: list(value.shape) for name, value in edited.state_dict().items()}
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name, []) != new.get(name, [])]  # no counters that come or go
    shapes = {shown(edited, name): (old.get(name, []), new.get(name, [])) for name in changed}
    counts = (_parameters(network), _parameters(edited), _flops(network, card), _flops(edited, after))
    return Effect(*counts, shapes=shapes, difference=difference)


def _parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def _flops(network: nn.Module, card: Card) -> int:
    height, width = whole(card.input.size, card.input.resize)
    blank = [torch.zeros(1, card.input.channels, height, width, dtype=torch.uint8)]
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        if makes(network):
            network(*latents(network, 1))
        else:
            heard(network, *blank)
    return int(counter.get_total_flops())


def _tried(network: nn.Module, card: Card, edited: nn.Module, after: Card, kept: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The largest difference of outputs on images that both networks see alike, or of the images that they make, and the largest output."""
    if makes(network):
        inputs = latents(network, 2)
        return _compared([_enlarged(one, card, after) for one in _outputs(network, inputs)], _ran(edited, inputs), kept, card, after)
    if card.input.size != after.input.size:
        _ran(edited, [images(after.input.channels, card.input.channels, whole(after.input.size, after.input.resize))])
        return 0.0, 0.0
    for size in sizes(card):
        try:
            old = _outputs(network, [images(card.input.channels, after.input.channels, size)])
        except Exception:  # a network of fixed size
            continue
        return _compared(old, _ran(edited, [images(after.input.channels, card.input.channels, size)]), kept, card, after)
    raise UserError("the network does not run on images of its size", fix="the file is at fault: train, or export, it anew")


def _enlarged(output: Tensor, before: Card, after: Card) -> Tensor:
    """A made image at its new size, each pixel as several."""
    if before.input.size == after.input.size or output.ndim != 4:
        return output
    return F.interpolate(output, after.input.size)


def _ran(edited: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The outputs of an edited network; raises _BrokenError where it does not run."""
    try:
        return _outputs(edited, inputs)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise _BrokenError(f"the edited network would not run: {said}") from None


def images(channels: int, other: int, size: tuple[int, int]) -> Tensor:
    """Two images `[2, channels, *size]` that a network of `other` channels can be shown alike: grey where one has a single channel, bands
    that come again in turn where one has fewer."""
    generator = torch.Generator().manual_seed(1)
    own, shared = fitting.colours(channels), min(map(fitting.colours, (channels, other)))
    colours = torch.randint(0, 256, (2, shared, *size), generator=generator).to(torch.uint8)
    colours = colours[:, [place % shared for place in range(own)]]
    return colours if own == channels else torch.cat([colours, torch.full_like(colours[:, :1], 255)], 1)


def _outputs(network: nn.Module, inputs: Inputs) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(run(network, inputs)) if isinstance(leaf, Tensor)]


def _compared(old: list[Tensor], new: list[Tensor], kept: Sequence[tuple[int, int]], before: Card, after: Card) -> tuple[float, float]:
    if len(old) != len(new):  # an exit has come, or gone: the others do not know of it
        old, new = old[:1], new[:1]
    if before.classes != after.classes or len(kept) != len(before.classes):
        where = _classes_of(before, len(old))
        of_old, of_new = [place for place, _ in kept], [place for _, place in kept]
        old = [_told(one, at, len(before.classes), of_old) for one, at in zip(old, where, strict=True)]
        new = [_told(one, at, len(after.classes), of_new) for one, at in zip(new, where, strict=True)]
    worst, largest = 0.0, 0.0
    for one, other in zip(old, new, strict=True):
        worst = max(worst, float((one - other).abs().max()) if one.numel() else 0.0)
        largest = max(largest, float(one.abs().max()) if one.numel() else 0.0)
    return worst, largest


def _classes_of(card: Card, outputs: int) -> list[tuple[int, int] | None]:
    """Where the classes stand in each output, as the doors of the rooms say: the axis, and the place of the first; None where none do."""
    if card.task == "classify":  # exits tell of them too
        return [(1, 0) for _ in range(outputs)]
    own = card.architecture.get("source") == "saccade"
    if card.task == "panoptic" and own:
        return [(2, 4), None, (1, 0)]
    first = (2, 4) if card.task in OBJECTS else (2, 0) if card.task == "panoptic" else (1, 0)
    return [first, *[None] * (outputs - 1)]


def _told(outputs: Tensor, where: tuple[int, int] | None, classes: int, kept: Sequence[int]) -> Tensor:
    """An output with these of the classes alone, and with all that tells of none."""
    if where is None:
        return outputs
    axis, first = where
    places = [*range(first), *(first + place for place in kept), *range(first + classes, outputs.shape[axis])]
    return outputs.index_select(axis, torch.tensor(places, dtype=torch.int64))
