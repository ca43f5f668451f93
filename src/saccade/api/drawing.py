"""Answers drawn over their images, for a report: where a detector went wrong, and where it did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.api import gallery
from saccade.core import finish, images, results, run_lengths
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.results import Detections
from saccade.data.opening import open_dataset
from saccade.data.sample import Objects
from saccade.evaluation.result import Evaluation
from saccade.tasks import answering

if TYPE_CHECKING:
    from saccade.api.models import Model

WORST, GOOD = 8, 4
SIDE = 960  # pixels of a picture's longer side, at most
CURVES = 10  # classes whose precision is drawn
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito
KINDS = {
    "localization": "misplaced",
    "classification": "of another class",
    "both": "misplaced and of another class",
    "duplicate": "found twice",
    "background": "where nothing is",
    "missed": "missed",
}


def worst(rows: Sequence[Mapping[str, Any]], card: Card, n: int) -> list[dict[str, Any]]:
    """source, objects, missed and false of the `n` images with most errors, worst first, from the rows of an evaluation."""
    answers = _ordered(rows, card)
    found = [
        {"source": one.source, "objects": len(truth.labels), "missed": missed, "false": false} for one, truth, missed, false in answers
    ]
    return [row for row in found[:n] if row["missed"] or row["false"]]


def _ordered(rows: Sequence[Mapping[str, Any]], card: Card) -> list[tuple[Detections, Objects, int, int]]:
    """What was told of each image, what is in it, how many objects were missed and how many are none: most errors first, then by name."""
    threshold = card.metrics.get("threshold") or finish.THRESHOLD
    answers = [_answer(row, card, threshold) for row in rows]
    return sorted(((found, truth, *_errors(found, truth)) for found, truth in answers), key=lambda one: (-(one[2] + one[3]), one[0].source))


def drawn(model: Model, evaluation: Evaluation, data: str) -> Iterator[Mapping[str, Any]]:
    """{"title", "text", "picture"}: the errors by kind, single objects that were found, invented and missed, then the images with most
    errors and some with the fewest, but for those that cannot be read."""
    answers = _ordered(evaluation.predictions, model.card)
    errors = evaluation.details.get("errors", {})
    said = ", ".join(f"{errors[kind]} {words}" for kind, words in KINDS.items() if errors.get(kind))
    yield {
        "title": "What went wrong",
        "text": f"Of what was told, and of what was there: {said or 'nothing'}.",
        "picture": _plots(evaluation),
    }
    shown = dict.fromkeys([*range(min(WORST, len(answers))), *range(max(0, len(answers) - GOOD), len(answers))])
    tree, task = open_dataset(data, task=model.card.task).tree, answering(model.card.task, "the report")
    yield from gallery.sheets([(found, truth) for found, truth, _, _ in answers], tree, model.card.input.channels)
    for place in shown:
        found, truth, missed, false = answers[place]
        try:
            pixels = images.shown(tree.image(found.source), channels=model.card.input.channels).pixels
        except UserError:
            continue
        text = f"{len(truth.labels)} objects (white), {missed} missed, {false} found that are none or of another class"
        picture = task.draw(pixels, found, truth)
        picture.thumbnail((SIDE, SIDE))
        yield {"title": Path(found.source).name, "text": text, "picture": np.asarray(picture)}


def _plots(evaluation: Evaluation) -> NDArray[np.uint8]:
    """Errors by kind beside precision at each recall, of the first classes: uint8 `[H, W, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    errors = evaluation.details.get("errors", {})
    shown = bars.barh(list(KINDS.values()), [errors.get(kind, 0) for kind in KINDS], color="#0072b2")
    bars.bar_label(shown, padding=3)
    bars.invert_yaxis()
    bars.set_title("Errors by kind")
    named = zip(evaluation.details.get("classes", ()), evaluation.details.get("curves", ()), strict=True)
    for place, (name, curve) in enumerate(list(named)[:CURVES]):
        style = {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", "--")[place // len(COLOURS)]}
        curves.plot(np.linspace(0, 1, len(curve)), curve, label=name, **style)
    curves.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="At an overlap of 0.5")
    for text in curves.legend(loc="lower left", fontsize=8).get_texts():
        text.set_parse_math(False)  # a class may be called "$x"
    for axes in (bars, curves):
        axes.spines[["top", "right"]].set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def _answer(row: Mapping[str, Any], card: Card, threshold: float) -> tuple[Detections, Objects]:
    """What was told of an image, and what is in it, from a row of an evaluation; raises DamagedError where it is none."""
    try:
        truth = row["truth"]
        boxes = np.array(truth["boxes"], np.float64).reshape(-1, 4)
        labels = np.array([card.classes.index(name) for name in truth["labels"]], np.int64)
        height, width = map(int, row["size"])
        masks = tuple(run_lengths.checked(str(text).encode(), (height, width)) for text in truth.get("masks", ()))
        ignored = np.array(truth["ignored"], bool)
        if not len(boxes) == len(labels) == len(ignored) or (card.task == "instances" and len(masks) != len(boxes)):
            raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels, {len(ignored)} ignored, {len(masks)} masks")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"a row of the predictions has no truth: {error}", where=str(row.get("source", ""))) from None
    found = results.OBJECTS[card.task].from_dict(row, card.classes, card.ids).above(threshold)
    return found, Objects(boxes, labels, ignored, np.zeros_like(ignored), masks)


def _errors(found: Detections, truth: Objects) -> tuple[int, int]:
    """How many objects were missed, and how many detections are of none."""
    _, false, missed = gallery.matched(found, truth)
    return len(missed), len(false)
