"""The last edit taken back: every tensor is gathered from where it went."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.editing.edit import Build, Edit, edits_of, unedited
from saccade.editing.pieces import inverse
from saccade.editing.steps import Draws, Sources

Shapes = Mapping[str, torch.Size]
History = Sequence[tuple[Shapes, Sources]]  # of each step the shapes of all tensors before it, and where its own come from


class GoneError(Exception):
    """A step has thrown away what a tensor was before it."""


def undo(network: nn.Module, card: Card, build: Build) -> tuple[nn.Module, Card]:
    """The network and the card without the last edit, with what the weights have learned since; raises UserError where the edit has
    thrown something away."""
    last = last_of(card)
    before = build(unedited(card), None)
    for edit in edits_of(card)[:-1]:
        edit.apply(before)
    take_back(before, dict(network.state_dict()), last)
    return before.eval(), last.before(card)


def last_of(card: Card) -> Edit:
    """The last edit; raises UserError where there is none."""
    edits = edits_of(card)
    if not edits:
        raise UserError("the model has no edit to take back", where="--undo")
    return edits[-1]


def take_back(before: nn.Module, state: Mapping[str, Tensor], last: Edit) -> History:
    """Give a network as it was before its last edit the tensors that `state` has after it. Raises UserError where they are gone."""
    history = _history(before, last)
    for shapes, sources in reversed(history):
        try:
            state = {name: back(name, shape, sources, state) for name, shape in shapes.items()}
        except GoneError as error:
            message = f"cannot take back {last.text!r}: what {error} was before is gone"
            raise UserError(message, where="--undo", fix="take a model file from before it") from None
    before.load_state_dict(state)
    return history


def _history(before: nn.Module, last: Edit) -> History:
    tried = copy.deepcopy(before)
    history: list[tuple[Shapes, Sources]] = []
    for step in last.steps:
        history.append(({name: value.shape for name, value in tried.state_dict().items()}, step.sources(tried)))
        step.apply(tried, Draws(last.seed, last.number))
    return history


def back(name: str, shape: torch.Size, sources: Sources, state: Mapping[str, Tensor]) -> Tensor:
    """A tensor as it was before a step; raises GoneError."""
    if name not in sources and name in state:
        return state[name]
    now = name if name in sources else next((new for new, source in sources.items() if source.name == name), "")
    if now not in state or sources[now].name != name:
        raise GoneError(name)
    source = sources[now]
    if source.runs is None or not state[now].ndim:
        return state[now]
    places = inverse(source.runs, shape[source.axis])
    if places is None:
        raise GoneError(name)
    return torch.cat([state[now].narrow(source.axis, start, count) for start, count in places], source.axis)
