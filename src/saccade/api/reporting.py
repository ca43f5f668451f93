"""The report of a run, from what its folder holds and an evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.api import drawing, mapping, marking
from saccade.core import bands, images, licenses
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.core.results import OBJECTS, WITHIN
from saccade.core.rundir import RunDir
from saccade.evaluation.predictions import write_predictions
from saccade.evaluation.result import Evaluation
from saccade.report import page
from saccade.report.page import ReportData
from saccade.tasks import MAKING, room

if TYPE_CHECKING:
    from saccade.api.models import Model

MISTAKES = 24
EXAMPLES = 12


def write_report(
    run: RunDir, model: Model, evaluation: Evaluation, *, progress: Progress, figures: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Keep the evaluation's answers in predictions/ and write report.html from them and the run's own record.

    figures: pictures of what the model makes, {"title", "text", "picture"}; those of what it finds are drawn here.
    """
    if evaluation.predictions:
        write_predictions(run.predictions, evaluation)
    record = run.read_run()
    pictured = bool(record["config"].get("images", True))
    if pictured and record["config"]["task"] in WITHIN:
        drawn = drawing.drawn if record["config"]["task"] in OBJECTS else mapping.drawn
        figures = list(drawn(model, evaluation, record["data"]["path"]))
    data = _data(run, record, model, evaluation, pictured=pictured, progress=progress)
    page.write(run.report, replace(data, figures=figures), images=pictured)


def _data(
    run: RunDir, record: Mapping[str, Any], model: Model, evaluation: Evaluation, *, pictured: bool, progress: Progress
) -> ReportData:
    config = record["config"]
    wrong, right = _answers(evaluation) if config["task"] == "classify" else ((), ())
    classes = evaluation.details.get("classes", model.card.classes)
    metric = room(config["task"]).metrics(model.card)
    data = record["data"]
    counts = {split: dict(zip(data["classes"], numbers, strict=True)) for split, numbers in data["counts"].items() if any(numbers)}
    return ReportData(
        title=Path(data["path"]).name,
        task=config["task"],
        things="objects"
        if config["task"] in OBJECTS
        else "segments"
        if config["task"] == "panoptic"
        else "pixels"
        if config["task"] in WITHIN
        else "images",
        run=str(run.path),
        model=config["model"],
        parameters=sum(p.numel() for p in model.module.parameters()),
        dataset=data["path"],
        counts=counts,
        headline=_headline(evaluation, metric.primary),
        split=evaluation.split,
        images=evaluation.images,
        primary=metric.primary,
        curves=run.metrics(),
        marks=marking.marks(run.events(), run.metrics(), metric.primary),
        per_class=evaluation.per_class,
        classes=[*classes, "background"] if config["task"] in OBJECTS else classes,
        confusion=evaluation.details.get("confusion"),
        reliability=evaluation.details.get("reliability", ()),
        exits=evaluation.details.get("exits", ()),
        mistakes=[_case(row, model, data["path"], pictured=pictured) for row in wrong],
        examples=[_case(row, model, data["path"], pictured=pictured) for row in right] if pictured else (),
        reasons=record.get("reasons", ()),
        config=_flat({**config, **{f"resolved.{k}": v for k, v in record["resolved"].items()}}),
        environment={**record["versions"], **record["machine"]},
        command=record["command"],
        next_steps=_next_steps(run, evaluation.split, making=config["task"] in MAKING),
        descent=licenses.words(model.card.descent),
        notes=_notes(data) + _pictures(data["path"], evaluation),
    )


def _answers(evaluation: Evaluation) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """The worst answers of a classifier, and some of its right ones."""
    from saccade.explanation.mistakes import worst

    right = [row for row in evaluation.predictions if row["correct"]]
    return worst(evaluation.predictions, MISTAKES), right[:: max(1, len(right) // EXAMPLES)][:EXAMPLES]


def _headline(evaluation: Evaluation, primary: str) -> list[dict[str, Any]]:
    names = [primary, *(name for name in evaluation.metrics if name != primary and not name.startswith("mar_"))]
    rows = []
    for name in names:
        low, high = evaluation.intervals.get(name, (None, None))
        if evaluation.metrics.get(name) is not None:
            rows.append({"name": name, "value": evaluation.metrics[name], "low": low, "high": high})
    return rows


def _case(row: Mapping[str, Any], model: Model, root: str, *, pictured: bool) -> dict[str, Any]:
    """One answer with its picture and where the model looked for it."""
    from saccade.api.explaining import attribute, look

    case = {name: row.get(name) for name in ("source", "truth", "label", "score")}
    scores = row.get("scores") or {}
    case |= {"truth_score": scores.get(row["truth"]), "note": row.get("cause", ""), "picture": None, "map": None}
    if not pictured:
        return case
    try:
        pixels, ready = look(model, Path(root) / row["source"])
        shown = attribute(model, pixels, ready, row["source"])
    except UserError:
        return case  # the image has gone since, or this model has no places to show: the row stands without
    return case | {"picture": pixels, "map": shown.picture}


def _next_steps(run: RunDir, split: str, *, making: bool) -> Sequence[Mapping[str, str]]:
    path = shlex.quote(str(run.path))
    measure = [{"text": "Measure it on the test images", "command": f"saccade eval {path}"}] if split != "test" else []
    if making:
        return [
            {"text": "Make images", "command": f"saccade generate {path} --n 64 --out made"},
            {"text": "Measure it on other images", "command": f"saccade eval {path} DATA"},
        ]
    return [
        *measure,
        {"text": "Use it", "command": f"saccade predict {path} IMAGE..."},
        {"text": "See where it looks", "command": f"saccade explain {path} IMAGE..."},
        {"text": "Ship it, with proof that it answers the same", "command": f"saccade export {path} --to onnx"},
    ]


def _notes(data: Mapping[str, Any]) -> list[str]:
    notes = [f"{bad['path']} was left out: {bad['reason']}" for bad in data["bad"]]
    if ignored := data["ignored"]:
        notes.append(f"{ignored:,} {'file' if ignored == 1 else 'files'} without an image suffix passed over")
    return notes


def _pictures(root: str, evaluation: Evaluation) -> list[str]:
    """What the pictures of the page show, where they are not the images themselves."""
    for row in evaluation.predictions[:1]:
        if there := images.bands_of(Path(root) / row["source"]):
            return [bands.picture(there)]
    return []


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat
