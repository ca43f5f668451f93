"""Cross-entropy with label smoothing (Szegedy et al. 2016) over mixed pairs, as a sum over the images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from saccade.data.loader import Batch
from saccade.task import Losses


def cross_entropy(logits: Tensor, batch: Batch, smoothing: float) -> Losses:
    """logits `[B, K]` -> the sum of share * CE(label) + (1 - share) * CE(other)."""
    label, other, share = batch.targets["label"], batch.targets["other"], batch.targets["share"]
    logits = logits.float()
    own = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, other, reduction="none", label_smoothing=smoothing)
    return Losses((share * own + (1 - share) * theirs).sum(), float(len(logits)))


def with_exits(last: Losses, early: Sequence[tuple[float, Losses]]) -> Losses:
    """The loss of the last layer and, each times its weight, those of the exits before it (Teerapittayanon et al. 2016, "BranchyNet"); all
    of them are told apart in the log."""
    total = last.total
    for weight, one in early:
        total = total + weight * one.total
    parts = {f"exit_{number}": one.total for number, (_, one) in enumerate(early, 1)}
    return Losses(total, last.weight, {"last": last.total, **parts})
