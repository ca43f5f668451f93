"""Law 1: keyed randomness and the order of samples.

Every random draw is a pure function of (seed, purpose, position). Philox is a counter-based generator
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so a stream costs nothing to enter anywhere.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


@lru_cache(maxsize=256)
def _word(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def generator(seed: int, purpose: str, position: int) -> np.random.Generator:
    """A generator keyed by nothing but (seed, purpose, position); position is the place in the stream of samples.

    The position is the third word of Philox's 256-bit counter: streams are 2**128 draws apart.
    """
    key = np.array([seed & _MASK, _word(purpose)], np.uint64)
    counter = np.array([0, 0, position & _MASK, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Keyed:
    """What `generator` gives, for many positions in turn at a fraction of its cost: `at` sets one and the same generator to another place.

    So what it returned before is no longer where it was; draw first, then go on. Not for several threads at once.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._generator = generator(seed, purpose, 0)
        self._bits = self._generator.bit_generator
        self._state: Any = self._bits.state

    def at(self, position: int) -> np.random.Generator:
        """The generator keyed by (seed, purpose, position), before its first draw."""
        self._state["state"]["counter"][2] = position & _MASK
        self._bits.state = self._state
        return self._generator


def derive(seed: int, purpose: str, position: int) -> int:
    """A 63-bit seed for a library's own generator (torch), keyed the same way."""
    return int(generator(seed, purpose, position).integers(0, 1 << 63))


@lru_cache(maxsize=4)
def permutation(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` samples in pass `epoch`: int64 [count], read-only."""
    order = generator(seed, "order", epoch).permutation(count)
    order.flags.writeable = False
    return order


def sample_indices(seed: int, count: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `count` samples stands at each position of the endless stream: perm(seed, p // N)[p % N]."""
    indices = np.empty(len(positions), np.int64)
    epochs = positions // count
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = permutation(seed, count, int(epoch))[positions[here] % count]
    return indices


def path_hash(path: str) -> float:
    """A number in [0, 1) that depends on the relative POSIX path alone: splits by it are the same for every seed."""
    return int.from_bytes(hashlib.sha256(path.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64
