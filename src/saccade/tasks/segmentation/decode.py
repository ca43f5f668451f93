"""Outputs -> what is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from torch import Tensor


def decode(outputs: Tensor) -> dict[str, Tensor]:
    """`[B, K, H, W]` -> {"logits": the same}, float32, one at each pixel of the input."""
    return {"logits": outputs.float()}
