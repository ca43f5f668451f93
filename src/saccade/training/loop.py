"""The loop of every run: steps, evaluations, checkpoints, interruptions, and the minutes that were asked for.

Its state is a function of (config, data, seed, step): what it draws is keyed, what it measures on the way changes nothing
but where an event in the run's record says so.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.core import config as configs
from saccade.core import modelfile
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted
from saccade.core.files import DamagedError
from saccade.core.progress import Progress
from saccade.core.rundir import RunDir
from saccade.data.loader import Batch, Loader
from saccade.nn import weights
from saccade.task import Task
from saccade.training import checkpoint
from saccade.training.asking import Asking
from saccade.training.board import Board
from saccade.training.budget import Resolved
from saccade.training.changes import Changes
from saccade.training.deadline import MOST, Deadline, Evaluations
from saccade.training.learner import Editing, Kind, Learner, Workshop, blank, started
from saccade.training.ranks import Ranks, reachable
from saccade.training.recovery import BackError, Recovery
from saccade.training.saver import Saver
from saccade.training.schedule import Schedule
from saccade.training.signals import StopSignals
from saccade.training.state import State, read_events

CHECKPOINT_SECONDS = 60.0
LOGGED_STEPS = 500


@dataclass(frozen=True)
class Job:
    """Everything that a run needs. `evaluate` gives a module's figures on the validation images; deadline: monotonic seconds, or None;
    longest: steps to which a run that is too fast for it may be lengthened; ranks: the processes that share the work, of which the first
    alone has a `progress` that is seen; editor: where the network may be edited on the way; learned: names of the tensors that have
    learned before."""

    task: Task
    model: nn.Module
    card: Card
    config: TrainConfig
    resolved: Resolved
    loader: Loader
    run: RunDir
    evaluate: Callable[[nn.Module], Mapping[str, float | None]]
    progress: Progress
    deadline: float | None = None
    longest: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    editor: Editing | None = None
    learned: Collection[str] = ()


class Trainer:
    """Runs a job from its state to its end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.state = State(edits=[dict(edit) for edit in job.card.edits])
        config, resolved = job.config, job.resolved
        self.device = torch.device(resolved.device)
        metric = job.task.metrics(job.card)
        self.primary, self.sign = metric.primary, 1 if metric.higher_is_better else -1
        self.schedule = Schedule(resolved.total_steps, config.warmup)
        start = started(job.model, job.learned, config)
        kind = Kind(resolved.precision, resolved.total_steps, job.ranks, self.schedule.progress, start)
        shapes = blank(job.model) if job.editor is not None else None
        self.learner = Learner(job.task, job.model, job.card, config, kind)
        self.workshop = Workshop(job.task, self.learner, shapes, kind, job.editor)
        self.loader = job.loader
        self.log_every = max(1, resolved.total_steps // LOGGED_STEPS)
        self.rows: list[dict[str, Any]] = []
        self.planned: list[dict[str, Any]] = []
        self.recovery = Recovery(self.learner.updater, job.loader, job.run, config, job.progress)
        self.changes, self.asking = Changes(self), Asking(self)
        self.stream: Generator[list[Batch], None, None]
        self.saver = Saver()
        self.steps_taken = self.images_taken = 0
        self.evaluations = Evaluations(job.resolved.evaluate_every)

    def resume(self) -> None:
        """Go on from the newest checkpoint whose sums hold; says which were passed over."""
        step = self._load()
        self.job.progress.message(f"going on from step {step} of {self.schedule.total}")

    def _load(self, before: int | None = None) -> int:
        """The state of the newest good checkpoint, not after step `before`, since later ones are given up; returns its step."""
        self.saver.wait()
        if before is not None and self.job.ranks.is_first:
            self.job.run.give_up_after(before)
        run, ranks = self.job.run, self.job.ranks
        step, contents, passed_over = ranks.after_first(run.load_checkpoint)
        for line in passed_over:
            self.job.progress.message(line)
        where = str(run.checkpoints)
        groups, saved = checkpoint.decode(contents, self.learner.groups(), where=where)
        contents.clear()
        moved = "batch" in saved.loop.settings
        if saved.loop.step != step or (saved.loop.position != step * self.job.config.batch and not moved):
            message = f"state.json says step {saved.loop.step} and position {saved.loop.position}, which cannot be in step-{step}"
            raise DamagedError(message, where=where)
        if list(self.learner.card.edits) != saved.loop.edits or self.state.settings != saved.loop.settings:
            configs.check_changeable(saved.loop.settings)
            self.use(self.workshop.again(saved.loop.edits, saved.loop.settings, groups["model"]), stream=False)
        self.learner.load(groups, saved.scaler, where)
        if ranks.is_first:
            run.truncate_metrics(saved.metrics_bytes)
        self.state = saved.loop
        self.loader.deals = self.state.dealt(self.job.config.batch, self.loader.batch, len(self.loader.source), where)
        self.schedule.ends = []
        for at, end in saved.loop.ends:
            self._end_at(at, end, where)
        self.plan_again()
        return step

    def plan_again(self) -> None:
        """Know from the run's events what changes on the way."""
        events = read_events(self.job.run, list(self.learner.updater.optimizers))
        self.planned = [event for event in events if event["event"] == "pace"]
        most = MOST * self.job.resolved.total_steps * self.job.config.batch  # as many steps of single images
        if any(event["total_steps"] > most for event in self.planned):
            raise DamagedError(f"no schedule of this run has more than {most:,} steps", where=str(self.job.run.events_file))
        self.changes.read()

    def use(self, learner: Learner, *, stream: bool) -> None:
        """Train this one from here on; stream: with batches as its configuration says."""
        config, loader, former = learner.config, self.loader, self.learner.config
        self.learner = learner
        self.recovery.updater, self.recovery.config = learner.updater, config
        if (config.augment, config.batch, config.micro_batch) != (former.augment, former.batch, former.micro_batch):
            augment = self.job.task.augment(config)
            self.loader = self.recovery.loader = loader.changed(augment, config.batch, config.micro_batch, self.state.position)
            self.state.deals = list(self.loader.deals)
            if stream:
                self.stream.close()
                self.stream = self._stream()

    @property
    def epoch(self) -> float:
        """Passes over the images so far."""
        return self.state.position / (self.job.resolved.steps_per_epoch * self.job.config.batch)

    def end_at(self, total: int, *, free: bool) -> None:
        """Move the end of the schedule, from this step on; free: a deadline counts no longer."""
        self._end_at(self.state.step, total, str(self.job.run.events_file))
        self.state.ends.append((self.state.step, total))
        self.state.free = self.state.free or free
        self._show_stage()

    def _end_at(self, step: int, total: int, where: str) -> None:
        try:
            self.schedule.end_at(step, total)
        except ValueError as error:
            raise DamagedError(str(error), where=where) from None

    def fit(self) -> State:
        """Train to the end; raises Interrupted (state saved) when a signal came."""
        job = self.job
        job.ranks.same(self.learner.model)
        if self.learner.average is not None:
            job.ranks.same(self.learner.average.module)
        board = Board(job.run.tensorboard if job.ranks.is_first else None, purge_step=self.state.step or None)
        if job.config.on_nan == "back" and not job.ranks.first(job.run.has_checkpoint):
            self._checkpoint()  # or there would be nothing to go back to
        self.stream = self._stream()
        self._show_stage()
        try:
            with StopSignals() as signals, reachable():
                stop = self._run(board, signals)
            self._checkpoint()
            self._save(job.run.last)
            self.saver.wait()
        finally:
            self.saver.close()
            self.stream.close()
            board.close()
            job.progress.finish()
        if stop and not self.ended:
            raise Interrupted(stop, f"stopped at step {self.state.step}")
        return self.state

    def _run(self, board: Board, signals: StopSignals) -> int:
        """Step until the end or a signal, whose number is returned (0: none)."""
        begun = saved_at = time.monotonic()
        stop, asking = 0, self.asking
        deadline = Deadline(self.job.deadline, max(phase.steady for phase in self.learner.updater.phases), begun)
        asked = bool(self.job.ranks.highest([asking.asked()])[0])
        while True:
            if not stop and self.changes.take() and asked:
                asking.answer()
            if stop or asking.stopped or self.ended:
                return stop or (signal.SIGTERM if asking.stopped else 0)
            try:
                due = self._advance(board)
                logged = not asking.paused and self._log(board, time.monotonic() - begun - asking.away)
            except BackError as error:
                self._go_back(error)
                continue
            self.saver.check()
            due = due or signals.noticed or (logged and time.monotonic() - saved_at > CHECKPOINT_SECONDS)
            stop, total, due, asked = self._agreed(signals.received or 0, self._affordable(deadline) or 0, due)
            self._keep_time(total)
            if due:
                signals.noticed = False
                self._checkpoint()
                saved_at = time.monotonic()

    def _advance(self, board: Board) -> bool:
        """A step, and an evaluation where one is due, which may say that this state is to be kept; a moment of a pause, where one was asked
        for."""
        if self.asking.paused:
            self.asking.wait()
            return False
        self._step(next(self.stream))
        self.changes.settle()
        return self._due() and self._evaluate(board)

    def _agreed(self, stop: int, total: int, save: bool) -> tuple[int, int, bool, bool]:
        """The same on all ranks: the signal that any of them got, the new end of the schedule by the first one's clock, whether to save,
        whether there is a request."""
        if not self.job.ranks.is_first:
            total = 0
        agreed = self.job.ranks.highest([stop, total, save, self.asking.asked()])
        return int(agreed[0]), int(agreed[1]), bool(agreed[2]), bool(agreed[3])

    def _stream(self) -> Generator[list[Batch], None, None]:
        return self.loader.share(self.job.ranks.rank, self.job.ranks.world).stream(self.state.position)

    @property
    def ended(self) -> bool:
        """Whether no step is to come: all are done, or nothing has got better for as long as the configuration waits."""
        return self.state.step >= self.schedule.total or self.state.stopped

    def _show_stage(self) -> None:
        batch, state = self.learner.config.batch, self.state
        total = state.position + (self.schedule.total - state.step) * batch
        self.job.progress.start("training", total, "images", done=state.position)

    def _step(self, batches: list[Batch]) -> None:
        state, config, learner = self.state, self.learner.config, self.learner
        moved = [batch.to(self.device, channels_last=config.channels_last) for batch in batches]
        means = self.recovery.step(moved, state.step, self.schedule, state.position)
        if learner.average is not None:
            learner.average.update(learner.model, state.step)
        state.take(means, config.batch)
        self.steps_taken += 1
        self.images_taken += config.batch
        self.job.progress.advance(config.batch)

    def _go_back(self, error: BackError) -> None:
        """To the last checkpoint, or the last one without a fault, and on from there at a lower rate."""
        message, told, before = error.args
        self.stream.close()
        self.rows = []
        to = self._load(before)
        self.recovery.went_back(told, to)
        self.stream = self._stream()
        self.job.progress.message(f"{message}; going back to step {to}, on at {self.recovery.slowdown(to):g} times the rate")
        self._show_stage()

    def _due(self) -> bool:
        """After as many images as lie between two evaluations, whatever `batch` is by now, and after the last step."""
        every, done = self.job.resolved.evaluate_every * self.job.config.batch, self.state.position
        return done // every > (done - self.learner.config.batch) // every or self.state.step >= self.schedule.total

    def _log(self, board: Board, seconds: float) -> bool:
        state = self.state
        if state.step % self.log_every and state.step < self.schedule.total:
            return False
        means = {name: value / state.counts[name] for name, value in state.sums.items()}
        row: dict[str, Any] = {
            "step": state.step,
            "epoch": round(self.epoch, 4),
            **means,
            "lr": self.learner.config.lr * self.schedule.factor(state.step - 1) * self.recovery.slowdown(state.step - 1),
            "time": {"images_per_second": self.images_taken / max(seconds, 1e-9)},
        }
        state.sums, state.counts = {}, {}
        self.rows.append(row)
        board.add(row)
        if means:  # none where no phase took part since the last row
            self._note(next(iter(means.values())))
        return True

    def _note(self, loss: float) -> None:
        best = "" if self.state.best is None else f"  best {self.primary} {self.state.best:.4f}"
        self.job.progress.note(f"epoch {self.epoch:.1f}  loss {loss:.4f}{best}")

    def _evaluate(self, board: Board) -> bool:
        """Measure, keep the model if it is the best so far, and count how long nothing got better.

        Whether this state is one to go back to, and so to be kept. Raises BackError where the figures say that training has failed.
        """
        state, job = self.state, self.job
        begin = time.monotonic()
        metrics = dict(job.evaluate(self.learner.shipped()))
        self.evaluations.took(time.monotonic() - begin)
        row = {
            "step": state.step,
            "epoch": round(self.epoch, 4),
            "split": "val",
            "metrics": metrics,
            "time": {"seconds": self.evaluations.last},
        }
        self.rows.append(row)
        board.add(row)
        self.recovery.judge(job.task.fault(metrics, state.best_metrics), state.step, state.good, self.schedule)
        value = metrics.get(self.primary)
        better = value is not None and not math.isnan(value) and (state.best is None or self.sign * value > self.sign * state.best)
        if better:
            state.best, state.best_step, state.best_metrics, state.stale = value, state.step, metrics, 0
            self._save(job.run.best)
        else:
            state.stale += 1
            state.stopped = 0 < self.learner.config.patience <= state.stale
        if job.config.on_nan == "back":
            state.good = state.step
        return job.config.on_nan == "back"

    def _keep_time(self, total: int) -> None:
        """Where a `total` is given, as the run is too slow or too fast for its deadline, end there and record it; resume does so again."""
        state, before = self.state, self.schedule.total
        if state.free or self.ended:
            return
        if state.timed < len(self.planned):
            if state.step != self.planned[state.timed]["step"]:
                return
            total = self.planned[state.timed]["total_steps"]
        elif total:
            event = {"event": "pace", "step": state.step, "total_steps": total, "from": before}
            self._record(event)
            self.planned.append(event)
            slower = f"slower than measured: {before} steps shortened to {total} to keep to the minutes asked for"
            faster = f"faster than measured: {before} steps lengthened to {total} to use the minutes asked for"
            self.job.progress.message(slower if total < before else faster)
        else:
            return
        self.end_at(total, free=False)
        state.timed += 1

    def _record(self, event: Mapping[str, Any]) -> None:
        if self.job.ranks.is_first:
            self.job.run.append_event(event)

    def _affordable(self, deadline: Deadline) -> int | None:
        """The step to end at, where the deadline calls for fewer, or allows more."""
        state, now = self.state, time.monotonic() - self.asking.away
        if state.free or self.asking.paused or state.timed < len(self.planned) or state.step % self.log_every:
            return None
        most = 0 if "batch" in state.settings else self.job.longest  # which counts batches as they were
        return deadline.affordable(state.step, self.steps_taken, self.schedule, now, self.evaluations, most=most)

    def _checkpoint(self) -> None:
        """Take a snapshot, which the saver writes while training goes on."""
        rows, self.rows = self.rows, []
        tensors = self.learner.tensors()
        if not self.job.ranks.is_first:
            return
        kept = checkpoint.snapshot(tensors)
        state = {"loop": copy.deepcopy(vars(self.state)), "scaler": self.learner.updater.scaler.state_dict()}
        run, step = self.job.run, self.state.step
        good = self.state.good if self.job.config.on_nan == "back" else None

        def write() -> None:
            run.append_metrics(rows)
            files = checkpoint.encode(kept, {**state, "metrics_bytes": run.metrics_size()})
            run.save_checkpoint(step, files, also=good)

        self.saver.submit(write)

    def save_now(self) -> None:
        """A checkpoint, and return when it is on the disk."""
        self._checkpoint()
        self.saver.wait()

    def _save(self, path: Path) -> None:
        """The same for the model that is shipped."""
        shipped = self.learner.shipped()
        if self.job.ranks.is_first:
            card, kept = self.learner.card.with_metrics(self.state.best_metrics), weights.to_buffers(shipped)
            self.saver.submit(lambda: modelfile.save(path, kept, card))
