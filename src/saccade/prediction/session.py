"""A session: something that answers for a model, whatever runtime is behind it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card


class Session(Protocol):
    """`run` takes prepared pixels, uint8 `[B, C, H, W]`, and gives the room's decoded outputs as named arrays.

    For a classifier: {"probabilities": float32 [B, K]}. `core.finish` makes results of them.
    """

    card: Card

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]: ...
