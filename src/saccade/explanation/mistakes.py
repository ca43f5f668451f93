"""The worst mistakes of an evaluation, each with its likely cause in plain words. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]

OFTEN, OFTEN_SHARE = 3, 0.1  # images, and share of the true class, from which two classes count as often confused
CLOSE = 0.15  # difference of two probabilities below which the model was unsure
CONFIDENT = 0.9
SMALL = 0.25  # of the median area


def worst(rows: Sequence[Row], n: int) -> list[dict[str, Any]]:
    """The `n` wrong answers that are furthest off: by the probability of the answer less that of the truth, then by source.

    rows: all of an evaluation's predictions, the right ones too (`saccade.task.Metric.row`): source, truth, label, and where
    known score, scores {class: probability} and size [height, width]. Each mistake is its row with `truth_score` (None
    where unknown) and `cause`.
    """
    wrong = sorted((row for row in rows if row["label"] != row["truth"]), key=lambda row: (-_gap(row), row["source"]))
    images = Counter(row["truth"] for row in rows)
    pairs = Counter((row["truth"], row["label"]) for row in wrong)
    areas = [row["size"][0] * row["size"][1] for row in rows if _sized(row)]
    typical = median(areas) if areas else 0.0
    found = []
    for row in wrong[: max(n, 0)]:
        causes = _causes(row, images[row["truth"]], pairs[row["truth"], row["label"]], typical)
        found.append({**row, "truth_score": _truth(row), "cause": "; ".join(causes)})
    return found


def _causes(row: Row, images: int, times: int, typical: float) -> Iterator[str]:
    """What is known that may explain the mistake, the most telling first; at least one."""
    score, others = row.get("score"), row.get("scores") or {}
    second = max((value for name, value in others.items() if name != row["label"]), default=None)
    confident = score is not None and score >= CONFIDENT
    unsure = score is not None and second is not None and score - second < CLOSE
    often = times >= OFTEN and times >= OFTEN_SHARE * images
    small = _sized(row) and row["size"][0] * row["size"][1] < SMALL * typical
    if confident:
        yield f"confidently wrong ({score:.2f}): check the label"
    if unsure:
        yield f"unsure: {score:.2f} against {second:.2f}"
    if often:
        yield f"the two classes are often confused ({times} of {images})"
    if small:
        yield f"small: {row['size'][1]}x{row['size'][0]} px"
    if not (confident or unsure or often or small):
        truth = _truth(row)
        yield "no plain cause" if truth is None else f"looks more like {row['label']}: {score:.2f} against {truth:.2f} for {row['truth']}"


def _truth(row: Row) -> float | None:
    value = (row.get("scores") or {}).get(row["truth"])
    return None if value is None else float(value)


def _gap(row: Row) -> float:
    score, truth = row.get("score"), _truth(row)
    return -1.0 if score is None or truth is None else float(score) - truth


def _sized(row: Row) -> bool:
    size = row.get("size") or ()
    return len(size) == 2 and min(size) > 0
