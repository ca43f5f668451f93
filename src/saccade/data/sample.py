"""One labelled image, and what a whole set of them looks like. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sample:
    """image: uint8 `[H, W, C]`; target: what the task learns (classification: the class index); index: place in the data set."""

    image: NDArray[np.uint8]
    target: Any
    index: int
    source: str


@dataclass(frozen=True)
class Schema:
    """What can be known of a data set before training; the recipe reads nothing else.

    counts: images of each split by class, `{split: [n_class_0, ...]}`; size: the median (height, width) of the images
    looked at, uniform: whether all those had the same size; channels: 1 where all are grey, else 3.
    """

    task: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    channels: int
    size: tuple[int, int]
    uniform: bool

    @property
    def images(self) -> Mapping[str, int]:
        """Images by split."""
        return {split: sum(counts) for split, counts in self.counts.items()}
