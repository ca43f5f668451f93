"""Classes of pixels drawn over their images, for a report: where a network that segments went wrong, and where it did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.api.sets import relabelled
from saccade.core import images, layers
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.data.opening import open_dataset
from saccade.evaluation.result import Evaluation
from saccade.tasks import answering

if TYPE_CHECKING:
    from saccade.api.models import Model

WORST, GOOD = 8, 4
SIDE = 960  # pixels of a picture's longer side, at most
GOOD_ENOUGH = 0.995  # share of pixels from which an image is no mistake


def worst(rows: Sequence[Mapping[str, Any]], card: Card, n: int) -> list[dict[str, Any]]:
    """source, miou and pixel_accuracy of the `n` images with the lowest mean overlap, worst first, from the rows of an evaluation."""
    kept = ("source", "miou", "pixel_accuracy")
    found = [{name: row.get(name) for name in kept} for row in _ordered(rows)]
    return [row for row in found[:n] if row["pixel_accuracy"] is not None and row["pixel_accuracy"] < GOOD_ENOUGH]


def _ordered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lowest mean overlap first, then by name; those of which nothing counts last."""
    return sorted(rows, key=lambda row: (row.get("miou") is None, row.get("miou") or 0.0, row["source"]))


def drawn(model: Model, evaluation: Evaluation, data: str) -> Iterator[Mapping[str, Any]]:
    """{"title", "text", "picture"}: the images with the lowest mean overlap and some with the highest, but for those that cannot be
    read."""
    rows = _ordered(evaluation.predictions)
    shown = dict.fromkeys([*range(min(WORST, len(rows))), *range(max(0, len(rows) - GOOD), len(rows))])
    task, card = answering(model.card.task, "the report"), model.card
    dataset = relabelled(open_dataset(data, task=card.task), card.classes)
    place_of = {path: place for place, path in enumerate(dataset.paths)}
    for place in shown:
        row = rows[place]
        try:
            pixels = images.read(dataset.tree.image(row["source"]), channels=card.input.channels).pixels
            truth = dataset.target(place_of[row["source"]], (pixels.shape[0], pixels.shape[1]))
            answer = layers.kind(multi=layers.layered(card)).from_dict(row, card.classes)
        except (UserError, KeyError):
            continue
        if answer.size != pixels.shape[:2]:
            continue  # it has changed since
        said = "nothing counts in it" if row["miou"] is None else f"mean overlap {row['miou']:.3f}"
        accuracy = "" if row["pixel_accuracy"] is None else f", {100 * row['pixel_accuracy']:.1f} % of the pixels right"
        picture = task.draw(pixels, answer, truth)
        picture.thumbnail((SIDE, SIDE))
        yield {"title": Path(row["source"]).name, "text": f"{said}{accuracy}; true edges are white", "picture": np.asarray(picture)}
