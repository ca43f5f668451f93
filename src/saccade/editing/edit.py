"""An edit as it is kept: its text, and resolved, so that it can be made again from this alone; and edits made again on a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le, MaxLen, MinLen
from torch import nn

from saccade.core.bands import MOST
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.files import dumps
from saccade.core.modelfile import Buffer
from saccade.editing.steps import Draws, Sources, Step

MOST_EDITS, MOST_STEPS = 1000, 5000
SHRUNK = 8  # times as many numbers as a file holds may stand in its network before the edits, or between them
FREE = 1 << 22  # numbers that any file may ask for: 16 MB

Promise = Literal["exact", "changes the function"]
MOST_TEXT = 4096
Text = Annotated[str, MinLen(1), MaxLen(MOST_TEXT)]
Build = Callable[[Card, int | None], nn.Module]


@dataclass(frozen=True)
class Edit:
    """seed, number: what fresh numbers follow from; steps: in turn; classes, ids, stuff, channels, size, mean, std: those of the card
    before it, where it changed them; anew: where it is exact, but figures of the model before it say nothing of the one after it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    text: Text
    promise: Promise
    seed: Annotated[int, Ge(0), Le((1 << 63) - 1)]
    number: Annotated[int, Ge(0), Le(MOST_EDITS)]
    steps: list[Step]
    classes: list[str] | None = None
    ids: list[int] | None = None
    stuff: list[int] | None = None
    channels: Annotated[int, Ge(1), Le(MOST)] | None = None
    size: Annotated[list[int], MinLen(2), MaxLen(2)] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    anew: Literal[True] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what says nothing."""
        plain = asdict(self)
        steps = [{key: value for key, value in step.items() if value is not None} for step in plain.pop("steps")]
        found: dict[str, Any] = json.loads(dumps({key: value for key, value in plain.items() if value is not None} | {"steps": steps}))
        return found

    def modules(self) -> list[str]:
        """The modules that are touched, each once."""
        names = [getattr(step, "module", None) or getattr(step, "at", None) or getattr(step, "layer", "") for step in self.steps]
        return list(dict.fromkeys(name for name in names if name))

    def apply(self, network: nn.Module) -> list[tuple[Sources, frozenset[str]]]:
        """Change `network` in place; gives, by step, where the tensors that were touched come from, and the names of all after it."""
        draws, followed = Draws(self.seed, self.number), []
        for step in self.steps:
            sources = step.sources(network)
            step.apply(network, draws)
            followed.append((sources, frozenset(network.state_dict())))
        return followed

    def before(self, card: Card) -> Card:
        """The card as it was, of the one after this edit."""
        spec = card.input
        if self.channels is not None:
            spec = replace(spec, channels=self.channels, mean=tuple(self.mean or ()), std=tuple(self.std or ()))
        if self.size is not None:
            spec = replace(spec, size=(self.size[0], self.size[1]))
        classes = card.classes if self.classes is None else tuple(self.classes)
        ids = card.ids if self.ids is None else tuple(self.ids)
        stuff = card.stuff if self.stuff is None else tuple(self.stuff)
        return replace(card, classes=classes, ids=ids, stuff=stuff, input=spec, edits=card.edits[:-1])


def edits_of(card: Card) -> list[Edit]:
    """The edits of a card that may come from an untrusted file; raises UserError for what is none."""
    return edits_from(card.edits)


def edits_from(raw: Sequence[Mapping[str, Any]]) -> list[Edit]:
    """The same of edits as a card has them."""
    from pydantic import TypeAdapter, ValidationError

    if len(raw) > MOST_EDITS:
        raise UserError(f"a model has at most {MOST_EDITS} edits, this one {len(raw)}", where="card")
    try:
        edits = TypeAdapter(list[Edit]).validate_json(dumps([dict(edit) for edit in raw]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"not the edits of a model: {place}: {first['msg'][:200]}", where="card") from None
    if sum(len(edit.steps) for edit in edits) > MOST_STEPS:
        raise UserError(f"edits of more than {MOST_STEPS:,} steps", where="card")
    return edits


def unedited(card: Card) -> Card:
    """The card as it was before all of its edits."""
    for edit in reversed(edits_of(card)):
        card = edit.before(card)
    return card


def rebuild(card: Card, build: Build, buffers: Mapping[str, Buffer]) -> nn.Module:
    """The network of a card with edits, with fresh weights: that of its architecture, and the edits made again.

    build: the room's. The edits are made first on shapes alone: what does not end in just the tensors of `buffers` is refused before it is
    allocated. Raises UserError.
    """
    edits = edits_of(card)
    held = sum(_count(buffer.shape) for buffer in buffers.values())
    base = unedited(card)
    # Cards of files are checked field by field, also as they were before.
    most = max(held * SHRUNK, FREE)
    network = build(Card.from_json(base.to_json(), where="card"), most if _may_shrink(edits) else held)
    check(network, edits, {name: tuple(buffer.shape) for name, buffer in buffers.items()}, most)
    for edit in edits:
        edit.apply(network)
    return network


def check(network: nn.Module, edits: Sequence[Edit], wanted: Mapping[str, tuple[int, ...]] | None, most: int) -> None:
    """Make the edits on shapes alone. Raises UserError where they do not end in the `wanted` tensors, or would on the way hold more than
    `most` numbers."""
    import copy

    shapes = copy.deepcopy(network).to("meta")
    for edit in edits:
        draws = Draws(edit.seed, edit.number)
        for step in edit.steps:
            step.check(shapes, most)
            with torch.device("meta"):
                step.apply(shapes, draws)
            if sum(value.numel() for value in shapes.state_dict().values()) > most:
                raise UserError(f"the edits need more than the file holds: {edit.text[:80]!r}", where="card")
    found = {name: tuple(value.shape) for name, value in shapes.state_dict().items()}
    if wanted is not None and found != wanted:
        name = next(iter(sorted({*found} ^ {*wanted}) or (key for key in found if found[key] != wanted[key])))
        raise UserError(f"the edits do not give the tensors of the file: {name}", where="card", fix="the file was put together wrongly")


def _may_shrink(edits: Sequence[Edit]) -> bool:
    """Whether a network may have been larger than it is now; one that only grew fits into what its file holds."""
    return any(step.shrinks for edit in edits for step in edit.steps)


def _count(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found
