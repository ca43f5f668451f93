"""`train`: data, recipe, loop and report put together; nothing is written before everything has been checked."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import __version__
from saccade.api.planning import command, plan, settle
from saccade.api.runs import Run, load_run, read_record
from saccade.api.sets import check_trainable
from saccade.api.setup import Setup
from saccade.core import config as configs
from saccade.core.card import Card
from saccade.core.errors import Interrupted, UserError
from saccade.core.progress import Progress, Silent, automatic
from saccade.core.rundir import RunDir
from saccade.data.opening import Dataset, open_dataset

if TYPE_CHECKING:
    from torch import nn

    from saccade.training.budget import Resolved
    from saccade.training.loop import State, Trainer


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
    on_nan: str | None = None,
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
        "on_nan": on_nan,
    }
    values |= {"device": None if device == "auto" else device, "precision": None if precision == "auto" else precision}
    values |= {name: True for name, on in flags.items() if on} | ({} if images else {"images": False})
    asked = {name: value for name, value in values.items() if value is not None} | dict(set or {})
    if resume:
        return _resume(out, data, config, asked, progress, started)
    settled = settle(config, asked)
    data = data if data is not None else settled.get("data")
    if not data:
        raise UserError("DATA is missing", where="train", fix="give the folder of images: saccade train photos/")
    place = Path(out) if out is not None else None
    _check_writable(place)
    dataset = open_dataset(data)
    check_trainable(dataset)
    asked.pop("data", None)
    return _train(dataset, settled, command(dataset, config, asked), place, progress, started)


def _train(dataset: Dataset, settled: Mapping[str, Any], line: str, out: Path | None, progress: Progress, started: float) -> Run:
    from saccade.training import precision

    on = precision.device(str(settled.get("device", "auto")))
    config, reasons = plan(dataset, settled, on.type)
    for reason in reasons:
        progress.message(reason)
    setup = Setup.make(dataset, config, progress)
    model, card = setup.fresh_model()
    resolved = setup.resolve(model, card, started)
    run = RunDir.at(out, resume=False) if out is not None else RunDir.create(Path("runs"), dataset.root.name)
    with run.lock():
        run.write_run(_record(setup, resolved, reasons, line))
        return _fit(setup, run, model, card, resolved, started=started, before=0.0)


def _resume(
    out: str | Path | None, data: str | Path | None, config: str | Path | None, asked: Mapping[str, Any], progress: Progress, started: float
) -> Run:
    """Go on with a run as it was configured; `device`, `workers` and what is done about numbers that are none may differ."""
    if out is None:
        raise UserError("--resume needs the run's folder", where="train", fix="saccade train --resume --out RUN")
    other = [name for name in asked if name not in ("device", "workers", "on_nan")] + (["config"] if config is not None else [])
    if other:
        raise UserError(
            f"--resume goes on with the run as it was configured and takes no {other[0]}",
            where="train",
            fix="only --device, --workers and --on-nan may change",
        )
    run = RunDir.at(Path(out), resume=True)
    with run.lock():
        record = read_record(run)
        settings = configs.from_dict(record["config"], where=str(run.run_file))
        dataset = open_dataset(data if data is not None else settings.data)
        if dataset.fingerprint() != record["data"]["fingerprint"]:
            raise UserError(
                "the images are no longer those that the run was trained on",
                where=str(dataset.root),
                fix="bring them back, or start a new run",
            )
        settings = configs.override(replace(settings, data=str(dataset.root)), asked)
        setup = Setup.make(dataset, settings, progress)
        model, card = setup.fresh_model()
        resolved = setup.taken_up(_resolved(record, run))
        # A step that was left out is met again by whoever resumes from before it: then too it must be left out.
        run.update_run({"state": "running", "config": {**record["config"], "on_nan": settings.on_nan}})
        return _fit(setup, run, model, card, resolved, started=started, before=record["time"].get("seconds") or 0.0, resume=True)


def _fit(
    setup: Setup, run: RunDir, model: nn.Module, card: Card, resolved: Resolved, *, started: float, before: float, resume: bool = False
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
    try:
        if resume:
            _take_up(trainer, run, setup.progress)
        first, begin = trainer.state.step, time.monotonic()
        state = trainer.fit()
        speed = (state.step - first) * config.batch / max(time.monotonic() - begin, 1e-9)
        _conclude(setup, run, state, resolved)
    except BaseException as error:
        ended = {"state": "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed", "steps": trainer.state.step}
        run.update_run({**ended, "time": _times(run, before + time.monotonic() - started)})
        raise
    done = {"state": "done", "steps": state.step, "best_step": state.best_step, "metrics": state.best_metrics}
    run.update_run({**done, "time": _times(run, before + time.monotonic() - started, speed)})
    setup.progress.message(f"done: {run.path}")
    return load_run(run.path)


def _take_up(trainer: Trainer, run: RunDir, progress: Progress) -> None:
    """Go on from the newest checkpoint. A run stopped before its first one starts again: by law 1 that is the same run."""
    if any(run.checkpoints.glob("*step-*")):
        trainer.resume()
        return
    progress.message("no checkpoint yet: starting from step 0")
    run.truncate_metrics(0)
    trainer.planned = next((event for event in run.events() if event.get("event") == "shorten"), None)


def _resolved(record: Mapping[str, Any], run: RunDir) -> Resolved:
    from saccade.training.budget import Resolved

    try:
        return Resolved(**record["resolved"])
    except TypeError as error:
        raise UserError(f"resolved is not that of this version of saccade: {error}", where=str(run.run_file)) from None


def _conclude(setup: Setup, run: RunDir, state: State, resolved: Resolved) -> None:
    """Measure the best model once more with intervals, keep its answers, write the report."""
    from saccade.api.models import load_model
    from saccade.api.reporting import write_report
    from saccade.evaluation.evaluate import evaluate

    run.update_run({"steps": state.step, "metrics": state.best_metrics})
    model = load_model(run.best, device=resolved.device)
    metric = setup.task.metrics(model.card)
    session = model.session(resolved.precision)
    evaluation = evaluate(
        session, setup.val.batches(session.batch), metric, progress=Silent(), split="val", seed=setup.config.seed, total=len(setup.val)
    )
    write_report(run, model, evaluation, progress=setup.progress)


def _record(setup: Setup, resolved: Resolved, reasons: Any, line: str) -> dict[str, Any]:
    """What run.json holds from the first step on."""
    import numpy
    import torch
    import torchvision

    dataset = setup.dataset
    return {
        "saccade": __version__,
        "state": "running",
        "command": line,
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


def _size(size: tuple[int, int] | str | int | None) -> tuple[int, int] | None:
    return configs.parse_size(str(size)) if isinstance(size, str | int) else size


def _check_writable(out: Path | None) -> None:
    """Refuse a place that cannot be written before any image is read."""
    if out is not None:
        RunDir(out).check_free()
    place = out if out is not None else Path("runs")
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.exists() and not os.access(place, os.W_OK | os.X_OK):
        raise UserError("may not be written", where=str(place), fix="give another --out, or check its permissions")
