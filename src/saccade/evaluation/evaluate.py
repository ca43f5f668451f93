"""Runs a session over the labelled images of a split and measures the answers. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.results import Result
from saccade.evaluation.intervals import bootstrap
from saccade.evaluation.result import Evaluation
from saccade.prediction import tiling
from saccade.prediction.session import Session
from saccade.task import Metric

if TYPE_CHECKING:
    from saccade.core.progress import Progress

# Prepared images uint8 [B, C, H, W]; truth of each; relative POSIX path of each; original (height, width) of each.
LabelledBatch = tuple[NDArray[np.uint8], Sequence[Any], Sequence[str], Sequence[tuple[int, int]]]
Row = dict[str, Any]


def evaluate(
    session: Session,
    batches: Iterable[LabelledBatch],
    metric: Metric,
    *,
    progress: Progress,
    split: str,
    seed: int = 0,
    total: int | None = None,  # a seventh argument: time left cannot be shown without it
) -> Evaluation:
    """Measure `session` on `batches`, which are read once. `metric` must be fresh; `total`: images to come, for the progress.

    `seconds` of the result covers reading, running and scoring, not the bootstrap (keyed by `seed`).
    Raises UserError where the model's outputs are not those of its card.
    """
    began = time.perf_counter()
    answers = measure(session, batches, metric, progress=progress, name=f"evaluate {split}", total=total)
    rows = [metric.row(result, truth) for result, truth in answers]
    return summarise(metric, rows, task=session.card.task, split=split, seconds=time.perf_counter() - began, seed=seed)


def measure(
    session: Session,
    batches: Iterable[LabelledBatch],
    metric: Metric,
    *,
    progress: Progress,
    name: str = "evaluate",
    total: int | None = None,
) -> list[tuple[Result, Any]]:
    """Feed `metric` and give the answers with their truths, in the order in which it has them."""
    answers: list[tuple[Result, Any]] = []
    shapes = set()
    progress.start(name, total, "images")
    try:
        for images, truths, sources, sizes in batches:
            if not len(truths):
                continue
            shapes.add(images.shape[1:])
            answers += zip(tiling.results(session, images, sizes, sources, complete=True), truths, strict=True)
            progress.advance(len(truths))
    finally:
        progress.finish()
    if len(shapes) > 1:  # images of one shape came together: a resample must mean the same images whatever the batch
        answers.sort(key=lambda answer: answer[0].source)
    if answers:
        metric.update([result for result, _ in answers], [truth for _, truth in answers])
    return answers


def summarise(metric: Metric, rows: Sequence[Row], *, task: str, split: str, seconds: float, seed: int = 0) -> Evaluation:
    """The Evaluation of what `metric` has taken up."""
    return Evaluation(
        task=task,
        split=split,
        images=len(rows),
        seconds=seconds,
        metrics=metric.compute(),
        intervals=bootstrap(metric, len(rows), seed=seed),
        per_class=metric.per_class(),
        details=metric.details(),
        predictions=list(rows),
    )
