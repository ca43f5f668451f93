"""Outputs -> what is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from torch import Tensor


def decode(outputs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Logits `[B, Q, K + 1]` and `[B, Q, h, w]` -> {"classes": probabilities `[B, Q, K + 1]`, "masks": `[B, Q, h, w]`}, float32."""
    classes, masks = outputs
    return {"classes": classes.float().softmax(2), "masks": masks.float()}
