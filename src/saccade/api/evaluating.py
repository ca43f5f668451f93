"""`eval`: the task's figures on labelled images, with intervals, per class, and every answer kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saccade.api.sets import as_the_model_sees, read_split, relabelled
from saccade.core.errors import UserError
from saccade.core.progress import Progress, automatic
from saccade.core.rundir import RunDir
from saccade.data.opening import Dataset, open_dataset
from saccade.evaluation import predictions
from saccade.evaluation.evaluate import evaluate
from saccade.evaluation.result import Evaluation
from saccade.tasks import room

if TYPE_CHECKING:
    from saccade.api.models import Model


def eval(
    target: str | Path,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a run's best model or a model file. A run knows its data; test is taken where there is one, else validation.

    For a run the answers are written to predictions/<split>.jsonl and its report shows them.
    """
    from saccade.api.models import load
    from saccade.api.reporting import write_report

    progress = progress or automatic()
    model = load(target, device=device)
    run = RunDir(Path(target)) if Path(target).is_dir() else None
    own = run.read_run()["config"]["data"] if run is not None else None
    if data is None and own is None:
        raise UserError("a model file does not know its data", where=str(target), fix="give DATA: saccade eval MODEL DATA")
    evaluation = evaluate_model(
        model, data if data is not None else str(own), split=split, precision=precision, seed=seed, progress=progress
    )
    if run is not None and data is None:
        write_report(run, model, evaluation, progress=progress)
    return evaluation


def evaluate_model(
    model: Model, data: str | Path, *, split: str | None = None, precision: str = "auto", seed: int = 0, progress: Progress | None = None
) -> Evaluation:
    """The same for an opened model."""
    progress = progress or automatic()
    dataset = relabelled(open_dataset(data), model.card.classes)
    name = split or default_split(dataset)
    images, _ = read_split(dataset, name, as_the_model_sees(model.card.input), skip_bad=False, progress=progress, workers=2)
    metric = room(model.card.task).metrics(model.card)
    return evaluate(model.session(precision), images.batches(), metric, progress=progress, split=name, seed=seed, total=len(images))


def eval_predictions(
    file: str | Path, data: str | Path, *, split: str | None = None, seed: int = 0, progress: Progress | None = None
) -> Evaluation:
    """Score anybody's predictions: a JSONL file of {"source", "label" or "scores"} against the labels of a data set."""
    from saccade.core.card import Card, InputSpec

    dataset = open_dataset(data)
    name = split or default_split(dataset)
    truths = {dataset.paths[i]: int(dataset.targets[i]) for i in dataset.split(name)}
    card = Card(dataset.schema.task, dataset.schema.classes, {}, InputSpec(3, (1, 1)))
    rows = predictions.read_predictions(Path(file))
    return predictions.score(rows, truths, room(card.task).metrics(card), split=name, seed=seed, where=str(file))


def default_split(dataset: Dataset) -> str:
    """test where there is one, else val, else the only one."""
    return next((name for name in ("test", "val") if name in dataset.splits), next(iter(dataset.splits)))
