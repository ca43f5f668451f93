"""Classes of pixels, or segments, drawn over their images, for a report: where a network that segments went wrong, and where not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.api.sets import relabelled
from saccade.core import images, layers
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.panoptic import Panoptic
from saccade.data.opening import open_dataset
from saccade.evaluation.result import Evaluation
from saccade.tasks import answering

if TYPE_CHECKING:
    from saccade.api.models import Model

WORST, GOOD = 8, 4
SIDE = 960  # pixels of a picture's longer side, at most
GOOD_ENOUGH = 0.995  # share of pixels, or quality, from which an image is no mistake
# By task what a row of an evaluation tells of its image: by the first of them images are ordered, by the last they are no mistakes.
FIGURES = {"segment": ("miou", "pixel_accuracy"), "panoptic": ("pq",)}
WORDS = {"miou": "mean overlap", "pq": "panoptic quality"}


def worst(rows: Sequence[Mapping[str, Any]], card: Card, n: int) -> list[dict[str, Any]]:
    """source and the FIGURES of the `n` images with the lowest of the first, worst first, from the rows of an evaluation."""
    figures = FIGURES[card.task]
    found: list[dict[str, Any]] = [{name: row.get(name) for name in ("source", *figures)} for row in _ordered(rows, card)]
    return [row for row in found[:n] if row[figures[-1]] is not None and row[figures[-1]] < GOOD_ENOUGH]


def _ordered(rows: Sequence[Mapping[str, Any]], card: Card) -> list[Mapping[str, Any]]:
    """Lowest figure first, then by name; those of which nothing counts last."""
    figure = FIGURES[card.task][0]
    return sorted(rows, key=lambda row: (row.get(figure) is None, row.get(figure) or 0.0, row["source"]))


def drawn(model: Model, evaluation: Evaluation, data: str) -> Iterator[Mapping[str, Any]]:
    """{"title", "text", "picture"}: the images with the lowest figure and some with the highest, but for those that cannot be read."""
    task, card = answering(model.card.task, "the report"), model.card
    rows, figure = _ordered(evaluation.predictions, card), FIGURES[card.task][0]
    kind = Panoptic if card.task == "panoptic" else layers.kind(multi=layers.layered(card))
    shown = dict.fromkeys([*range(min(WORST, len(rows))), *range(max(0, len(rows) - GOOD), len(rows))])
    dataset = relabelled(open_dataset(data, task=card.task), card.classes)
    place_of = {path: place for place, path in enumerate(dataset.paths)}
    for place in shown:
        row = rows[place]
        try:
            pixels = images.shown(dataset.tree.image(row["source"]), channels=card.input.channels).pixels
            truth = dataset.target(place_of[row["source"]], (pixels.shape[0], pixels.shape[1]))
            answer = kind.from_dict(row, card.classes)
        except (UserError, KeyError):
            continue
        if answer.size != pixels.shape[:2]:
            continue  # it has changed since
        said = "nothing counts in it" if row[figure] is None else f"{WORDS[figure]} {row[figure]:.3f}"
        accuracy = "" if row.get("pixel_accuracy") is None else f", {100 * row['pixel_accuracy']:.1f} % of the pixels right"
        picture = task.draw(pixels, answer, truth)
        picture.thumbnail((SIDE, SIDE))
        yield {"title": Path(row["source"]).name, "text": f"{said}{accuracy}; true edges are white", "picture": np.asarray(picture)}
