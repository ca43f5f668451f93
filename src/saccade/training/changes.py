"""Changes of a run on its way: edits of its network, and settings. Each is asked for by the configuration, by a request from another
process, or by the record of a run that is resumed; it is recorded before it is made, and made between two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.core import config as configs
from saccade.core import requests
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError, unknown
from saccade.core.files import DamagedError
from saccade.core.scheduled import Scheduled
from saccade.training.learner import Learner
from saccade.training.ranks import check_batch
from saccade.training.state import CHANGES, read_events
from saccade.training.step import is_memory

if TYPE_CHECKING:
    from saccade.training.loop import Trainer

LOOK_EVERY = 0.1  # seconds between looks for requests
STATES = ("running", "paused", "stopped")


class Changes:
    """Knows what is to change; `take` makes what is due. paused, stopped: what was asked of the loop itself; away: seconds paused."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._planned = [Scheduled.parse(text) for text in trainer.job.config.edits]
        self._recorded: list[dict[str, Any]] = []
        self._looked = 0.0
        self.paused = self.stopped = False
        self.away = 0.0

    def read(self) -> None:
        """Know from the run's events what was changed before."""
        job, phases = self._trainer.job, list(self._trainer.learner.updater.optimizers)
        self._recorded = job.ranks.first(lambda: [event for event in read_events(job.run, phases) if event["event"] in CHANGES])

    def asked(self) -> bool:
        """Whether there is a request; the first process looks, now and then."""
        if not self._trainer.job.ranks.is_first or time.monotonic() - self._looked < LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        return bool(requests.pending(self._trainer.job.run))

    def take(self, asked: bool) -> None:
        """Make what is due before the next step: what is recorded for it, what was planned, and, where any process says so, requests."""
        while self._replayed():
            pass
        if any(event["number"] >= self._trainer.state.changes for event in self._recorded):
            return  # what was asked later comes after it
        state = self._trainer.state
        for place, one in enumerate(self._planned):
            if place not in state.planned and one.due(state.step, self._trainer.epoch, state.stale):
                self._plan_comes(place, one)
        if asked:
            self._answer()

    def wait(self) -> None:
        """A moment of a pause."""
        begin = time.monotonic()
        time.sleep(LOOK_EVERY / 2)
        self.away += time.monotonic() - begin

    def _plan_comes(self, place: int, one: Scheduled) -> None:
        """An edit of the configuration; where it cannot be made, the run says so and goes on."""
        self._trainer.state.planned.append(place)
        try:
            self._edit(one.edit, planned=place)
        except UserError as error:
            self._trainer.job.progress.message(f"not edited at step {self._trainer.state.step}: {error}")
            self._note({"event": "refused", "text": one.edit, "why": str(error)})
        if one.by == "stalls":
            self._trainer.state.stale = 0

    def _replayed(self) -> bool:
        """Make again what the record says of this step."""
        state, run = self._trainer.state, self._trainer.job.run
        mine = [event for event in self._recorded if event["number"] == state.changes]
        if not mine or mine[0]["step"] > state.step:
            return False
        event, withdrawn = mine[0], any(one["event"] == "withdrawn" for one in mine)
        if event["step"] < state.step:
            raise DamagedError(
                f"change {event['number']} of step {event['step']} is not in the checkpoint after it", where=str(run.events_file)
            )
        if event.get("planned") is not None:
            state.planned.append(event["planned"])
        if withdrawn:
            state.changes += 1
        else:
            self._make(event, self._making(event))
        return True

    def _edit(self, text: str, planned: int | None = None, *, dry: bool = False) -> dict[str, Any]:
        """Plan an edit, record it, make it (dry: not); gives what it changes. Raises UserError where that cannot be, and nothing has
        changed then."""
        learner = self._trainer.learner
        told = self._trainer.job.ranks.first(lambda: _tried(lambda: self._look(text, learner)))
        if "error" in told:
            raise UserError(**told["error"])
        row: dict[str, Any] = told["row"]
        if dry:
            return row
        facts = {what: [row[f"{what}_before"], row[f"{what}_after"]] for what in ("parameters", "flops")}
        more = {} if planned is None else {"planned": planned}
        self._record({"event": "edit", "text": text, "edit": told["edit"], **facts, **more})
        kept = "exact" if row["promise"] == "exact" else "changes the function"
        counts = f"{row['parameters_before']:,} -> {row['parameters_after']:,} parameters"
        self._trainer.job.progress.message(f"step {self._trainer.state.step}: {row['text']} ({kept}, {counts})")
        return row

    def _look(self, text: str, learner: Learner) -> dict[str, Any]:
        editor = self._trainer.workshop.editor
        if editor is None or learner.updater.sharded:
            raise UserError(
                "this run cannot be edited", where=text, fix="edit its model file" if editor is None else "train without --shard"
            )
        if learner.config.start_decay:
            raise UserError("a run that is drawn to its start cannot be edited", where=text, fix="train with start_decay=0")
        edit, row = editor.plan(text, editor.copied(learner.model), learner.card)
        return {"edit": edit, "row": row}

    def _record(self, change: Mapping[str, Any]) -> None:
        """Write a change down, and make it. Raises UserError where memory does not suffice, and it is withdrawn."""
        state, ranks = self._trainer.state, self._trainer.job.ranks
        event = {"step": state.step, "number": state.changes, **change}
        making = self._making(event)
        self._note(event)
        self._recorded.append(event)
        failed = False
        try:
            new = making()
        except Exception as error:
            if not is_memory(error) and not isinstance(error, UserError):
                raise
            failed, why = True, error
        if ranks.highest([failed])[0]:
            self._note({"event": "withdrawn", "step": state.step, "number": state.changes})
            state.changes += 1
            raise UserError("there is not enough memory for it" if not failed or is_memory(why) else str(why), where="edit")
        self._make(event, lambda: new)

    def _note(self, event: Mapping[str, Any]) -> None:
        if self._trainer.job.ranks.is_first:
            self._trainer.job.run.append_event({"step": self._trainer.state.step, **event})

    def _making(self, event: Mapping[str, Any]) -> Callable[[], Learner]:
        """How the learner after a change is made. Raises UserError for a change that cannot be."""
        workshop, old = self._trainer.workshop, self._trainer.learner
        if event["event"] == "edit":
            if workshop.editor is None:
                raise UserError("this run cannot be edited", where="edit")
            workshop.editor.check([event["edit"]], old.model)
            return lambda: workshop.edited(old, event["edit"])
        if event["event"] == "undo":
            return lambda: workshop.taken_back(old)
        config = self._configured(event["settings"])
        return lambda: workshop.set(old, config)

    def _make(self, event: Mapping[str, Any], making: Callable[[], Learner]) -> None:
        """Train on with what a change has made."""
        trainer, state = self._trainer, self._trainer.state
        new = making()
        settings = event.get("settings", {})
        if "epochs" in settings or "batch" in settings:
            trainer.end_at(self._end(settings))
        state.changes += 1
        state.edits = [dict(edit) for edit in new.card.edits]
        state.settings |= settings
        if event["event"] != "set" and (event["event"] == "undo" or event["edit"].get("promise") != "exact"):
            state.best, state.stale = None, 0  # of another function
        trainer.use(new, stream=bool(settings))

    def _end(self, settings: Mapping[str, Any]) -> int:
        """The last step, for as many epochs as are set, or are left."""
        trainer = self._trainer
        images = trainer.job.resolved.steps_per_epoch * trainer.job.config.batch
        batch = settings.get("batch", trainer.learner.config.batch)
        left = (trainer.schedule.total - trainer.state.step) * trainer.learner.config.batch
        if "epochs" in settings:
            left = math.ceil((settings["epochs"] - trainer.epoch) * images)
        return trainer.state.step + math.ceil(left / batch)

    def _configured(self, settings: Mapping[str, Any]) -> TrainConfig:
        """The configuration with other settings. Raises UserError for what cannot be set on the way."""
        trainer = self._trainer
        configs.check_changeable(settings)
        config = configs.override(trainer.learner.config, settings, where="set")
        trainer.job.task.check(config)
        check_batch(config.batch, trainer.job.ranks.world)
        wanted, kept = trainer.job.task.augment(config).preparation, trainer.loader.augment.preparation
        if (wanted.name, wanted.covering) != (kept.name, kept.covering):
            raise UserError("the images would have to be read anew for it", where="set", fix="start a run with --set")
        if trainer.learner.updater.sharded:
            raise UserError("a run with --shard takes no settings", where="set")
        if ("epochs" in settings or "batch" in settings) and self._end(settings) <= trainer.state.step:
            raise UserError(f"epochs must be more than the {trainer.epoch:.2f} that are done, got {config.epochs:g}", where="set")
        return config

    def _answer(self) -> None:
        """Take up all requests in their order."""
        ranks, run = self._trainer.job.ranks, self._trainer.job.run
        for name in ranks.first(lambda: [str(path) for path in requests.pending(run)]):
            path = Path(name)
            told = ranks.first(lambda path=path: _tried(lambda: {"request": requests.read(path)}))  # type: ignore[misc]
            found = told if "error" in told else _tried(lambda told=told: self._done(told["request"]))  # type: ignore[misc]
            if "error" in found:
                self._trainer.job.progress.message(f"not done: {UserError(**found['error'])}")
            if ranks.is_first:
                requests.answer(path, {"step": self._trainer.state.step, **found})

    def _done(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what one request asks for; gives what is answered. Raises UserError."""
        known = {"edit", "dry_run", "undo", "settings", "state", "snapshot"}
        if not request or not request.keys() <= known:
            raise UserError(f"a request has {', '.join(sorted(known))}, got {', '.join(sorted(request)) or 'nothing'}", where="requests")
        rows = [self._edit(str(request["edit"]), dry=bool(request.get("dry_run")))] if "edit" in request else []
        if request.get("undo"):
            rows.append(self._taken_back())
        if settings := request.get("settings"):
            self._record({"event": "set", "settings": dict(settings)})
            words = ", ".join(f"{key}={value}" for key, value in settings.items())
            self._trainer.job.progress.message(f"step {self._trainer.state.step}: {words}")
        if state := request.get("state"):
            self._switch(str(state))
        if request.get("snapshot"):
            self._trainer.save_now()
        return {"edits": rows, "settings": dict(settings or {})}

    def _taken_back(self) -> dict[str, Any]:
        old = self._trainer.learner
        if len(old.card.edits) <= self._trainer.workshop.base:
            raise UserError("the run has no edit to take back", where="--undo")
        editor, last = self._trainer.workshop.editor, old.card.edits[-1]
        self._record({"event": "undo", "text": str(last["text"])})
        new, row = self._trainer.learner, {"text": f"undo {last['text']}", "promise": last["promise"], "modules": []}
        if editor is not None:
            row |= editor.effect((editor.copied(old.model), old.card), (editor.copied(new.model), new.card))
        self._trainer.job.progress.message(f"step {self._trainer.state.step}: {row['text']}")
        return row

    def _switch(self, state: str) -> None:
        if state not in STATES:
            raise unknown("state", state, STATES, where="set")
        self.stopped = state == "stopped"
        if self.paused != (state == "paused"):
            self.paused = not self.paused
            self._note({"event": "paused" if self.paused else "running"})
            self._trainer.job.progress.message(f"{'paused' if self.paused else 'going on'} at step {self._trainer.state.step}")


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it gives, or the error of a user, or of a network that an edit cannot deal with: none of them may end a run."""
    try:
        return work()
    except UserError as error:
        return {"error": error.to_dict()}
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, MemoryError) as error:
        return {"error": {"message": f"cannot be done: {type(error).__name__}: {str(error)[:300]}", "where": "", "fix": ""}}
