"""A run that has been made ready is trained, measured and reported; what run.json says of it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from saccade import __version__
from saccade.api.displaying import conclude, keep_samples, pictures
from saccade.api.exiting import measured
from saccade.api.judging import save_features
from saccade.api.runs import Run, load_run
from saccade.api.scheduling import editor
from saccade.api.setup import Setup
from saccade.core import requests
from saccade.core.card import Card
from saccade.core.errors import Interrupted, UserError
from saccade.core.progress import Progress, Silent
from saccade.core.rundir import RunDir
from saccade.tasks import making

if TYPE_CHECKING:
    from torch import nn

    from saccade.api.judging import Looked
    from saccade.training.budget import Resolved
    from saccade.training.loop import Trainer
    from saccade.training.state import State


@dataclass(frozen=True)
class Start:
    """What a run starts from: everything it needs, and its clock.

    started: monotonic; before: seconds spent before it was resumed; record: what run.json says from here on, whole or, of a run that
    is resumed, what changes; learned: names of the tensors that have learned before.
    """

    setup: Setup
    run: RunDir
    model: nn.Module
    card: Card
    resolved: Resolved
    started: float
    before: float
    record: Mapping[str, Any]
    learned: frozenset[str] = frozenset()
    resume: bool = False
    report: bool = True


def fit(start: Start) -> Run:
    """Train to the end, or to a signal; the first of several processes writes."""
    setup, run, ranks = start.setup, start.run, start.setup.ranks
    steps = 0
    try:
        ranks.first(lambda: run.update_run(start.record) if start.resume else run.write_run(start.record))
        if setup.features is not None:
            found = setup.features
            ranks.first(lambda: save_features(run.features, found))
        for left in ranks.first(lambda: requests.clear(run)):
            setup.progress.message(f"a request that nobody waits for is dropped: {left}")
        trainer = _trainer(start)
        if start.resume:
            take_up(trainer, run, setup.progress)
        begin = time.monotonic()
        try:
            state = trainer.fit()
        finally:
            steps = trainer.state.step
        speed = trainer.images_taken / max(time.monotonic() - begin - trainer.asking.away, 1e-9)
        if start.report:
            ranks.first(lambda: _conclude(setup, run, state, start.resolved))
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        _give_up(start, {"state": "interrupted" if stopped else "failed", "steps": steps})
        if not stopped or not ranks.is_first:
            raise
        number = error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT
        again = f"go on with: saccade train --resume --out {shlex.quote(str(run.path))}"
        raise Interrupted(number, f"stopped at step {steps}; {again}") from None
    _update(start, {"state": "done", "steps": state.step, "best_step": state.best_step, "metrics": state.best_metrics}, speed)
    setup.progress.message(f"done: {run.path}")
    return load_run(run.path)


def _trainer(start: Start) -> Trainer:
    from saccade.training.loop import Job, Trainer

    setup, config, run = start.setup, start.setup.config, start.run

    def keep(looked: Looked) -> None:
        keep_samples(run, trainer.state.step, looked)

    deadline = None if config.minutes is None else start.started + config.minutes * 60 * (1 - 0.02) - 8
    trainer = Trainer(
        Job(
            setup.task,
            start.model,
            start.card,
            config,
            start.resolved,
            setup.loader(start.resolved.workers),
            start.run,
            setup.evaluator(start.card, start.resolved, setup.ranks, keep),
            setup.progress,
            deadline,
            _longest(start),
            setup.ranks,
            editor(setup.config),
            start.learned,
        )
    )
    return trainer


def _longest(start: Start) -> int:
    """Steps that a run may be lengthened to when minutes are left. Of one that goes on they begin anew, and tell nothing: 0, not at all."""
    from saccade.training.deadline import MOST

    planned, epochs = start.resolved.total_steps, start.setup.config.epochs
    asked = round(epochs * start.resolved.steps_per_epoch) if epochs else MOST * planned
    return 0 if start.resume else min(MOST * planned, asked)


def _give_up(start: Start, changes: dict[str, Any]) -> None:
    """Say in the record how a run ended; where the disk refuses even that, the error that ended it is the one to tell."""
    if start.setup.ranks.is_first and not start.run.run_file.exists():
        start.run.abandon()
        return
    with contextlib.suppress(UserError):
        _update(start, changes)


def _update(start: Start, changes: dict[str, Any], speed: float | None = None) -> None:
    if start.setup.ranks.is_first:
        start.run.update_run({**changes, "time": _times(start.run, start.before + time.monotonic() - start.started, speed)})


def take_up(trainer: Trainer, run: RunDir, progress: Progress) -> None:
    """Go on from the newest checkpoint. A run stopped before its first one starts again: by law 1 that is the same run."""
    if run.has_checkpoint():
        trainer.resume()
        return
    progress.message("no checkpoint yet: starting from step 0")
    if trainer.job.ranks.is_first:
        run.truncate_metrics(0)
    trainer.plan_again()


def _conclude(setup: Setup, run: RunDir, state: State, resolved: Resolved) -> None:
    """Measure the best model once more with intervals, keep its answers, write the report."""
    from saccade.api.models import load_model
    from saccade.api.reporting import write_report
    from saccade.evaluation.evaluate import evaluate

    run.update_run({"steps": state.step, "metrics": state.best_metrics})
    model = load_model(run.best, device=resolved.device)
    if setup.features is not None:
        task = making(setup.config.task)
        evaluation, looked = conclude(task, model.module, model.card, setup.features, ("val", setup.val), setup.config.seed)
        shown = pictures(task, model.module, setup.features, looked, (setup.train, setup.val), run)
        write_report(run, model, evaluation, progress=setup.progress, figures=list(shown))
        return
    metric = setup.task.metrics(model.card)
    session = model.session(resolved.precision)
    evaluation = evaluate(
        session, setup.val.batches(session.batch), metric, progress=Silent(), split="val", seed=setup.config.seed, total=len(setup.val)
    )
    write_report(run, model, measured(model, evaluation), progress=setup.progress)


def record(setup: Setup, resolved: Resolved, reasons: Any, line: str) -> dict[str, Any]:
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
            "path": str(dataset.opened),
            "format": dataset.annotations.format,
            "fingerprint": dataset.fingerprint(),
            "pixels": setup.pixels(),
            "classes": list(dataset.schema.classes),
            "counts": {name: list(counts) for name, counts in dataset.schema.counts.items()},
            "ignored": dataset.annotations.ignored,
            "outside": dataset.annotations.outside,
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
