"""What a report says, and the one HTML page that says it: no scripts, no network, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.core.files import write_bytes
from saccade.report import plots, tables, words
from saccade.report.pictures import Thumb, sheet, thumbnail

if TYPE_CHECKING:
    from jinja2 import Template

MOST_MISTAKES = 48
MOST_EXAMPLES = 24
MOST_NOTES = 200
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows, as plain values; whatever is empty or None is left out of the page.

    title: what stands on top; task: "classify"; "detect", whose rows and columns of confusion count objects, the last of each the
    background; or "generate", whose page has nothing of answers (classes, confusion, reliability, mistakes, examples), whatever is
    given; run: the run's path as a user would type it; model: its name;
    parameters: of the network; dataset: path or name; counts: images (objects) by split and class {split: {class: n}};
    headline: [{"name", "value", "low", "high"}], the primary figure first (low, high may be None);
    split: the one that was evaluated ("test", "val", ...); images: how many it holds; primary: the metric that chose the best.
    figures: what the model makes or finds, in this order: [{"title", "text", "picture"}], text is a line or two, picture a uint8 array
    `[H, W, 1|3|4]` (alpha straight) of any size, or None;
    curves: rows of metrics.jsonl: {"step", "epoch", "loss", "lr"} from training (or a loss by phase: "judge/loss"),
    {"step", "epoch", "split", "metrics": {}} from evaluation;
    marks: events as [{"step", "text", "effect", "anew"}], effect "" of those that have none; anew: the best is looked for from there on;
    per_class: [{"class", any figures in 0..1, "images" or "support"}];
    classes, confusion: names and counts `[K][K]`, rows truth, columns answers;
    reliability: bins [{"low", "high", "count", "confidence", "accuracy"}];
    exits: where images leave the network early, in its order: [{"exit", "images", "share", "accuracy" or None, "flops"}];
    mistakes, examples: [{"source", "truth", "label", "score", "truth_score", "picture", "map", "note"}], worst first; picture and map
    are uint8 `[H, W, C]` arrays or None (map: the attribution drawn over the picture), note is optional text;
    reasons: the recipe's; config: flattened {key: value}; environment: {"python": ...}; command: how to repeat it;
    next_steps: [{"text", "command"}]; descent: what the weights come from, a line a link; notes: warnings (skipped files ...).
    """

    title: str
    task: str = "classify"
    things: str = "images"
    run: str = ""
    model: str = ""
    parameters: int | None = None
    dataset: str = ""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    headline: Sequence[Row] = ()
    split: str = ""
    images: int = 0
    primary: str = "accuracy"
    figures: Sequence[Row] = ()
    curves: Sequence[Row] = ()
    marks: Sequence[Row] = ()
    per_class: Sequence[Row] = ()
    classes: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] | None = None
    reliability: Sequence[Row] = ()
    exits: Sequence[Row] = ()
    mistakes: Sequence[Row] = ()
    examples: Sequence[Row] = ()
    reasons: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    next_steps: Sequence[Mapping[str, str]] = ()
    descent: Sequence[str] = ()
    notes: Sequence[str] = ()


def write(path: str | Path, data: ReportData, *, images: bool = True) -> Path:
    """Write the page to `path` durably; raises UserError when it cannot be written."""
    return write_bytes(Path(path), render(data, images=images).encode("utf-8"))


def render(data: ReportData, *, images: bool = True) -> str:
    """The page as HTML; `images=False` leaves every picture of the data out. Raises ValueError for shapes that do not fit."""
    making = data.task == "generate"
    if making:
        data = replace(data, confusion=None, per_class=(), reliability=(), mistakes=(), examples=())
    found = tables.confusion(data.confusion, data.classes)
    per_class = tables.class_table(data.per_class)
    return _template().render(
        data=data,
        making=making,
        naming=data.task == "classify",
        things=data.things,
        made_title="What it makes" if making else "What it finds",
        verdict=words.verdict(data.split, data.images, data.headline, data.task),
        figures=[_figure(row) for row in data.figures] if images else [],
        cards=tables.cards(data.headline),
        confusion=found,
        per_class=per_class,
        calibration=words.calibration(data.reliability),
        reliability=plots.reliability_plot(data.reliability),
        mistakes=_gallery(data.mistakes, MOST_MISTAKES, images=images),
        wrong=found.wrong if found else len(data.mistakes),
        examples=_gallery(data.examples, MOST_EXAMPLES, images=images) if images else [],
        images=images,
        table=tables.data_table(data.counts),
        notes=data.notes[:MOST_NOTES],
        advice=tables.advice(
            found if data.task == "classify" else None, per_class, data.per_class, data.counts.get("train", {}), data.split
        ),
        **_curves(data),
    )


def _curves(data: ReportData) -> dict[str, Any]:
    lines = plots.curves(data.curves, data.marks, data.primary)
    best = lines.best()
    last = float(lines.score.x[-1]) if best else 0.0
    return {
        "loss_plot": plots.loss_plot(lines),
        "several_losses": len(lines.losses) > 1,
        "losses_words": words.losses_words(list(lines.losses), exits=any("last" in row for row in data.curves)),
        "score_plot": plots.score_plot(lines),
        "rate_plot": plots.rate_plot(lines),
        "score_name": words.measure(lines.score_name).label,
        "best": words.best_words(lines.score_name, best, last, lines.unit, rising=lines.rising()) if best else "",
    }


def _figure(row: Row) -> dict[str, Any]:
    picture = row.get("picture")
    return {"title": row.get("title", ""), "text": row.get("text", ""), "picture": None if picture is None else sheet(picture)}


def _gallery(rows: Sequence[Row], most: int, *, images: bool) -> list[dict[str, Any]]:
    return [
        {
            **{key: row.get(key, "") for key in ("source", "truth", "label", "note")},
            "score": _share(row.get("score")),
            "truth_score": _share(row.get("truth_score")),
            "picture": _thumb(row.get("picture")) if images else None,
            "map": _thumb(row.get("map")) if images else None,
        }
        for row in rows[:most]
    ]


def _share(value: object) -> dict[str, Any] | None:
    known = words.number(value)
    return None if known is None else {"text": words.percent(known), "bar": round(100 * min(max(known, 0.0), 1.0), 1)}


def _thumb(pixels: Any) -> Thumb | None:
    return None if pixels is None else thumbnail(pixels)


def _template() -> Template:
    from importlib import resources

    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        visible=words.visible,
        short=words.short,
        count=words.count,
        images_of=words.images_of,
        percent=words.percent,
        no_mistakes=words.no_mistakes,
    )
    return environment.from_string(resources.files("saccade.report").joinpath("template.html.j2").read_text("utf-8"))
