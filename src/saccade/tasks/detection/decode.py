"""Outputs -> the best boxes: the half of decoding that is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 300


def decode(outputs: Tensor) -> dict[str, Tensor]:
    """`[B, P, 4 + K]` -> {"boxes": `[B, KEPT, 4]`, "scores": `[B, KEPT]`, "labels": `[B, KEPT]`}, float32, surest first; a place may be
    kept for several classes; scores of 0 fill up where there are fewer places."""
    boxes, scores = outputs[..., :4].float(), outputs[..., 4:].float().sigmoid()
    classes = scores.shape[2]
    flat = torch.nn.functional.pad(scores.flatten(1), (0, KEPT))  # never fewer than KEPT, whatever the input's size
    best, place = flat.topk(KEPT, dim=1)
    row = (place // classes).clamp(max=boxes.shape[1] - 1)
    return {"boxes": boxes.gather(1, row[..., None].expand(-1, -1, 4)), "scores": best, "labels": (place % classes).float()}
