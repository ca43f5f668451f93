"""`quickstart`: the whole way on real images that come with a dependency, taken as a user's own folder would be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.api.runs import Run
from saccade.api.training import train
from saccade.core import folders
from saccade.core.errors import UserError, unknown
from saccade.core.progress import Progress, automatic
from saccade.data.drawing import MOST
from saccade.data.opening import open_dataset
from saccade.evaluation.result import Evaluation

if TYPE_CHECKING:
    from saccade.api.exporting import Export

SHOWN = 5


def _digits(folder: Path) -> tuple[Path, str]:
    from saccade.data.builtin import write_digits

    return write_digits(folder / "digits"), "1,797 handwritten digits of 8x8 pixels (from scikit-learn) in class folders"


def _scenes(task: str, format: str, words: str, folder: Path) -> tuple[Path, str]:
    from saccade.data.builtin import make_shapes

    make_shapes(folder / "shapes", task=task, n=SCENES, size=(96, 96), format=format)
    return folder / "shapes", f"{SCENES} drawn scenes of up to {MOST} shapes of 96x96 pixels, {words}"


SCENES = 600
DATA: Mapping[str, Callable[[Path], tuple[Path, str]]] = {
    "classify": _digits,
    "detect": partial(_scenes, "detect", "yolo", "boxes in YOLO's format"),
    "instances": partial(_scenes, "instances", "coco", "masks in COCO's format"),
    "segment": partial(_scenes, "segment", "masks", "a mask of classes beside each"),
    "panoptic": partial(_scenes, "panoptic", "coco_panoptic", "things and what they lie on in COCO's panoptic format"),
}
MINUTES = {"detect": 0.75, "instances": 0.75, "segment": 2.0, "panoptic": 2.0}
OWN = {
    "classify": "images, in a folder per class",
    "detect": "images with boxes, in COCO's, YOLO's or any other format",
    "instances": "images with masks of objects, in COCO's or any other format",
    "segment": "images/ and masks/ of the same names",
    "panoptic": "images with their segments, in COCO's panoptic format",
}


def quickstart(
    *,
    task: str = "classify",
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    started: float | None = None,
) -> Run:
    """Write scikit-learn's handwritten digits as PNG class folders, or for other tasks drawn scenes, train on them, measure on the
    held-out part, predict, explain and export.

    `out`: the folder for images and run (default ./quickstart, or quickstart-2 ... where that is taken). The run's
    `summary` says in lines what was done. Raises UserError where `out` holds a quickstart already.
    """
    from saccade.api.evaluating import eval
    from saccade.api.explaining import explain
    from saccade.api.predicting import predict
    from saccade.training import precision as precisions

    if task not in DATA:
        raise unknown("task", task, DATA, where="--task")
    started = time.monotonic() if started is None else started
    progress = progress or automatic()
    folder = _place(Path(out)) if out is not None else folders.free("quickstart")
    precisions.resolve(precision, precisions.device(device))  # refused before anything is written
    data, told = DATA[task](folder)
    run = train(
        data,
        out=folder / "run",
        minutes=MINUTES.get(task),
        device=device,
        precision=precision,
        seed=seed,
        progress=progress,
        started=started,
    )
    evaluation = eval(run.path, device=device, precision=precision, seed=seed, progress=progress)
    held = open_dataset(data, task=task)
    images = [data / held.paths[place] for place in held.split("test").tolist()][:: max(1, evaluation.images // SHOWN)][:SHOWN]
    answers = predict(run.path, images, out=run.path / "predictions", device=device, progress=progress)
    if found := [image for image, answer in zip(images, answers, strict=True) if len(answer.labels)]:
        explain(run.path, found, device=device, progress=progress)
    exported, file = _exported(run, progress)
    again = predict(file, images, out=run.path / "predictions-onnx", progress=progress)
    lines = (
        *_told(told, data, run, evaluation),
        *(f"predicted {Path(r.source).relative_to(data)}: {r.summary}" for r in answers),
        f"exported  {file}: {_proof(exported.facts)}",
        f"          the exported file's own answers: {', '.join(r.summary for r in again)}",
        f"explained {run.path / 'explanations'}",
        *(f"{what:<9} {path}" for what, path in (("model", run.model), ("report", run.report))),
        "",
        f"Your own {OWN[task]}:",
        "    saccade train path/to/photos",
    )
    return Run(run.path, {**run.record, "metrics": dict(evaluation.metrics)}, lines, exported)


def _exported(run: Run, progress: Progress) -> tuple[Export, Path]:
    """The export to ONNX and its file."""
    from saccade.api.exporting import export

    exported = export(run.path, to="onnx", progress=progress)
    if exported.file is None:
        failed = next(check["message"] for check in exported.facts["checks"] if not check["passed"])
        raise RuntimeError(f"the export of the quickstart does not answer as its model does: {failed}")
    return exported, exported.file


def _told(what: str, data: Path, run: Run, evaluation: Evaluation) -> tuple[str, ...]:
    """What was there, what was trained and how good it is, a line each."""
    name = next(iter(evaluation.metrics))
    low, high = evaluation.intervals[name]
    measured = f"{name} {evaluation.metrics[name] or 0.0:.4f}"
    return (
        f"data      {what}: {data}",
        f"trained   {run.config.model}, {run.record['steps']} steps",
        f"measured  {measured} (95 % interval {low:.4f} to {high:.4f}) on {evaluation.images} images held out",
    )


def _proof(facts: Mapping[str, Any]) -> str:
    """The certificate in a line."""
    name, value = next(iter(facts["metrics"]["exported"].items()))
    same = f"{100 * facts['agreement']:.1f} % of {facts['images']} answers are the same"
    return f"{facts['verdict']}, {same}, validation {name} {value:.4f}, {facts['latency_ms']['exported']:.2f} ms an image"


def _place(folder: Path) -> Path:
    if (folder / "run").exists():
        raise UserError("holds a quickstart already", where=str(folder), fix="give another --out")
    return folder
