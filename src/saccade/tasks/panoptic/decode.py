"""Outputs -> what is exported with the model; `core.finish` does the rest."""

from __future__ import annotations

from torch import Tensor

from saccade.objects import decode as objects


def decode(outputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Of queries, logits `[B, Q, K + 1]` and `[B, Q, h, w]` -> {"classes": probabilities `[B, Q, K + 1]`, "masks": `[B, Q, h, w]`}. Of our
    own, places and prototypes -> what `objects.decode` gives, and of logits `[B, K, h, w]` "pixels": the same. All float32."""
    if len(outputs) == 2:
        classes, masks = outputs
        return {"classes": classes.float().softmax(2), "masks": masks.float()}
    places, prototypes, pixels = outputs
    return objects.decode((places, prototypes)) | {"pixels": pixels.float()}
