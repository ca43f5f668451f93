"""Positions of the stream in an order in which nearly every batch is of samples of one kind, a pure function of (seed, place)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys

WINDOW = 32  # batches
Deals = Sequence[tuple[int, int]]


class Dealing:
    """Which positions are taken at the places of the stream. The positions of WINDOW batches are put together by their kinds, and those
    batches come in an order keyed by the window.

    kinds: int64 [N], that of each sample; deals: from which place on windows are of batches of which size, the first from 0. A deal
    breaks the window off that is in progress there: its positions that were not yet taken are dealt out anew, before all that follow.
    """

    def __init__(self, kinds: NDArray[np.int64], seed: int, deals: Deals) -> None:
        self._kinds, self._seed, self._deals = kinds, seed, deals
        self._left = [np.empty(0, np.int64)]  # by deal: the positions before `begin` + their number that were not taken, in rising order
        for deal in range(len(deals) - 1):
            self._left.append(self._rest(deal, deals[deal + 1][0]))

    def positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions that are taken at these places, int64 [B] both."""
        found = np.empty_like(places)
        deals = np.searchsorted([begin for begin, _ in self._deals], places, "right") - 1
        for deal in np.unique(deals).tolist():
            begin, batch = self._deals[deal]
            windows, inside = np.divmod(places - begin, WINDOW * batch)
            for window in np.unique(windows[deals == deal]).tolist():
                here = (deals == deal) & (windows == window)
                found[here] = self._window(deal, window)[inside[here]]
        return found

    def _window(self, deal: int, window: int) -> NDArray[np.int64]:
        """The positions of a window of batches in the order in which they are taken: what was left before the deal comes first."""
        begin, batch = self._deals[deal]
        left, first, end = self._left[deal], window * WINDOW * batch, (window + 1) * WINDOW * batch
        positions = np.concatenate([left[first:end], np.arange(begin + max(first, len(left)), begin + end)])
        kinds = self._kinds[keys.sample_indices(self._seed, len(self._kinds), positions)]
        batches = positions[np.argsort(kinds, kind="stable")].reshape(WINDOW, batch)
        drawn = keys.generator(self._seed, f"batches {begin}" if begin else "batches", window)
        return batches[drawn.permutation(WINDOW)].ravel()

    def _rest(self, deal: int, place: int) -> NDArray[np.int64]:
        """What a deal that ends at a place has not given: the rest of the window in progress, and what was left to it."""
        begin, batch = self._deals[deal]
        window, taken = divmod(place - begin, WINDOW * batch)
        rest = np.sort(self._window(deal, window)[taken:]) if taken else np.empty(0, np.int64)
        return np.concatenate([rest, self._left[deal][(window + bool(taken)) * WINDOW * batch :]])


def dealt_anew(deals: Deals, place: int, batch: int) -> Deals:
    """The deals with batches of another size from a place on, to which the stream has come."""
    kept = [deal for deal in deals if deal[0] < place]
    return tuple(kept) if kept and kept[-1][1] == batch else (*kept, (place, batch))
