"""Logits -> probabilities: the half of decoding that is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from torch import Tensor


def decode(logits: Tensor) -> dict[str, Tensor]:
    """`[B, K]` -> {"probabilities": float32 `[B, K]`}."""
    return {"probabilities": logits.float().softmax(1)}
