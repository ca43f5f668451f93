"""Logits -> probabilities: the half of decoding that is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from saccade.task import Outputs


def decode(outputs: Outputs) -> dict[str, Tensor]:
    """Logits `[B, K]` -> {"probabilities": float32 `[B, K]`}.

    Of a network with exits (`nn/layers/exits.py`): beside the logits the exit of each, `[B]`, which becomes "exit", or the logits of all
    exits, `[B, E, K]`, which become "early": probabilities `[B, E, K]`.
    """
    logits, more = outputs if isinstance(outputs, tuple) else (outputs, None)
    found = {"probabilities": logits.float().softmax(1)}
    if more is not None:
        found |= {"exit": more} if more.ndim == 1 else {"early": more.float().softmax(2)}
    return found
