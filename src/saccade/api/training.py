"""`train`: data, recipe, loop and report put together; nothing is written before everything has been checked."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from saccade import __version__
from saccade.api.planning import plan, read_config
from saccade.api.runs import Run, load_run
from saccade.api.sets import Split, as_the_model_sees, check_trainable, read_split
from saccade.core import config as configs
from saccade.core import keys, modelfile
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted, UserError
from saccade.core.progress import Progress, Silent, automatic
from saccade.core.rundir import RunDir
from saccade.data.cache import BadFile
from saccade.data.opening import Dataset, open_dataset
from saccade.task import Task
from saccade.tasks import room

if TYPE_CHECKING:
    from torch import nn

    from saccade.data.loader import Loader
    from saccade.training.budget import Resolved
    from saccade.training.loop import State


def train(  # the verb's options, by name
    data: str | Path | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    size: tuple[int, int] | str | int | None = None,
    batch: int | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    config: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    workers: int | None = None,
    skip_bad: bool = False,
    images: bool = True,
    device: str = "auto",
    precision: str = "auto",
    seed: int | None = None,
    progress: Progress | None = None,
    started: float | None = None,
) -> Run:
    """Train a model on a folder of images and keep the best; see `saccade train --help`.

    `set` maps dotted keys of TrainConfig to values; `started` is the monotonic time that `minutes` counts from.
    Raises UserError for whatever is wrong with the request or the data, Interrupted (state saved) after a signal.
    """
    started = time.monotonic() if started is None else started
    progress = progress or automatic()
    flags = {"pretrained": pretrained, "skip_bad": skip_bad}
    values = {"task": task, "model": model, "epochs": epochs, "minutes": minutes, "size": _size(size), "seed": seed}
    values |= {
        "batch": None if batch == "auto" else batch,
        "weights": str(Path(weights).absolute()) if weights else None,
        "workers": workers,
    }
    values |= {"device": None if device == "auto" else device, "precision": None if precision == "auto" else precision}
    values |= {name: True for name, on in flags.items() if on} | ({} if images else {"images": False})
    asked = {name: value for name, value in values.items() if value is not None} | dict(set or {})
    if resume:
        return _resume(out, data, config, asked, progress, started)
    base = read_config(config) if config is not None else None
    if data is None and not (base and base.data):
        raise UserError("DATA is missing", where="train", fix="give the folder of images: saccade train photos/")
    dataset = open_dataset(data if data is not None else str(base and base.data))
    check_trainable(dataset)
    return _train(dataset, asked, base, Path(out) if out is not None else None, progress, started)


def _train(
    dataset: Dataset, asked: Mapping[str, Any], base: TrainConfig | None, out: Path | None, progress: Progress, started: float
) -> Run:
    from saccade.training import precision

    on = precision.device(str(asked.get("device", base.device if base else "auto")))
    config, reasons = plan(dataset, asked, base, on.type)
    _check_writable(out)
    for line in reasons:
        progress.message(line)
    setup = _Setup.make(dataset, config, progress)
    model, card = setup.fresh_model()
    resolved = setup.resolve(model, card, started)
    run = RunDir.at(out, resume=False) if out is not None else RunDir.create(Path("runs"), dataset.root.name)
    with run.lock():
        record = _record(setup, resolved, reasons)
        run.write_run(record)
        return _fit(setup, run, model, card, resolved, started=started, before=0.0)


def _resume(
    out: str | Path | None, data: str | Path | None, config: str | Path | None, asked: Mapping[str, Any], progress: Progress, started: float
) -> Run:
    """Go on with a run as it was configured; `device` and `workers` alone may differ."""
    from saccade.training.budget import Resolved

    if out is None:
        raise UserError("--resume needs the run's folder", where="train", fix="saccade train --resume --out RUN")
    other = [name for name in asked if name not in ("device", "workers")] + (["config"] if config is not None else [])
    if other:
        raise UserError(
            f"--resume goes on with the run as it was configured and takes no {other[0]}",
            where="train",
            fix="only --device and --workers may change",
        )
    run = RunDir.at(Path(out), resume=True)
    with run.lock():
        record = run.read_run()
        settings = configs.from_dict(record["config"], where=str(run.run_file))
        dataset = open_dataset(data if data is not None else settings.data)
        if dataset.fingerprint() != record["data"]["fingerprint"]:
            raise UserError(
                "the images are no longer those that the run was trained on",
                where=str(dataset.root),
                fix="bring them back, or start a new run",
            )
        settings = configs.override(replace(settings, data=str(dataset.root)), asked)
        setup = _Setup.make(dataset, settings, progress)
        model, card = setup.fresh_model()
        resolved = setup.taken_up(Resolved(**record["resolved"]))
        run.update_run({"state": "running"})
        return _fit(setup, run, model, card, resolved, started=started, before=record["time"].get("seconds") or 0.0, resume=True)


@dataclass(frozen=True)
class _Setup:
    """Data and configuration, ready for the loop."""

    task: Task
    config: TrainConfig
    dataset: Dataset
    train: Split
    val: Split
    bad: list[BadFile]
    progress: Progress

    @classmethod
    def make(cls, dataset: Dataset, config: TrainConfig, progress: Progress) -> _Setup:
        """Read every image once; raises UserError that names all that cannot be read."""
        from saccade.core.card import InputSpec

        task = room(config.task)
        dataset = replace(dataset, schema=replace(dataset.schema, channels=config.channels))
        readers = config.workers or os.cpu_count() or 1
        kept = task.augment(config).preparation
        seen = as_the_model_sees(InputSpec(config.channels, config.size))
        failures: list[BadFile] = []
        splits = {}
        for name, preparation in (("train", kept), ("val", seen)):
            splits[name], bad = read_split(dataset, name, preparation, skip_bad=True, progress=progress, workers=readers)
            failures += bad
        if failures and not config.skip_bad:
            from saccade.api.sets import refusal

            raise refusal(dataset, failures)
        return cls(task, config, dataset, splits["train"], splits["val"], failures, progress)

    def fresh_model(self) -> tuple[nn.Module, Card]:
        """The network with its first weights, keyed by the seed, on its device."""
        import torch

        from saccade.training import precision

        torch.manual_seed(keys.derive(self.config.seed, "init", 0))
        model, card = self.task.create(self.config, self.dataset.schema)
        card = replace(card, version=__version__)
        if self.config.weights:
            card = self._start_from(Path(self.config.weights), model, card)
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return model.to(precision.device(self.config.device)).to(memory_format=layout), card

    def _start_from(self, file: Path, model: nn.Module, card: Card) -> Card:
        """Take the weights of a model file where name and shape agree; the card carries the file's licences on."""
        from saccade.nn import weights

        buffers, theirs = modelfile.load(file)
        report = weights.load_matching(model, buffers)
        if not report.loaded:
            raise UserError(
                "none of its weights fit this model", where=str(file), fix=f"it is a {theirs.architecture.get('name')}: give --model"
            )
        self.progress.message(f"took {report.loaded} of {len(buffers)} tensors from {file}")
        return replace(card, licenses=theirs.licenses)

    def loader(self, workers: int) -> Loader:
        """The stream of training batches."""
        from saccade.data.loader import Loader, Source

        source = Source(self.train.store, self.train.targets, self.train.names)
        config = self.config
        return Loader(
            source, self.task.augment(config), seed=config.seed, batch=config.batch, micro_batch=config.micro_batch, workers=workers
        )

    def evaluator(self, card: Card, resolved: Resolved) -> Callable[[nn.Module], Any]:
        """Measures a module on the validation images, without the bootstrap."""
        from saccade.evaluation.evaluate import measure
        from saccade.prediction.torch_session import TorchSession

        def evaluate(module: nn.Module) -> Any:
            session = TorchSession(module, card, self.task.decode, device=resolved.device, precision=resolved.precision)
            metric = self.task.metrics(card)
            measure(session, self.val.batches(), metric, progress=Silent())
            return SimpleNamespace(metrics=metric.compute())

        return evaluate

    def resolve(self, model: nn.Module, card: Card, started: float) -> Resolved:
        """Measure what has to be measured, once."""
        import torch

        from saccade.training import budget, precision

        config = self.config
        on = precision.device(config.device)
        workers = config.workers if config.workers is not None else default_workers(on.type)
        per_epoch = budget.steps_per_epoch(len(self.train), config.batch)
        first = budget.Resolved(
            str(on), precision.resolve(config.precision, on), torch.get_num_threads(), workers, per_epoch, per_epoch, per_epoch
        )
        if config.minutes is None:
            total, seconds = max(1, round(config.epochs * per_epoch)), 0.0
        else:
            seconds, evaluation = self._measure(model, card, first)
            total = budget.steps_in(config.minutes * 60 - (time.monotonic() - started), seconds, evaluation, per_epoch)
            if config.epochs:
                total = min(total, max(1, round(config.epochs * per_epoch)))
            self.progress.message(f"{total} steps ({total / per_epoch:.1f} epochs) fit into {config.minutes:g} minutes")
        every = budget.evaluate_every(total, per_epoch, len(self.train), len(self.val))
        return replace(first, total_steps=total, evaluate_every=every, seconds_per_step=seconds)

    def _measure(self, model: nn.Module, card: Card, resolved: Resolved) -> tuple[float, float]:
        """Seconds of a training step and of an evaluation, on a copy of the model."""
        import torch

        from saccade.training import budget
        from saccade.training.step import Updater

        self.progress.message("measuring the speed of a few steps")
        on = torch.device(resolved.device)
        copy = budget.copy_of(model)
        updater = Updater(copy, self.task.phases(copy, self.config), self.config, on, resolved.precision)
        stream = self.loader(resolved.workers).stream(0)

        def step(number: int) -> None:
            batches = [batch.to(on, channels_last=self.config.channels_last) for batch in next(stream)]
            updater.step(batches, number, 0.0)

        seconds = budget.measure_step(step)
        stream.close()
        begin = time.perf_counter()
        self.evaluator(card, resolved)(copy)
        return seconds, time.perf_counter() - begin

    def taken_up(self, resolved: Resolved) -> Resolved:
        """The recorded facts on this machine: its device and workers may differ, its threads are set as they were."""
        import torch

        from saccade.training import precision

        torch.set_num_threads(resolved.threads)
        on = precision.device(self.config.device if self.config.device != "auto" else resolved.device)
        workers = self.config.workers if self.config.workers is not None else resolved.workers
        return replace(resolved, device=str(on), workers=workers)


def _fit(
    setup: _Setup, run: RunDir, model: nn.Module, card: Card, resolved: Resolved, *, started: float, before: float, resume: bool = False
) -> Run:
    from saccade.training.loop import Job, Trainer

    config = setup.config
    deadline = None if config.minutes is None else started + config.minutes * 60 * (1 - 0.02) - 8
    job = Job(
        setup.task,
        model,
        card,
        config,
        resolved,
        setup.loader(resolved.workers),
        run,
        setup.evaluator(card, resolved),
        setup.progress,
        deadline,
    )
    trainer = Trainer(job)
    begin = time.monotonic()
    first = 0
    try:
        if resume:
            trainer.resume()
            first = trainer.state.step
            begin = time.monotonic()
        state = trainer.fit()
    except BaseException as error:
        ended = {"state": "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed", "steps": trainer.state.step}
        run.update_run({**ended, "time": _times(run, before + time.monotonic() - started)})
        raise
    speed = (state.step - first) * config.batch / max(time.monotonic() - begin, 1e-9)
    _conclude(setup, run, state, resolved)
    done = {"state": "done", "steps": state.step, "best_step": state.best_step, "metrics": state.best_metrics}
    run.update_run({**done, "time": _times(run, before + time.monotonic() - started, speed)})
    setup.progress.message(f"done: {run.path}")
    return load_run(run.path)


def _conclude(setup: _Setup, run: RunDir, state: State, resolved: Resolved) -> None:
    """Measure the best model once more with intervals, keep its answers, write the report."""
    from saccade.api.models import load
    from saccade.api.reporting import write_report
    from saccade.evaluation.evaluate import evaluate

    run.update_run({"steps": state.step, "metrics": state.best_metrics})
    model = load(run.best, device=resolved.device)
    metric = setup.task.metrics(model.card)
    session = model.session(resolved.precision)
    evaluation = evaluate(
        session, setup.val.batches(), metric, progress=Silent(), split="val", seed=setup.config.seed, total=len(setup.val)
    )
    write_report(run, model, evaluation, progress=setup.progress)


def _record(setup: _Setup, resolved: Resolved, reasons: Any) -> dict[str, Any]:
    """What run.json holds from the first step on."""
    import numpy
    import torch
    import torchvision

    dataset = setup.dataset
    return {
        "saccade": __version__,
        "state": "running",
        "command": " ".join(map(shlex.quote, ["saccade", *sys.argv[1:]])),
        "config": setup.config.to_dict(),
        "resolved": resolved.to_dict(),
        "reasons": list(reasons),
        "data": {
            "path": str(dataset.root),
            "format": dataset.format,
            "fingerprint": dataset.fingerprint(),
            "classes": list(dataset.schema.classes),
            "counts": {name: list(counts) for name, counts in dataset.schema.counts.items()},
            "ignored": dataset.ignored,
            "bad": [asdict(file) for file in setup.bad],
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
        },
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "time": {"started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
    }


def _times(run: RunDir, seconds: float, speed: float | None = None) -> dict[str, Any]:
    ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**run.read_run().get("time", {}), "seconds": seconds, "ended": ended, "images_per_second": speed}


def default_workers(device: str) -> int:
    """Threads that prepare batches: none on a processor, where they would fight for its cores; up to eight beside a GPU."""
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)


def _size(size: tuple[int, int] | str | int | None) -> tuple[int, int] | None:
    return configs.parse_size(str(size)) if isinstance(size, str | int) else size


def _check_writable(out: Path | None) -> None:
    """Refuse a place that cannot be written before any image is read."""
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise UserError("the run folder is not empty", where=str(out), fix="give another --out, or go on with the run in it by --resume")
    place = out if out is not None else Path("runs")
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.exists() and not os.access(place, os.W_OK | os.X_OK):
        raise UserError("may not be written", where=str(place), fix="give another --out, or check its permissions")
