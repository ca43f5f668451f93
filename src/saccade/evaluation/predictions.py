"""`predictions/<split>.jsonl`: written for every evaluation, read from anybody, and scored like a model's own answers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from saccade.core import folders
from saccade.core.errors import UserError, unknown
from saccade.core.files import dumps, parse_json, read_all, to_plain, write_bytes
from saccade.core.finish import SLACK, classifications
from saccade.core.results import Classification
from saccade.evaluation.evaluate import summarise
from saccade.evaluation.result import Evaluation, Row
from saccade.task import Metric

CHUNK = 1024  # images whose probabilities are held at a time
SHAPE = '{"source": "cat/1.png", "label": "cat"} or with "scores": {"cat": 0.9, "dog": 0.1}'


@runtime_checkable
class LabelMetric(Protocol):
    """A Metric that knows its classes and takes answers without scores."""

    classes: tuple[str, ...]

    def update_labels(self, labels: Sequence[int], truths: Sequence[int]) -> None: ...


def write_predictions(folder: Path, evaluation: Evaluation) -> Path:
    """Write `<folder>/<split>.jsonl`, one row (see `Metric.row`) a line; the folder is made. Raises UserError where the disk refuses."""
    return write_bytes(folders.make(folder) / f"{evaluation.split}.jsonl", (f"{dumps(one)}\n".encode() for one in evaluation.predictions))


def read_predictions(path: Path, where: str = "") -> list[Row]:
    """The rows of a JSONL file by anybody: each with `source` (relative POSIX path) and `scores` (class -> probability) or `label`.

    Other keys are kept; empty lines are passed over. Raises UserError naming the line (`where`, else the path, and its number).
    """
    place = where or str(path)
    return [_parsed(line, f"{place}:{number}") for number, line in enumerate(read_all(path).splitlines(), 1) if line.strip()]


def score(
    rows: Sequence[Row],
    truths: Mapping[str, int],
    metric: Metric,
    *,
    split: str,
    seed: int = 0,
    where: str = "predictions",
) -> Evaluation:
    """Measure somebody's predictions against `truths` (source -> class index), in the order of `truths`.

    With `scores` in every row all figures are computed; a class that is not named counts as 0, but the truth must be
    named. With `label` alone: accuracy, F1 and per class. `metric` must be fresh. Raises UserError naming the first
    row at fault and how many there are.
    """
    began = time.perf_counter()
    if not isinstance(metric, LabelMetric):
        raise UserError("predictions must be those of a classifier: other tasks cannot be scored from a file", where=where)
    ordered = _matched(rows, truths, where)
    answers, index = list(truths.values()), {name: i for i, name in enumerate(metric.classes)}
    without = [one["source"] for one in ordered if one.get("scores") is None]
    if not without:
        found = _score_all(ordered, answers, metric, where)
    elif len(without) == len(ordered):
        labels = [_class(one["label"], index, f"{where}: {one['source']}") for one in ordered]
        metric.update_labels(labels, answers)
        found = [_label_row(one["source"], metric.classes[t], one["label"]) for one, t in zip(ordered, answers, strict=True)]
    else:
        raise UserError(f"all rows must have scores or none, got {len(without)} without, the first {without[0]!r}", where=where)
    # Narrowing to LabelMetric hides from mypy that it is still a Metric.
    whole = cast(Metric, metric)
    return summarise(whole, found, task=Classification.task, split=split, seconds=time.perf_counter() - began, seed=seed)


def _score_all(rows: Sequence[Row], truths: Sequence[int], metric: Any, where: str) -> list[Row]:
    made: list[Row] = []
    for start in range(0, len(rows), CHUNK):
        part, answers = rows[start : start + CHUNK], truths[start : start + CHUNK]
        dense, sources = _dense(part, answers, metric.classes, where), [one["source"] for one in part]
        found = classifications(dense, metric.classes, [(0, 0)] * len(part), sources)
        for result, one in zip(found, part, strict=True):
            _agrees(result, one, where)
        metric.update(found, answers)
        made.extend(metric.row(result, truth) for result, truth in zip(found, answers, strict=True))
    return made


def _dense(rows: Sequence[Row], truths: Sequence[int], classes: tuple[str, ...], where: str) -> Any:
    index = {name: i for i, name in enumerate(classes)}
    probabilities = np.zeros((len(rows), len(classes)), np.float32)
    for i, (one, truth) in enumerate(zip(rows, truths, strict=True)):
        place, scores = f"{where}: {one['source']}", one["scores"]
        if classes[truth] not in scores:
            raise UserError(f"scores must name the true class {classes[truth]!r}", where=place, fix="give every class, or only a label")
        probabilities[i, [_class(name, index, place) for name in scores]] = list(scores.values())
        if (total := sum(scores.values())) > 1 + SLACK:
            raise UserError(f"scores must be probabilities and sum to 1, got {total:.4g}", where=place)
    return probabilities


def _agrees(result: Classification, one: Row, where: str) -> None:
    label = one.get("label")
    if label is not None and np.float32(one["scores"].get(label, -1)) != result.scores[0]:
        raise UserError(f"the label must be the class of the best score {result.label!r}, got {label!r}", where=f"{where}: {one['source']}")


def _class(name: str, index: Mapping[str, int], place: str) -> int:
    if name not in index:
        raise unknown("class", name, index, where=place)
    return index[name]


def _label_row(source: str, truth: str, label: str) -> Row:
    return {"source": source, "truth": truth, "label": label, "score": None, "correct": truth == label}


def _matched(rows: Sequence[Row], truths: Mapping[str, int], where: str) -> list[Row]:
    """The rows in the order of `truths`: exactly one for each source."""
    sources = [to_plain(source) for source in truths]  # as `write_predictions` spells a name that is not Unicode
    known, by_source = set(sources), {one["source"]: one for one in rows}
    hint = f"sources are paths relative to the data, such as {sources[0]!r}" if sources else "the data hold no images"
    repeated = [source for source, count in Counter(one["source"] for one in rows).items() if count > 1]
    _refuse("predicted more than once", repeated, where, "keep one row for each image")
    _refuse("unknown to the data", [source for source in by_source if source not in known], where, hint)
    _refuse("missing", [source for source in sources if source not in by_source], where, hint)
    return [by_source[source] for source in sources]


def _refuse(what: str, sources: Sequence[str], where: str, fix: str) -> None:
    if sources:
        count = f"{len(sources)} image{'s' * (len(sources) > 1)}"
        raise UserError(f"predictions must be one for each image: {count} {what}, the first {sources[0]!r}", where=where, fix=fix)


def _parsed(line: bytes, place: str) -> Row:
    raw = parse_json(line, where=place)
    for problem in _problems(raw):
        raise UserError(problem, where=place, fix=f"a row looks like {SHAPE}")
    return cast(Row, raw)


def _problems(raw: Any) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"a line must be an object, got {type(raw).__name__}"
        return
    source, label, scores = raw.get("source"), raw.get("label"), raw.get("scores")
    if not isinstance(source, str) or not source:
        yield f"source must be a path, got {_short(source)}"
    if label is None and scores is None:
        yield "a row must have a label or scores, got neither"
    if label is not None and not isinstance(label, str):
        yield f"label must be the name of a class, got {_short(label)}"
    if scores is not None and not (isinstance(scores, dict) and scores):
        yield f"scores must be an object from class to probability, got {_short(scores)}"
    for name, value in scores.items() if isinstance(scores, dict) else ():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 + SLACK:
            yield f"the score of {name!r} must be a probability from 0 to 1, got {_short(value)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
