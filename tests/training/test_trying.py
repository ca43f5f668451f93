"""What fails while a run goes on leaves nothing behind."""

from __future__ import annotations

import weakref

import pytest
import torch

from saccade.core.errors import UserError
from saccade.training.ranks import Ranks
from saccade.training.trying import agreed


def test_what_a_failed_change_had_made_is_let_go() -> None:
    """A second network would else be held beside the run's own until Python looks for cycles."""
    made: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        network = torch.zeros(1000)
        made.append(weakref.ref(network))
        raise MemoryError

    with pytest.raises(UserError, match="there is not enough memory for it") as told:
        agreed(Ranks(), work, where="set")
    assert made[0]() is None and told.value.where == "set"
