"""Figures of a network that images leave early (`early-exit`): how many at each exit, how right they are there, and what it saves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saccade.core.geometry import whole
from saccade.evaluation.result import Evaluation

if TYPE_CHECKING:
    from saccade.api.models import Predictor


def measured(model: Predictor, evaluation: Evaluation) -> Evaluation:
    """The evaluation with `mean_flops`, the operations for an image on average (a multiplication with its sum counted as two), and
    details["exits"]: a row for each exit in the order of the network and one for its last layer. Of another model as it is."""
    from saccade.api.models import Model

    left = [row["exit"] for row in evaluation.predictions if "exit" in row]
    if not left or len(left) != len(evaluation.predictions) or not isinstance(model, Model):
        return evaluation
    import torch

    from saccade.nn.features import evaluating
    from saccade.nn.layers.exits import costs

    spec = model.card.input
    blank = torch.zeros(1, spec.channels, *whole(spec.size, spec.resize), dtype=torch.uint8, device=model.device)
    with evaluating(model.module):
        names, flops = costs(model.module, blank)
    rows, mean = list[dict[str, Any]](), 0.0
    for number, (name, operations) in enumerate(zip([*names, "the last layer"], flops, strict=True), 1):
        hits = [row["correct"] for row in evaluation.predictions if row["exit"] == number]
        accuracy = sum(hits) / len(hits) if hits else None
        shown, share = name.removeprefix("network."), len(hits) / len(left)
        rows.append({"exit": shown, "images": len(hits), "share": share, "accuracy": accuracy, "flops": operations})
        mean += share * operations
    return replace(evaluation, metrics={**evaluation.metrics, "mean_flops": mean}, details={**evaluation.details, "exits": rows})
