"""What every edit comes down to: few steps on modules, plain values that a model's card carries and that may come from an untrusted file.

Each says where the tensors that it touches come from (`sources`), and changes the network; `check` refuses, before anything is allocated,
what does not fit the network or is larger than it may be. shrinks: whether the network may have held more numbers before it.
"""

from __future__ import annotations

from typing import TypeAlias

from saccade.editing.steps.base import MOST_MODULES, Count, Draws, Place, Runs, Sources, part, put
from saccade.editing.steps.freezing import Freeze
from saccade.editing.steps.image import Input, first_step
from saccade.editing.steps.inserting import DROPS, MOST_GRID, OF_MAPS, Insert, Leave, Remove
from saccade.editing.steps.layers import Fold, Mix, Resize, foldable, spread
from saccade.editing.steps.low_rank import Adapt, Factor, Merge, sides, thinned
from saccade.editing.steps.replacing import ACTIVATIONS, Group, Replace, Unbiased, groupable, layered
from saccade.editing.steps.running import Drop, Grow, Size, droppable, drops, sized

Step: TypeAlias = (
    Resize
    | Insert
    | Leave
    | Remove
    | Replace
    | Group
    | Unbiased
    | Fold
    | Mix
    | Input
    | Adapt
    | Merge
    | Factor
    | Drop
    | Size
    | Grow
    | Freeze
)

__all__ = [
    "ACTIVATIONS",
    "DROPS",
    "MOST_GRID",
    "MOST_MODULES",
    "OF_MAPS",
    "Adapt",
    "Count",
    "Draws",
    "Drop",
    "Factor",
    "Fold",
    "Freeze",
    "Group",
    "Grow",
    "Input",
    "Insert",
    "Leave",
    "Merge",
    "Mix",
    "Place",
    "Remove",
    "Replace",
    "Resize",
    "Runs",
    "Size",
    "Sources",
    "Step",
    "Unbiased",
    "droppable",
    "drops",
    "first_step",
    "foldable",
    "groupable",
    "layered",
    "part",
    "put",
    "sides",
    "sized",
    "spread",
    "thinned",
]
