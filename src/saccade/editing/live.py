"""Edits of a network in training, as the loop makes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.editing import planning
from saccade.editing.edit import Build, check, edits_from, rebuild
from saccade.editing.moments import Backward, Forward
from saccade.editing.undoing import last_of, take_back
from saccade.nn import weights


@dataclass(frozen=True)
class Editor:
    """What the loop needs to know of edits. build: the room's, from a card; seed: of the run."""

    build: Build
    seed: int

    def plan(self, text: str, network: nn.Module, card: Card) -> tuple[dict[str, Any], dict[str, Any]]:
        """An edit as a card has it, and what it would change; `network` is left as it is. Raises UserError where it cannot be made, and
        where it would not fit the data that the run is about."""
        planned = planning.plan(text, network, card, self.build, self.seed)
        if replace(planned.card, edits=card.edits, metrics=card.metrics) != replace(card, version=planned.card.version):
            name = text.split()[0]
            fix = "edit the model file after the run, and train on from it with --weights"
            raise UserError(f"{name} does not go with the data that the run is about", where=text, fix=fix)
        try:
            rebuild(planned.card, self.build, weights.to_buffers(planned.network))
        except UserError as error:
            fix = "take less away, or train a smaller network from the first"
            raise UserError(f"the file of the model could not be opened then: {error.message}", where=text, fix=fix) from None
        return planned.edit.to_dict(), planned.to_dict()

    def check(
        self, edits: Sequence[Mapping[str, Any]], network: nn.Module, tensors: Mapping[str, tuple[int, ...]] | None, most: int
    ) -> None:
        """Raise UserError for edits from a file that cannot be made on `network`, do not end in the `tensors`, or ask for more than `most`
        numbers."""
        check(network, edits_from(edits), tensors, most)

    def card(self, card: Card, edit: Mapping[str, Any]) -> Card:
        """The card with one edit more."""
        return replace(card, edits=(*card.edits, edit))

    def apply(self, network: nn.Module, edit: Mapping[str, Any]) -> Forward:
        """Change `network` where it stands; gives what becomes of an optimizer's moments."""
        (made,) = edits_from([edit])
        return Forward(made.apply(network))

    def take_back(self, before: nn.Module, state: Mapping[str, Tensor], card: Card) -> Backward:
        """Give the network as it was before the card's last edit what `state` has learned since. Raises UserError where that cannot be."""
        return Backward(take_back(before, state, last_of(card)))

    def effect(self, before: tuple[nn.Module, Card], after: tuple[nn.Module, Card]) -> dict[str, Any]:
        """What differs between two networks, on the processor, as `plan` tells it."""
        return planning.effect(*before, *after).to_dict()

    def copied(self, network: nn.Module) -> nn.Module:
        """A copy to plan on."""
        return copy.deepcopy(network).cpu().eval()
