"""`eval`: the task's figures on labelled images, with intervals, per class, and every answer kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saccade.api.exiting import measured
from saccade.api.runs import read_record
from saccade.api.sets import Split, as_the_model_sees, read_split, relabelled
from saccade.core import config as configs
from saccade.core.card import InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.layers import layered
from saccade.core.progress import Progress, automatic
from saccade.core.results import OBJECTS, WITHIN
from saccade.core.rundir import RunDir
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.evaluation import answers, predictions
from saccade.evaluation.evaluate import evaluate, summarise
from saccade.evaluation.result import Evaluation
from saccade.objects.metrics import ObjectsMetric
from saccade.prediction import views
from saccade.prediction.pipeline import Failed
from saccade.prediction.sources import Source
from saccade.prediction.views import NO_LOOKS, Looks
from saccade.task import Metric
from saccade.tasks import MAKING, making, room

Lpips = Literal["alex", "vgg"]
CHANGED = "the images have changed since this run was trained: what is measured on may hold what it learned from"

if TYPE_CHECKING:
    from saccade.api.judging import Features
    from saccade.api.models import Model, Predictor


def eval(
    target: str | Path,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    nms: str | None = None,
    tile: int = 0,
    tta: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    features: str | Path | None = None,
    lpips: Lpips | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a run's best model, a model file or an exported file. A run knows its data; test is taken where there is one,
    else validation.

    For a run the answers are written to predictions/<split>.jsonl and its report shows them, but where nms, tile or tta (see `predict`) say
    that it is asked otherwise than it is by itself. features: what a model that makes images is
    measured on: "inception", as published figures are, a classifier's model file, or a model of timm with its published weights; a run has
    its own. lpips: reconstructions are compared by that too, on this network. max_pixels: of an image or mask.
    """
    from saccade.api.models import Model, load

    progress = progress or automatic()
    model, looks = load(target, device=device).by_way(nms), Looks(tile, tta)
    if data is not None:
        return evaluate_model(
            model,
            data,
            split=split,
            looks=looks,
            precision=precision,
            seed=seed,
            asked=Asked(features, lpips),
            max_pixels=max_pixels,
            progress=progress,
        )
    run = RunDir(Path(target))
    if not (isinstance(model, Model) and run.run_file.is_file()):
        raise UserError("a model file does not know its data", where=str(target), fix="give DATA: saccade eval MODEL DATA")
    if model.card.task in MAKING:
        return _evaluate_making_run(run, model, split, seed, Asked(features, lpips), progress)
    Asked(features, lpips).refuse(model.card.task)
    if nms is None and not looks:
        return _evaluate_run(run, model, split, precision, seed, max_pixels, progress)
    config = read_record(run)["config"]
    dataset = open_dataset(str(config.get("data", "")), task=model.card.task, max_pixels=max_pixels)
    return _measure(model, dataset, split, precision, seed, progress, skip_bad=bool(config.get("skip_bad")), looks=looks)


def _evaluate_run(  # more than six arguments: those of `eval`
    run: RunDir, model: Model, split: str | None, precision: str, seed: int, max_pixels: int, progress: Progress
) -> Evaluation:
    """On the run's own data, what training left out left out again; kept in the run."""
    from saccade.api.reporting import write_report

    record = read_record(run)
    dataset = open_dataset(str(record["config"].get("data", "")), task=record["config"].get("task"), max_pixels=max_pixels)
    if dataset.fingerprint() != record["data"].get("fingerprint"):
        progress.message(CHANGED)
    skip_bad = bool(record["config"].get("skip_bad"))
    evaluation = _measure(model, dataset, split, precision, seed, progress, skip_bad=skip_bad, looks=Looks())
    if evaluation.split == "train":  # figures on what was learned are not what a report is for
        predictions.write_predictions(run.predictions, evaluation)
    else:
        write_report(run, model, evaluation, progress=progress)
    return evaluation


@dataclass(frozen=True)
class Asked:
    """How a model that makes images is measured otherwise than on its own features: see `eval`."""

    features: str | Path | None = None
    lpips: Lpips | None = None

    def refuse(self, task: str) -> None:
        """Raise UserError where any of it is asked of a model that makes no images."""
        for name, value in (("--features", self.features), ("--lpips", self.lpips)):
            if value is not None:
                raise UserError(f"is for models that make images, this one was trained to {task}", where=name, fix="leave it out")

    def further(self, on: Features, model: Model) -> Features:
        """The features, with what reconstructions are compared by beside them."""
        from saccade.api import judging

        return judging.with_lpips(on, self.lpips, making(model.card.task), model.module, model.card) if self.lpips else on


def _evaluate_making_run(run: RunDir, model: Model, split: str | None, seed: int, asked: Asked, progress: Progress) -> Evaluation:
    """Against the images of one of the run's splits, on the run's own features or on others; kept in the run's report."""
    from saccade.api import judging
    from saccade.api.displaying import conclude, pictures
    from saccade.api.reporting import write_report

    images = RunImages.of(run, progress)
    name = split or default_split(images.dataset)
    train = images.split("train")
    on = judging.named(str(asked.features), model.device) if asked.features else images.features(train, model.device)
    on = asked.further(on, model)
    held = train if name == "train" else images.split(name)
    task = making(model.card.task)
    evaluation, looked = conclude(task, model.module, model.card, on, (name, held), seed)
    if name != "train":
        shown = list(pictures(task, model.module, on, looked, (train, held), run))
        write_report(run, model, evaluation, progress=progress, figures=shown)
    return evaluation


@dataclass(frozen=True)
class RunImages:
    """The images of a run that makes more of them, as its model sees them."""

    run: RunDir
    config: TrainConfig
    dataset: Dataset
    progress: Progress

    @classmethod
    def of(cls, run: RunDir, progress: Progress) -> RunImages:
        """Opens the run's data; says where they are no longer those that it was trained on."""
        record = read_record(run)
        config = configs.from_dict(record["config"], where=str(run.run_file))
        dataset = open_dataset(config.data, task=config.task)
        if dataset.fingerprint() != record["data"].get("fingerprint"):
            progress.message(CHANGED)
        dataset = replace(dataset, schema=replace(dataset.schema, channels=config.channels))
        return cls(run, config, dataset, progress)

    def split(self, name: str) -> Split:
        """The images of one split, what training left out left out again."""
        seen = as_the_model_sees(InputSpec(self.config.channels, self.config.size))
        return read_split(self.dataset, name, seen, skip_bad=self.config.skip_bad, progress=self.progress, workers=2)[0]

    def features(self, train: Split, device: str) -> Features:
        """What the run compares made images on."""
        from saccade.api import judging

        return judging.features(self.config, self.dataset.schema, train, device, self.run.features, self.progress)


AS_IT_IS = Asked()


def evaluate_model(
    model: Predictor,
    data: str | Path,
    *,
    split: str | None = None,
    looks: Looks = NO_LOOKS,
    precision: str = "auto",
    seed: int = 0,
    asked: Asked = AS_IT_IS,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Evaluation:
    """The same for an opened model."""
    if model.card.task in MAKING:
        return _measure_making(model, data, split, seed, progress or automatic(), asked)
    asked.refuse(model.card.task)
    dataset = open_dataset(data, task=model.card.task, max_pixels=max_pixels)
    return _measure(model, dataset, split, precision, seed, progress or automatic(), looks=looks)


def _measure_making(model: Predictor, data: str | Path, split: str | None, seed: int, progress: Progress, asked: Asked) -> Evaluation:
    from saccade.api import judging
    from saccade.api.displaying import conclude
    from saccade.api.models import Model

    if not isinstance(model, Model):
        raise UserError("an exported file makes no images so far", where=str(model.path))
    beside = model.path.parent / "features.safetensors"
    if asked.features is None and not beside.is_file():
        fix = "--features RUN/features.safetensors, or those of published figures: --features inception"
        raise UserError("what made images are compared on is not known", where="--features", fix=fix)
    on = judging.named(str(asked.features or beside), model.device)
    if asked.features is None:
        on = replace(on, name=str(model.card.architecture.get("features")))
    dataset = open_dataset(data, task=model.card.task)
    dataset = replace(dataset, schema=replace(dataset.schema, channels=model.card.input.channels))
    on, task = asked.further(on, model), making(model.card.task)
    if len(dataset.targets):
        dataset = relabelled(dataset, model.card.classes)
    elif len(task.frequencies(model.module)):
        raise UserError("its images have no classes, and this model makes images by class", where=str(dataset.root))
    name = split or default_split(dataset)
    images, _ = read_split(dataset, name, as_the_model_sees(model.card.input), skip_bad=False, progress=progress, workers=2)
    return conclude(task, model.module, model.card, on, (name, images), seed)[0]


def _measure(
    model: Predictor,
    dataset: Dataset,
    split: str | None,
    precision: str,
    seed: int,
    progress: Progress,
    *,
    skip_bad: bool = False,
    looks: Looks = NO_LOOKS,
) -> Evaluation:
    dataset = relabelled(dataset, model.card.classes)
    if dataset.schema.multi != layered(model.card) and dataset.schema.task == "segment":
        said = "overlap, those of the model do not" if dataset.schema.multi else "do not overlap, those of the model do"
        raise UserError(f"the classes of its pixels {said}", where=str(dataset.root))
    name = split or default_split(dataset)
    looks.check(model.card)
    if looks and model.card.task in OBJECTS:
        return _measure_looking(model, dataset, name, looks, precision, seed, progress, skip_bad=skip_bad)
    images, bad = read_split(dataset, name, as_the_model_sees(model.card.input), skip_bad=skip_bad, progress=progress, workers=2)
    if bad:
        progress.message(f"left out {len(bad)} images of {name} that cannot be read")
    metric = _metric(model, dataset)
    session = views.asked(model.session(precision), looks)
    found = evaluate(session, images.batches(session.batch), metric, progress=progress, split=name, seed=seed, total=len(images))
    return measured(model, found)


def _metric(model: Predictor, dataset: Dataset) -> Metric:
    """The room's; of objects also by how many training images each class is in."""
    metric = room(model.card.task).metrics(model.card)
    if isinstance(metric, ObjectsMetric):
        metric.by_frequency(dataset.seen("train"))
    return metric


def _measure_looking(  # as `_measure`
    model: Predictor,
    dataset: Dataset,
    name: str,
    looks: Looks,
    precision: str,
    seed: int,
    progress: Progress,
    *,
    skip_bad: bool,
) -> Evaluation:
    """Of images each looked at several times, which takes their own pixels: as `predict` reads them."""
    from saccade.api import predicting

    began = time.perf_counter()
    metric, rows, places = _metric(model, dataset), [], dataset.split(name).tolist()
    sources = (_source(dataset, dataset.paths[place]) for place in places)
    answers = predicting.answered(
        lambda streams: model.session(precision, streams=streams),
        sources,
        max_pixels=dataset.tree.max_pixels,
        alone=views.alone(looks, model.card, complete=True),
    )
    progress.start(f"evaluate {name}", len(places), "images")
    try:
        for result, truth in _with_truths(dataset, zip(places, answers, strict=True), progress, skip_bad=skip_bad):
            metric.update([result], [truth])
            rows.append(metric.row(result, truth))
            progress.advance()
    finally:
        progress.finish()
    if not rows:
        raise UserError(f"none of the {len(places)} images of {name} can be read", where=str(dataset.root))
    return summarise(metric, rows, task=model.card.task, split=name, seconds=time.perf_counter() - began, seed=seed)


def _with_truths(dataset: Dataset, answers: Iterable[tuple[int, Any]], progress: Progress, *, skip_bad: bool) -> Iterator[tuple[Any, Any]]:
    """Answers, each with the place of its image, as answers with their truths; with `skip_bad` without those of which either cannot be
    read."""
    for place, result in answers:
        try:
            if isinstance(result, Failed):
                raise UserError(result.reason, where=result.source)
            truth = dataset.target(place, result.size)
        except UserError as error:
            if not skip_bad:
                raise
            progress.message(str(error))
        else:
            yield result, truth


def _source(dataset: Dataset, path: str) -> Source:
    """An image of a data set, to be read; one that its archive does not give bears the reason."""
    try:
        return Source(dataset.tree.image(path), path)
    except UserError as error:
        return Source(None, path, fault=error)


def eval_predictions(
    file: str | Path, data: str | Path, *, split: str | None = None, seed: int = 0, progress: Progress | None = None
) -> Evaluation:
    """Score anybody's predictions against the labels of a data set: a file of JSON lines, {"source", "label" or "scores"}, or, where the
    truth lies within the images, the fields of their results (boxes, labels, scores, masks); what `predict` and `eval` write is such a
    file."""
    from saccade.core.card import Card, InputSpec

    rows = answers.read(Path(file))
    dataset = open_dataset(data, task=answers.task_of(rows))
    name = split or default_split(dataset)
    architecture = {"multi": True} if dataset.schema.multi and dataset.schema.task == "segment" else {}
    card = Card(dataset.schema.task, dataset.schema.classes, architecture, InputSpec(3, (1, 1)), stuff=dataset.schema.stuff)
    metric = room(card.task).metrics(card)
    if card.task in WITHIN:
        return answers.score(rows, dataset, name, metric, seed=seed, where=str(file))
    if dataset.schema.task != "classify" or dataset.annotations.multi:
        raise UserError(
            "predictions can be scored for sets with one label an image so far", where=str(data), fix="measure a model: eval MODEL DATA"
        )
    truths = {dataset.paths[i]: int(dataset.targets[i]) for i in dataset.split(name)}
    return predictions.score(predictions.read_predictions(Path(file)), truths, metric, split=name, seed=seed, where=str(file))


def default_split(dataset: Dataset) -> str:
    """test where there is one, else val, else what there is (a folder with an image a class has nothing to hold out)."""
    return next((name for name in ("test", "val") if len(dataset.splits.get(name, ()))), next(iter(dataset.splits)))
