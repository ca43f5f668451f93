"""Test-time augmentation for networks that segment: each image as it is and mirrored, the probabilities of both averaged. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.layers import layered
from saccade.core.pixel_classes import numbers
from saccade.prediction.session import Session

VIEWS = ((), (3,), (2,), (2, 3))  # axes that are mirrored
Floats = NDArray[np.float32]


def check(card: Card) -> None:
    """Raise UserError for a model that is not asked about pixels."""
    if card.task != "segment":
        raise UserError(f"mirrored views are averaged for pixels, this model is for {card.task}", where="--tta", fix="leave it out")


class Flipped:
    """A session that asks another four times: as it is, mirrored across, down, and both.

    What it gives as logits are those of the averaged probabilities, so that classes, and how unsure they are (the entropy of the mean),
    follow as always.
    """

    def __init__(self, session: Session) -> None:
        check(session.card)
        self.card, self.streams, self.batch = session.card, session.streams, session.batch
        self._session = session

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Prepared pixels uint8 `[B, C, H, W]` -> {"logits": float32 `[B, K, H, W]`}."""
        several = layered(self.card)
        yes = no = None
        for axes in VIEWS:
            outputs = self._session.run(np.ascontiguousarray(np.flip(images, axes)))
            logits = np.flip(numbers(outputs.get("logits"), "logits"), axes)
            if several:
                yes, no = _more(yes, -np.logaddexp(0, -logits)), _more(no, -np.logaddexp(0, logits))
            else:
                shifted = logits - logits.max(1, keepdims=True)
                yes = _more(yes, shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
        total = np.zeros(0, np.float32) if yes is None else yes if no is None else yes - no
        return {"logits": total - np.float32(0 if several else np.log(len(VIEWS)))}


def _more(total: Floats | None, found: Floats) -> Floats:
    """The logarithm of a sum of probabilities, given as logarithms."""
    return found if total is None else np.logaddexp(total, found, out=total)
