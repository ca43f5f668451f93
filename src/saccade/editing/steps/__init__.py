"""What every edit comes down to: few steps on modules, plain values that a model's card carries and that may come from an untrusted file.

Each says where the tensors that it touches come from (`sources`), and changes the network; `check` refuses, before anything is allocated,
what does not fit the network or is larger than it may be.
"""

from __future__ import annotations

from typing import TypeAlias

from saccade.editing.steps.base import MOST_MODULES, Count, Draws, Place, Runs, Sources, part, put
from saccade.editing.steps.image import Input, first_step
from saccade.editing.steps.inserting import Insert
from saccade.editing.steps.layers import Fold, Mix, Resize, foldable, spread
from saccade.editing.steps.replacing import ACTIVATIONS, Replace

Step: TypeAlias = Resize | Insert | Replace | Fold | Mix | Input

__all__ = [
    "ACTIVATIONS",
    "MOST_MODULES",
    "Count",
    "Draws",
    "Fold",
    "Input",
    "Insert",
    "Mix",
    "Place",
    "Replace",
    "Resize",
    "Runs",
    "Sources",
    "Step",
    "first_step",
    "foldable",
    "part",
    "put",
    "spread",
]
