"""A session: something that answers for a model, whatever runtime is behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card

INPUT = "images"  # the name of an exported graph's only input, uint8 [B, C, H, W]
BATCH = 8  # images a call on a processor: larger ones only leave its caches (ResNet-18 at 224 px: 131 images/s by 8, 90 by 32)


class Session(Protocol):
    """`run` takes prepared pixels, uint8 `[B, C, H, W]`, and gives the room's decoded outputs as named arrays.

    For a classifier: {"probabilities": float32 [B, K]}. `core.finish` makes results of them. Any thread may call it; `streams`: how
    many calls at once it is made for (each then has its share of the cores); `batch`: images a call that suit it.
    """

    card: Card
    streams: int
    batch: int

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]: ...


class ExportedFile(Protocol):
    """A file that `saccade export` wrote, checked when it was opened: its card, and sessions on its runtime.

    target: "onnx" ...; precision: "fp32" or "fp16", of its weights; runtime: name and version of what runs it.
    """

    path: Path
    card: Card
    target: str
    precision: str
    runtime: str

    def session(self, streams: int = 1) -> Session:
        """A session for `streams` calls at once: 1 answers soonest, one for each core answers most."""
        ...


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
