"""Evaluation by all processes of a run: each answers for its part of a batch, and all get all answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.prediction.session import Session
from saccade.training.ranks import Ranks


class SharedSession:
    """A Session over those of all ranks, which must ask it for the same batches in the same order."""

    def __init__(self, session: Session, ranks: Ranks) -> None:
        self._session, self._ranks = session, ranks
        self.card, self.streams, self.batch = session.card, session.streams, session.batch * ranks.world

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Images uint8 `[B, C, H, W]` -> the outputs of all of them, in order."""
        count = len(images)
        share = -(-count // self._ranks.world)
        # The last ranks may have too few: they answer for the last image again, and those answers are cut off.
        mine = np.minimum(np.arange(share) + self._ranks.rank * share, count - 1)
        found = self._session.run(images[mine] if self._ranks.world > 1 else images)
        return {name: self._ranks.gathered(value)[:count] for name, value in found.items()}
