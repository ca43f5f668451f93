"""The proof of an export: the same images through the original and through the exported file, and what of it differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import finish
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.core.results import Result
from saccade.data.dataset import Dataset
from saccade.evaluation.comparison import paired
from saccade.evaluation.reference import FEW, Outputs, Reference, Size, grown, run
from saccade.prediction.session import Session
from saccade.task import Metric

ATOL, RTOL = 1e-4, 1e-3  # float32 outputs agree where |exported - reference| <= ATOL + RTOL * |reference|


@dataclass(frozen=True)
class Check:
    """One condition: its name, whether it holds, and in words what was found."""

    name: str
    passed: bool
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "passed": self.passed, "message": self.message}


@dataclass(frozen=True)
class Proof:
    """metrics: {"reference": figures, "exported": figures}; differences: exported - reference with interval, by figure; agreement: share
    of answers that are the same; outputs: one row for each way of running (size, batch, output, images, largest and mean difference)."""

    images: int
    checks: tuple[Check, ...]
    metrics: Mapping[str, Mapping[str, float | None]]
    differences: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    agreement: float | None = None
    outputs: Sequence[Mapping[str, Any]] = ()

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `verdict` is "pass" or "fail"."""
        return {
            "verdict": "pass" if self.passed else "fail",
            "images": self.images,
            "metrics": {name: dict(figures) for name, figures in self.metrics.items()},
            "differences": {name: dict(row) for name, row in self.differences.items()},
            "agreement": self.agreement,
            "outputs": [dict(row) for row in self.outputs],
            "checks": [check.to_dict() for check in self.checks],
        }


@dataclass(frozen=True)
class Case:
    """What is proved: `reference` holds the original's answers for the images of `dataset` at `places`; exact: whether the outputs must
    agree (float32); tolerance: points of the primary metric that may be lost; metric: a fresh one for a card; seed: of the bootstrap."""

    reference: Reference
    dataset: Dataset
    places: NDArray[np.int64]
    exact: bool
    tolerance: float
    metric: Callable[[Card], Metric]
    seed: int = 0

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the original images; (1, 1) of one that is lost, for which there is no answer either."""
        return [self._size(place) for place in self.places.tolist()]

    def _size(self, place: int) -> tuple[int, int]:
        try:
            return self.dataset.size(place)
        except UserError:
            return 1, 1


def refused(case: Case, error: UserError, checks: Sequence[Check] = ()) -> Proof:
    """The proof of a file that its runtime does not run."""
    before, _ = _figures(case, case.reference.card, _expected(case))
    return Proof(len(case.places), (*checks, Check("run", False, str(error))), {"reference": before, "exported": {}})


def prove(session: Session, case: Case, progress: Progress) -> Proof:
    """Run the exported side through its own card's preprocessing, and compare. Nothing that differs raises: it is a check that fails."""
    reference = case.reference
    own = reference.card.input.size
    progress.start("comparing", len(case.places) + FEW * len(reference.outputs), "images")
    checks = [_same_card(reference.card, session.card)]
    try:
        found = run(session, case.dataset, case.places, session.card.input.size, progress)
        rows = [_row(own, session.batch, reference.outputs[own], found)]
        few = case.places[:FEW]
        first = {name: values[:FEW] for name, values in reference.outputs[own].items()}
        rows.append(_row(own, 1, first, run(session, case.dataset, few, session.card.input.size, progress, batch=1)))
        for size, expected in reference.outputs.items():
            if size != own:
                rows.append(_row(size, session.batch, expected, run(session, case.dataset, few, size, progress)))
        answers = _results(session.card, found, case)
    except UserError as error:
        return refused(case, error, checks)
    finally:
        progress.finish()
    flat = [one for row in rows for one in row]
    checks.append(_same_outputs(flat, exact=case.exact))
    return _measured(session.card, case, answers, checks, flat)


def _measured(card: Card, case: Case, answers: list[Result], checks: list[Check], rows: list[dict[str, Any]]) -> Proof:
    expected = _expected(case)
    agreement = float(np.mean([one.agreement(other) for one, other in zip(answers, expected, strict=True)]))
    before, first = _figures(case, case.reference.card, expected)
    after, second = _figures(case, card, answers)
    differences = paired(first, second, len(answers), seed=case.seed) if second is not None and first is not None else {}
    checks.append(_metric_held(case, before, after))
    return Proof(len(answers), tuple(checks), {"reference": before, "exported": after}, differences, agreement, rows)


def _expected(case: Case) -> list[Result]:
    card = case.reference.card
    return _results(card, case.reference.outputs[card.input.size], case)


def _results(card: Card, outputs: Outputs, case: Case) -> list[Result]:
    return finish.results(outputs, card, case.sizes, case.reference.sources, complete=True)


def _figures(case: Case, card: Card, answers: list[Result] | None) -> tuple[dict[str, float | None], Metric | None]:
    """The figures of answers by the names of a card's classes; none where it lacks a class that the images have."""
    place = {name: number for number, name in enumerate(card.classes)}
    if answers is None or not all(name in place for name in case.dataset.schema.classes):
        return {}, None
    dataset = case.dataset.relabelled(card.classes)
    metric: Metric = case.metric(card)
    metric.update(answers, [dataset.target(number, size) for number, size in zip(case.places.tolist(), case.sizes, strict=True)])
    return metric.compute(), metric


def _row(size: Size, batch: int, expected: Outputs, found: Outputs) -> list[dict[str, Any]]:
    """How far the outputs of one way of running lie from the reference's; excess: the largest difference less what float32 may differ."""
    rows = []
    found = _in_order(expected, found)
    for name, wanted in expected.items():
        got = found.get(name)
        if got is not None and got.ndim == wanted.ndim == 4:  # maps are as large as the largest image that was asked for
            got, wanted = grown(got, wanted.shape), grown(wanted, got.shape)
        row = {"size": list(size), "batch": batch, "output": name, "images": 0, "largest": None, "mean": None, "excess": None}
        if got is not None and got.shape == wanted.shape and np.isfinite(got).all() and np.isfinite(wanted).all():
            apart = np.abs(got.astype(np.float64) - wanted)
            excess = float((apart - ATOL - RTOL * np.abs(wanted)).max())
            row |= {"images": len(got), "largest": float(apart.max()), "mean": float(apart.mean()), "excess": excess}
        rows.append(row)
    return rows


def _in_order(expected: Outputs, found: Outputs) -> Outputs:
    """Boxes that are equally sure but for the last bits may stand in another order, and the last ones for others that are as sure: each
    expected box beside the one that is most like it; one as sure as the last counts as found."""
    if "boxes" not in expected or any(name not in found or found[name].shape != value.shape for name, value in expected.items()):
        return found
    from scipy.optimize import linear_sum_assignment  # here: its import would cost every mistyped command half a second

    arranged = {name: value.copy() for name, value in found.items()}
    for row in range(len(expected["scores"])):
        order = np.arange(expected["scores"].shape[1])
        boxes, scores, labels = ((expected[name][row], found[name][row]) for name in ("boxes", "scores", "labels"))
        same = np.isclose(*boxes, RTOL, ATOL).all(1) & np.isclose(*scores, RTOL, ATOL) & (labels[0] == labels[1])
        rest = np.flatnonzero(~same)  # nearly all stand where they should: a search among them all would take a tenth of a second an image
        apart = np.abs(boxes[0][rest, None] - boxes[1][rest]).max(2)
        apart += 1e3 * np.abs(scores[0][rest, None] - scores[1][rest])
        apart += 1e6 * (labels[0][rest, None] != labels[1][rest])
        order[rest] = rest[linear_sum_assignment(np.nan_to_num(apart, nan=1e9))[1]]
        least = expected["scores"][row].min() + ATOL
        last = (expected["scores"][row] <= least) & (found["scores"][row][order] <= least)
        for name, value in ((name, arranged[name]) for name in ("scores", *finish.BY_RANK) if name in arranged):
            value[row] = found[name][row][order]
            value[row][last] = expected[name][row][last]
    return arranged


def _same_card(reference: Card, exported: Card) -> Check:
    """Task, classes and preprocessing are what the original's card says."""
    for name in ("task", "classes", "input"):
        before, after = getattr(reference, name), getattr(exported, name)
        if before != after:
            return Check("card", False, f"the file's card has other {name}: {_short(after)} in place of {_short(before)}")
    return Check("card", True, "task, classes and preprocessing are the original's")


def _same_outputs(rows: Sequence[Mapping[str, Any]], *, exact: bool) -> Check:
    missing = [row for row in rows if row["largest"] is None]
    if missing:
        return Check("outputs", False, f"{missing[0]['output']} is missing, not finite, or of another shape than the original's")
    worst = max(rows, key=lambda row: row["excess"] if exact else row["largest"])
    (height, width), batch = worst["size"], worst["batch"]
    text = f"differ by at most {worst['largest']:.2g} ({worst['output']} at {height}x{width}, batch {batch})"
    if not exact:
        return Check("outputs", True, text)
    return Check("outputs", worst["excess"] <= 0, f"{text}; float32 may differ by {ATOL:g} + {RTOL:g} of the value")


def _metric_held(case: Case, before: Mapping[str, float | None], after: Mapping[str, float | None]) -> Check:
    metric: Metric = case.metric(case.reference.card)
    name = metric.primary
    start, end = before.get(name), after.get(name)
    if start is None or end is None:
        same = name in before and name in after
        why = "the images hold nothing to be found" if same else "the file's classes are not those of the images"
        return Check("metric", False, f"{name} cannot be computed: {why}")
    lost = 100 * ((start - end) if metric.higher_is_better else (end - start))
    text = f"{name} {start:.4f} -> {end:.4f}, {abs(lost):.2f} points {'lost' if lost > 0 else 'gained' if lost < 0 else 'apart'}"
    return Check("metric", lost <= case.tolerance + 1e-9, f"{text}; at most {case.tolerance:g} may be lost")


def _short(value: Any) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 120 else f"{text[:117]}..."
