"""Outputs -> the best places: the half of decoding that is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saccade.core.geometry import CONIC

KEPT = 1000  # as detectors of libraries keep before suppression: a crowded image has hundreds of objects, each found at several places

NOTHING = -30.0  # logit of a class that was not found, of networks that tell of no more than they have found


class Gridded(NamedTuple):
    """Outputs of a network that gives each place's mask as a grid over its box: places `[B, P, 4 + K]` and grids `[B, P, S, S]`, how
    probably each of the cells is covered."""

    places: Tensor
    grids: Tensor


def decode(outputs: Tensor | tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """`[B, P, 4 + K]` -> {"boxes": `[B, KEPT, 4]`, "scores": `[B, KEPT]`, "labels": `[B, KEPT]`}, float32, surest first; a place may be
    kept for several classes; scores of 0 fill up where there are fewer places. Of outputs with masks, `[B, P, 4 + K + C]` and prototypes
    `[B, C - CONIC, h, w]`, also "weights" `[B, KEPT, C]` and "prototypes" as they are; of Gridded ones "grids" `[B, KEPT, S, S]`."""
    places, maps = outputs if isinstance(outputs, tuple) else (outputs, None)
    grids, prototypes = (maps, None) if isinstance(outputs, Gridded) else (None, maps)
    masks = CONIC + prototypes.shape[1] if prototypes is not None else 0
    boxes, scores, weights = places.float().split([4, places.shape[2] - 4 - masks, masks], 2)
    classes = scores.shape[2]
    flat = torch.nn.functional.pad(scores.sigmoid().flatten(1), (0, KEPT))  # never fewer than KEPT, whatever the input's size
    best, place = flat.topk(KEPT, dim=1)
    row = (place // classes).clamp(max=boxes.shape[1] - 1)[..., None]
    found = {"boxes": boxes.gather(1, row.expand(-1, -1, 4)), "scores": best, "labels": (place % classes).float()}
    if grids is not None:
        return found | {"grids": grids.float().gather(1, row[..., None].expand(-1, -1, *grids.shape[2:]))}
    if prototypes is None:
        return found
    return found | {"weights": weights.gather(1, row.expand(-1, -1, masks)), "prototypes": prototypes.float()}
