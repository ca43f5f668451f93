"""What the page shows as tables and bars: headline cards, classes, confusion, the data's counts; plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.report.pictures import Thumb, confusion_picture
from saccade.report.words import NARROW, count, figure, interval, measure, number, percent, visible

MOST_CLASSES = 25  # a larger confusion matrix is shown as pairs and one picture
MOST_PAIRS = 15
WEAKEST = 10  # rows shown at once of a long per-class table
ORDINARY = ("class", "name", "label")  # keys that may hold the class's name
AMOUNTS = ("images", "objects", "pixels", "support", "count", "n")  # keys that hold a number of images or objects
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One headline figure; left, width, dot in per cent of the bar's length, None without a bar."""

    label: str
    meaning: str
    value: str
    interval: str
    bar: dict[str, float] | None
    ends: tuple[str, str]


def cards(headline: Sequence[Row]) -> list[Card]:
    """One card a figure; all bars of "more is better" shares have the same scale, so that they can be compared."""
    lows = [_lowest(row) for row in headline if measure(row["name"]).percent and measure(row["name"]).higher]
    floor = max((f for f in (0.0, 0.5, 0.8, 0.9) if f < min(lows, default=1.0)), default=0.0)
    return [_card(row, floor) for row in headline]


def _lowest(row: Row) -> float:
    known = [number(row.get(key)) for key in ("low", "value")]
    return min((value for value in known if value is not None), default=1.0)


def _card(row: Row, floor: float) -> Card:
    name, value, low, high = row["name"], number(row.get("value")), number(row.get("low")), number(row.get("high"))
    kind = measure(name)
    bar, ends = None, ("", "")
    if value is not None and kind.percent:
        start, end = (floor, 1.0) if kind.higher else (0.0, _roof(max(value, high or 0.0)))
        bar, ends = _bar(value, low, high, start, end), (f"{100 * start:.0f}{NARROW}%", f"{100 * end:.0f}{NARROW}%")
    return Card(kind.label, kind.meaning, figure(name, value), interval(name, low, high), bar, ends)


def _roof(value: float) -> float:
    return next((roof for roof in (0.05, 0.1, 0.2, 0.5) if value <= roof), 1.0)


def _bar(value: float, low: float | None, high: float | None, start: float, end: float) -> dict[str, float]:
    def place(x: float) -> float:
        return round(min(max(100 * (x - start) / (end - start), 0.0), 100.0), 2)

    left, right = place(value if low is None else low), place(value if high is None else high)
    return {"left": left, "width": round(right - left, 2), "dot": place(value)}


@dataclass(frozen=True)
class ClassTable:
    """columns: (label, meaning); rows: {"name", "cells": [{"text", "bar"}], "weak"}; rest: the rows that are folded away."""

    columns: list[tuple[str, str]]
    rows: list[dict[str, Any]]
    rest: list[dict[str, Any]]


def class_table(rows: Sequence[Row]) -> ClassTable:
    """The per-class rows, with a bar for each share; of a long table the weakest classes stand first."""
    if not rows:
        return ClassTable([], [], [])
    name = next((key for key in ORDINARY if key in rows[0]), next(iter(rows[0])))
    keys = [key for key in rows[0] if key != name and any(number(row.get(key)) is not None for row in rows)]
    judge = next((key for key in ("f1", "recall", *keys) if key in keys and key not in AMOUNTS), None)
    values = [number(row.get(judge)) if judge else None for row in rows]
    weakest = min((v for v in values if v is not None), default=1.0)
    shown = [_class_row(row, name, keys, weak=value is not None and value == weakest < 1) for row, value in zip(rows, values, strict=True)]
    columns = [(measure(key).label, measure(key).meaning) for key in keys]
    if len(rows) <= MOST_CLASSES:
        return ClassTable(columns, shown, [])
    order = sorted(range(len(rows)), key=lambda i: (values[i] is None, values[i] or 0.0, i))
    return ClassTable(columns, [shown[i] for i in order[:WEAKEST]], [shown[i] for i in order[WEAKEST:]])


def _class_row(row: Row, name: str, keys: Sequence[str], *, weak: bool) -> dict[str, Any]:
    return {"name": row[name], "cells": [_cell(key, number(row.get(key))) for key in keys], "weak": weak}


def _cell(key: str, value: float | None) -> dict[str, Any]:
    if value is None:
        return {"text": "—", "bar": None}
    if key in AMOUNTS or not 0 <= value <= 1 or key == "best_threshold":
        return {"text": f"{value:,.0f}" if value == int(value) else f"{value:.4g}", "bar": None}
    return {"text": percent(value), "bar": round(100 * value, 1)}


@dataclass(frozen=True)
class Confusion:
    """classes: their names; wrong: mistakes in all; pairs: the commonest, most first; grid: rows of cells for few classes,
    or picture for many."""

    classes: Sequence[str]
    total: int
    wrong: int
    pairs: list[dict[str, Any]]
    more_pairs: int
    grid: list[dict[str, Any]]
    picture: Thumb | None


def confusion(matrix: Sequence[Sequence[int]] | None, classes: Sequence[str]) -> Confusion | None:
    """A confusion matrix `[K, K]` (rows: truth, columns: answers) as the page shows it; None where there is none.

    Raises ValueError when matrix and names do not fit.
    """
    if matrix is None or not len(classes):
        return None
    counts = np.asarray(matrix, np.int64)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"the confusion matrix must be {len(classes)} x {len(classes)}, got {list(counts.shape)}")
    few = len(classes) <= MOST_CLASSES
    wrong = counts - np.diag(np.diag(counts))
    pairs = _pairs(counts, wrong, classes)
    return Confusion(
        classes=classes,
        total=int(counts.sum()),
        wrong=int(wrong.sum()),
        pairs=pairs,
        more_pairs=int((wrong > 0).sum()) - len(pairs),
        grid=[_grid_row(i, counts[i], classes) for i in range(len(classes))] if few else [],
        picture=None if few else confusion_picture(counts),
    )


def _pairs(counts: NDArray[np.int64], wrong: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    places = [divmod(int(flat), len(classes)) for flat in order]
    totals = counts.sum(1)
    return [
        {
            "truth": classes[i],
            "label": classes[j],
            "n": int(wrong[i, j]),
            "of": int(totals[i]),
            "bar": round(100 * wrong[i, j] / totals[i], 1),
        }
        for i, j in places
        if wrong[i, j]
    ]


def _grid_row(i: int, row: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    total = int(row.sum())
    cells = [
        {
            "n": int(n),
            "right": j == i,
            "strength": round(8 + 92 * float(n / total) ** 0.7) if n else 0,
            "title": f"{visible(classes[i])[:80]} → {visible(classes[j])[:80]}: {n} of {total}",
        }
        for j, n in enumerate(row)
    ]
    return {"name": classes[i], "cells": cells, "total": total}


def data_table(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Images by class and split, with the sums; `counts` is {split: {class: images}}."""
    splits = [split for split in counts if counts[split]]
    names = list(dict.fromkeys(name for split in splits for name in counts[split]))
    rows: list[dict[str, Any]] = [{"name": name, "counts": [int(counts[split].get(name, 0)) for split in splits]} for name in names]
    totals = [sum(row["counts"][i] for row in rows) for i in range(len(splits))]
    return {"splits": splits, "rows": rows, "totals": totals}


def advice(found: Confusion | None, classes: ClassTable, per_class: Sequence[Row], counts: Mapping[str, int], split: str) -> list[str]:
    """What the results say to do next, most useful first. `counts`: training images by class."""
    lines = []
    thin = _thin_and_weak(per_class, counts)
    if thin:
        lines.append(f"Add training images where they are few and the model is weak: {', '.join(thin)}.")
    if found and found.pairs and found.pairs[0]["n"] > 1:
        pair = found.pairs[0]
        lines.append(
            f"Look at the pictures of {_quoted(pair['truth'])} that were taken for {_quoted(pair['label'])} ({pair['n']} of {pair['of']}): "
            "are the labels right, and can you tell them apart yourself?"
        )
    if split == "val":
        lines.append("Put a part of your images into a folder test/ that training never sees: that gives the figure to quote to others.")
    total = found.total if found else 0
    if 0 < total < 100:
        lines.append(f"Measure on more images: {count(total, 'image')} leave a wide margin of doubt.")
    return lines


def _thin_and_weak(per_class: Sequence[Row], counts: Mapping[str, int]) -> list[str]:
    if len(counts) < 2:
        return []
    few = 0.7 * float(median(counts.values()))
    scored = [(number(row.get("f1")), row.get("class", row.get("name"))) for row in per_class]
    weak = sorted((f1, str(name)) for f1, name in scored if f1 is not None and f1 < 0.9 and counts.get(str(name), few) < few)
    return [f"{_quoted(name)} ({counts[name]})" for _, name in weak[:3]]


def _quoted(name: object) -> str:
    text = visible(name)
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"
