"""The last edit taken back: every tensor is gathered from where it went."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.editing.edit import Build, edits_of, unedited
from saccade.editing.pieces import inverse
from saccade.editing.steps import Draws, Sources

Shapes = Mapping[str, torch.Size]


def undo(network: nn.Module, card: Card, build: Build) -> tuple[nn.Module, Card]:
    """The network and the card without the last edit, with what the weights have learned since; raises UserError where the edit has
    thrown something away."""
    edits = edits_of(card)
    if not edits:
        raise UserError("the model has no edit to take back", where="--undo")
    *others, last = edits
    before = build(unedited(card), None)
    for edit in others:
        edit.apply(before)
    tried = copy.deepcopy(before)
    history: list[tuple[Shapes, Sources]] = []
    for step in last.steps:
        history.append(({name: value.shape for name, value in tried.state_dict().items()}, step.sources(tried)))
        step.apply(tried, Draws(last.seed, last.number))
    state: dict[str, Tensor] = dict(network.state_dict())
    for shapes, sources in reversed(history):
        state = {name: _back(name, shape, sources, state, last.text) for name, shape in shapes.items()}
    before.load_state_dict(state)
    return before.eval(), last.before(card)


def _back(name: str, shape: torch.Size, sources: Sources, state: Mapping[str, Tensor], text: str) -> Tensor:
    """A tensor as it was before a step."""
    if name not in sources and name in state:
        return state[name]
    now = name if name in sources else next((new for new, source in sources.items() if source.name == name), "")
    gone = UserError(f"cannot take back {text!r}: what {name} was before is gone", where="--undo", fix="take the file from before it")
    if not now or sources[now].name != name:
        raise gone
    source = sources[now]
    if source.runs is None:
        return state[now]
    places = inverse(source.runs, shape[source.axis])
    if places is None:
        raise gone
    return torch.cat([state[now].narrow(source.axis, start, count) for start, count in places], source.axis)
