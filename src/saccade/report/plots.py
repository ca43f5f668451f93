"""The page's plots: matplotlib figures as SVG inside `data:` addresses, one for light and one for dark surroundings.

Each figure holds numbers and our own words only, never a class's or file's name, and the same data give the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.report.pictures import data_uri
from saccade.report.words import measure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 240  # points a line is thinned to: about what its pixels can show
SIZE = (5.2, 3.1)  # inches of 72 CSS pixels * 4/3
STROKES = ("-", "-.", ":")
MOST_LOSSES = 12  # lines that theme and strokes keep apart
FONT = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif"
Row = Mapping[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Theme:
    """Colours of one surrounding; first to fourth stay apart for colour-blind eyes (Okabe and Ito)."""

    ink: str
    faint: str
    grid: str
    first: str
    second: str
    third: str
    fourth: str

    def line(self, i: int) -> dict[str, Any]:
        """Colour and strokes of the i-th line of a plot: every one differs from the others in one or the other."""
        colours = (self.first, self.second, self.third, self.fourth)
        return {"color": colours[i % len(colours)], "linestyle": STROKES[i // len(colours) % len(STROKES)]}


LIGHT = Theme(ink="#1d2733", faint="#5d6b7a", grid="#e3e8ee", first="#0072b2", second="#d55e00", third="#009e73", fourth="#cc79a7")
DARK = Theme(ink="#e8edf2", faint="#9aa8b6", grid="#2d3742", first="#56b4e9", second="#f0934e", third="#2fbf93", fourth="#e3a0c6")


@dataclass(frozen=True)
class Plot:
    """Two `data:` addresses of the same figure, and its text for those who cannot see it."""

    light: str
    dark: str
    alt: str


@dataclass(frozen=True)
class Line:
    """x, y: float64 `[N]`, in the order of x; all finite."""

    x: Floats
    y: Floats

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Curves:
    """What the rows of `metrics.jsonl` hold, by epoch where every row knows its epoch, else by step.

    losses: those of training by name ("loss", "judge/loss"), at most `MOST_LOSSES`; marks: x of each event;
    score: the primary metric on the validation images, by the name `score_name`; since: from where on the best is looked for.
    """

    unit: str
    losses: Mapping[str, Line]
    rate: Line
    validation_loss: Line
    score: Line
    score_name: str
    marks: tuple[float, ...]
    since: float

    def best(self) -> tuple[float, float] | None:
        """(x, value) of the best evaluation behind `since`, the earliest among equals; None without any."""
        later = self.score.x > self.since
        x, y = (self.score.x[later], self.score.y[later]) if later.any() else (self.score.x, self.score.y)
        if not len(x):
            return None
        at = int(np.argmax(y) if measure(self.score_name).higher else np.argmin(y))
        return float(x[at]), float(y[at])

    def rising(self) -> bool:
        """Whether the last fifth of the evaluations still brought half a per cent over all that came before."""
        values = self.score.y if measure(self.score_name).higher else -self.score.y
        cut = len(values) - max(1, len(values) // 5)
        return cut > 0 and bool(values[cut:].max() > values[:cut].max() + 0.005 * abs(values[:cut].max()))


def curves(rows: Sequence[Row], marks: Sequence[Row], primary: str) -> Curves:
    """Sort the rows into lines; values that are missing or not finite are left out."""
    by_epoch = bool(rows) and all(number(row.get("epoch")) is not None for row in rows)
    unit = "epoch" if by_epoch else "step"
    places = _places(rows, marks, unit)
    training = [row for row in rows if "metrics" not in row]
    evaluations = [{**row["metrics"], unit: row.get(unit)} for row in rows if "metrics" in row]
    if evaluations and primary not in evaluations[0]:
        primary = next((name for name in evaluations[0] if name not in ("loss", unit)), primary)
    return Curves(
        unit=unit,
        losses=_losses(training, unit),
        rate=_line(training, unit, "lr"),
        validation_loss=_line(evaluations, unit, "loss"),
        score=_line(evaluations, unit, primary),
        score_name=primary,
        marks=places,
        since=max((place for place, mark in zip(places, marks, strict=False) if mark.get("anew")), default=-math.inf),
    )


def _losses(rows: Sequence[Row], unit: str) -> dict[str, Line]:
    rows = [{**row, "loss": row["last"]} if "last" in row else row for row in rows]  # what exits add is no part of the curve
    names = dict.fromkeys(name for row in rows for name in row if name == "loss" or name.endswith("/loss"))
    lines = {name: _line(rows, unit, name) for name in names}
    return dict(itertools.islice(((name, line) for name, line in lines.items() if len(line)), MOST_LOSSES))


def _line(rows: Sequence[Row], x: str, y: str) -> Line:
    pairs = [(number(row.get(x)), number(row.get(y))) for row in rows]
    known = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    known = known[np.argsort(known[:, 0], kind="stable")]
    return Line(known[:, 0], known[:, 1])


def _places(rows: Sequence[Row], marks: Sequence[Row], unit: str) -> tuple[float, ...]:
    steps = [float(mark.get("step", 0)) for mark in marks]
    known = _line(rows, "step", unit)
    return tuple(float(np.interp(step, known.x, known.y)) for step in steps) if len(known) else ()


def thin(line: Line, points: int = POINTS) -> tuple[Line, Floats, Floats]:
    """At most `points` means of equal stretches of `line`, with the smallest and largest value of each stretch."""
    if len(line) <= points:
        return line, line.y, line.y
    starts = np.linspace(0, len(line), points, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, len(line)))
    mean = Line(np.add.reduceat(line.x, starts) / sizes, np.add.reduceat(line.y, starts) / sizes)
    return mean, np.minimum.reduceat(line.y, starts), np.maximum.reduceat(line.y, starts)


def smooth(values: Floats) -> Floats:
    """Centred moving mean over a twentieth of the points, with shrinking windows at both ends."""
    half = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(half, np.minimum(at, len(values) - 1 - at))
    means: Floats = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)
    return means


def loss_plot(lines: Curves) -> Plot | None:
    """Training losses (smoothed over their spread) and validation loss; None where none has two points."""
    training = dict(zip(_loss_labels(lines.losses), lines.losses.values(), strict=True))
    every = training | ({"validation": lines.validation_loss} if len(lines.validation_loss) else {})
    if max((len(line) for line in every.values()), default=0) < 2:
        return None

    def draw(axes: Axes, theme: Theme) -> None:
        for i, (label, line) in enumerate(training.items()):
            _noisy(axes, line, theme.line(i), label)
        if len(lines.validation_loss):
            look = theme.line(len(training) or 1) | {"linestyle": "--"}
            axes.plot(lines.validation_loss.x, lines.validation_loss.y, label="validation", marker=".", **look)
        _stretch(axes, np.concatenate([line.y for line in every.values()]))
        _marks(axes, lines, theme)
        axes.set_xlabel(lines.unit)
        axes.legend(frameon=False, labelcolor=theme.ink)

    ends = {label: f"from {line.y[0]:.3g} to {line.y[-1]:.3g}" for label, line in every.items()}
    if len(training) > 1:
        return _plot(draw, f"Losses by {lines.unit}: {', '.join(f'{label} {words}' for label, words in ends.items())}")
    return _plot(draw, f"Loss by {lines.unit}, {next(iter(ends.values()))}")


def _loss_labels(losses: Mapping[str, Line]) -> list[str]:
    """What the lines are called: "judge/loss" is "judge". No text from outside may stand in a plot, and a $ would begin a formula."""
    if len(losses) == 1:
        return ["training"]
    names = [name.removesuffix("/loss") for name in losses]
    return [name if re.fullmatch(r"[a-z][a-z0-9_ ]{0,31}", name) else f"loss {i}" for i, name in enumerate(names, 1)]


def _noisy(axes: Axes, line: Line, look: Mapping[str, Any], label: str) -> None:
    mean, low, high = thin(line)
    if len(line) > POINTS:
        axes.fill_between(mean.x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    else:
        axes.plot(mean.x, mean.y, color=look["color"], alpha=0.3, linewidth=0.9)
    axes.plot(mean.x, smooth(mean.y), label=label, marker=_single(mean), **look)


def _stretch(axes: Axes, values: Floats) -> None:
    """A logarithmic scale where a plain one would press most of the values onto the ground."""
    if values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def score_plot(lines: Curves) -> Plot | None:
    """The primary metric on the validation images with its best value marked; None with less than two evaluations."""
    best = lines.best()
    if best is None or len(lines.score) < 2:
        return None
    scale = 100 if measure(lines.score_name).percent else 1

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot(lines.score.x, lines.score.y * scale, color=theme.first, marker="." if len(lines.score) < 80 else "")
        axes.plot(best[0], best[1] * scale, "o", color=theme.second, markersize=9, markerfacecolor="none", markeredgewidth=2)
        axes.annotate(
            f"best {best[1] * scale:.4g}{' %' if scale == 100 else ''}", (best[0], best[1] * scale),
            xytext=(0, -20 if measure(lines.score_name).higher else 14), textcoords="offset points", color=theme.second,
            fontweight="bold", horizontalalignment=_side(best[0], lines.score.x), parse_math=False,
        )  # fmt: skip
        axes.margins(y=0.15)
        if scale == 1:
            _stretch(axes, lines.score.y)
        _marks(axes, lines, theme, top=False)
        axes.set_xlabel(lines.unit)
        if scale == 100:
            axes.yaxis.set_major_formatter("{x:.4g} %")
            axes.set_ylim(max(axes.get_ylim()[0], -2), min(axes.get_ylim()[1], 102))

    name = measure(lines.score_name).label
    return _plot(draw, f"{name} on the validation images by {lines.unit}; the best is {best[1] * scale:.4g} at {best[0]:.4g}")


def rate_plot(lines: Curves) -> Plot | None:
    """The learning rate; None where it was not recorded."""
    if not len(lines.rate):
        return None

    def draw(axes: Axes, theme: Theme) -> None:
        mean, _, _ = thin(lines.rate)
        axes.plot(mean.x, mean.y, color=theme.first, marker=_single(mean))
        axes.set_ylim(bottom=0)
        _marks(axes, lines, theme)
        axes.set_xlabel(lines.unit)

    return _plot(draw, f"Learning rate by {lines.unit}, at most {lines.rate.y.max():.3g}")


def reliability_plot(bins: Sequence[Row]) -> Plot | None:
    """How often the model is right by how sure it is, each bin with its 95 % Wilson interval; None without an image."""
    filled = [row for row in bins if row["count"]]
    if not filled:
        return None
    n = np.array([row["count"] for row in filled], np.float64)
    sure, right = (100 * np.array([row[key] for row in filled], np.float64) for key in ("confidence", "accuracy"))
    low, high = wilson(right / 100, n)

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 100], [0, 100], color=theme.faint, linestyle="--", linewidth=1, label="perfectly honest")
        axes.errorbar(sure, right, [right - 100 * low, 100 * high - right], fmt="none", ecolor=theme.first, alpha=0.45, elinewidth=1.6)
        axes.scatter(sure, right, 30 + 190 * np.sqrt(n / n.max()), color=theme.first, alpha=0.9, label="this model", linewidths=0)
        axes.set(xlim=(0, 104), ylim=(0, 104), xlabel="how sure it was", ylabel="how often it was right")
        axes.xaxis.set_major_formatter("{x:.0f} %")
        axes.yaxis.set_major_formatter("{x:.0f} %")
        handles, labels = axes.get_legend_handles_labels()
        legend = axes.legend(handles, labels, frameon=False, labelcolor=theme.ink, loc="lower right")
        legend.legend_handles[1].set_sizes([60])  # type: ignore[union-attr]

    return _plot(draw, f"Reliability: {len(filled)} groups of answers by confidence, against how often they were right")


def wilson(share: Floats, n: Floats, z: float = 1.96) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share out of n (Wilson 1927), which holds near 0 and 1 too."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(np.minimum(middle - reach, share), 0, 1), np.clip(np.maximum(middle + reach, share), 0, 1)


def _single(line: Line) -> str:
    # A line of one point is nothing to see.
    return "." if len(line) == 1 else ""


def _side(x: float, all_x: Floats) -> str:
    span = float(np.ptp(all_x)) or 1.0
    place = (x - float(all_x.min())) / span
    return "right" if place > 0.75 else "left" if place < 0.25 else "center"


def _marks(axes: Axes, lines: Curves, theme: Theme, *, top: bool = True) -> None:
    # The number stands where the curve is not: falling curves leave the top free, rising ones the bottom.
    for x, numbers in _together(lines.marks).items():
        axes.axvline(x, color=theme.faint, linestyle=":", linewidth=1.2)
        axes.annotate(numbers, (x, int(top)), xycoords=("data", "axes fraction"), xytext=(3, -2 if top else 3), textcoords="offset points",
                      color=theme.faint, verticalalignment="top" if top else "bottom", fontsize=9)  # fmt: skip


def _together(marks: Sequence[float]) -> dict[float, str]:
    """The numbers of the marks at each place, "4" or "4-6"."""
    places: dict[float, list[int]] = {}
    for turn, x in enumerate(marks, 1):
        places.setdefault(x, []).append(turn)
    return {x: str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}" for x, found in places.items()}


def _plot(draw: Callable[[Axes, Theme], None], alt: str) -> Plot:
    light, dark = (data_uri("image/svg+xml", _svg(draw, theme)) for theme in (LIGHT, DARK))
    return Plot(light, dark, alt)


def _svg(draw: Callable[[Axes, Theme], None], theme: Theme) -> bytes:
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _style(theme)]), warnings.catch_warnings():  # restores the user's own settings
        warnings.simplefilter("ignore", UserWarning)  # fonts that lack a glyph: the browser has it
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes, theme)
        return _lean(figure)


def _lean(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue().decode("utf-8")
    text = re.sub(r"<!--.*?-->|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", FONT, text)
    return re.sub(r"\s*\n\s*", " ", text).encode("utf-8")


def _style(theme: Theme) -> dict[str, Any]:
    return {
        "svg.hashsalt": "saccade", "svg.fonttype": "none", "font.size": 10.5, "path.simplify": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.faint, "axes.grid": True, "axes.axisbelow": True, "grid.color": theme.grid, "grid.linewidth": 0.8,
        "xtick.color": theme.faint, "ytick.color": theme.faint, "ytick.left": False, "text.color": theme.ink, "lines.linewidth": 1.9,
        "lines.solid_capstyle": "round", "lines.markersize": 8,
    }  # fmt: skip
