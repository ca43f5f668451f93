"""What `eval` returns: figures with intervals, per class, details for a report, one row for each image."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.core.files import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

NUMBERED = 12  # classes up to which the cells of a drawn confusion matrix bear their counts
NAMED = 40  # classes up to which its axes bear names, and rows shown in a notebook


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one split.

    metrics: by name, None where undefined; intervals: (low, high) at 95 %, only for figures that have one; per_class: one row
    a class; details: what a report draws (classes, confusion, reliability; exits: of a network that images leave early, a row for each exit
    with images, share, accuracy, flops); predictions: see `Metric.row`; seconds: wall time.
    """

    task: str
    split: str
    images: int
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    per_class: Sequence[Row] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    predictions: Sequence[Row] = field(default=(), repr=False)
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float | None:
        """None where nothing was timed."""
        return self.images / self.seconds if self.seconds > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The object of `saccade eval --json`."""
        return {
            "task": self.task,
            "split": self.split,
            "images": self.images,
            "metrics": dict(self.metrics),
            "intervals": {name: [low, high] for name, (low, high) in self.intervals.items()},
            "per_class": [dict(one) for one in self.per_class],
            **({"exits": [dict(one) for one in self.details["exits"]]} if "exits" in self.details else {}),
        }

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON; raises UserError where the disk refuses."""
        return write_json(Path(path), self.to_dict())

    def mistakes(self, n: int = 20) -> list[Row]:
        """The worst `n` wrong answers, each row with its `margin`: score of the answer less score of the truth.

        Largest margin first, then by source; answers without scores come last, with margin None.
        """
        wrong = [{**one, "margin": _margin(one)} for one in self.predictions if not one["correct"]]
        wrong.sort(key=lambda one: (one["margin"] is None, -(one["margin"] or 0.0), one["source"]))
        return wrong[: max(n, 0)]

    def plot(self) -> Figure:
        """The confusion matrix, each row as shares of its truth, beside the reliability diagram."""
        from matplotlib.figure import Figure

        bins = [one for one in self.details.get("reliability", ()) if one["count"]]
        names = self.details.get("classes", ())
        side = 4.0 + 0.12 * min(len(names), NAMED)
        figure = Figure(figsize=(side + (4.0 if bins else 0.0), side), layout="compressed")
        axes = figure.subplots(1, 2 if bins else 1, squeeze=False, width_ratios=[side, 4.0] if bins else None)[0]
        _draw_confusion(axes[0], np.array(self.details.get("confusion", ()), np.int64).reshape(len(names), len(names)), names)
        if bins:
            _draw_reliability(axes[1], bins, self.metrics.get("ece"))
        return figure

    def _repr_html_(self) -> str:
        speed = f", {self.images_per_second:,.0f} images/s" if self.images_per_second else ""
        title = f"{self.task} on {self.split}: {self.images:,} images{speed}"
        figures = [(name, _figure(value), _interval(self.intervals.get(name))) for name, value in self.metrics.items()]
        page = _table(("", "value", "95 % interval"), figures, title)
        rows = [(one["class"], one["images"], *(_figure(one[key]) for key in ("precision", "recall", "f1"))) for one in self.per_class]
        more = f"the first {NAMED} of {len(rows)} classes" if len(rows) > NAMED else f"{len(rows)} classes"
        table = _table(("class", "images", "precision", "recall", "F1"), rows[:NAMED])
        return f"<div>{page}<details><summary>{more}</summary>{table}</details></div>" if rows else f"<div>{page}</div>"


def _margin(one: Row) -> float | None:
    scores = one.get("scores")
    return scores[one["label"]] - scores[one["truth"]] if scores else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    def line(cells: Iterable[object], tag: str) -> str:
        left, right = "text-align:left", "text-align:right;font-variant-numeric:tabular-nums"
        styled = (f'<{tag} style="{right if i else left}">{html.escape(str(cell))}</{tag}>' for i, cell in enumerate(cells))
        return f"<tr>{''.join(styled)}</tr>"

    top = f'<caption style="text-align:left;font-weight:bold">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{top}{line(head, 'th')}{''.join(line(cells, 'td') for cells in rows)}</table>"


def _draw_confusion(axes: Axes, counts: Any, names: Sequence[str]) -> None:
    k = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.set(xlabel="answer", ylabel="truth", title="Confusion")
    if not k:
        return
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if k <= NAMED:
        # A class may be called "$x": names are text, never formulas.
        axes.set_xticks(range(k), names, rotation=90, parse_math=False)
        axes.set_yticks(range(k), names, parse_math=False)
    for i, j in np.argwhere(counts) if k <= NUMBERED else ():
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)


def _draw_reliability(axes: Axes, bins: Sequence[Row], ece: float | None) -> None:
    middle = [(one["low"] + one["high"]) / 2 for one in bins]
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.bar(middle, [one["accuracy"] for one in bins], width=0.9 * (bins[0]["high"] - bins[0]["low"]), color="#2a6f97")
    axes.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o", color="#e07a3f", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.set_title("Reliability" if ece is None else f"Reliability (ECE {ece:.3f})")
    axes.spines[["top", "right"]].set_visible(False)
