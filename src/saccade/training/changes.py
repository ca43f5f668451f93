"""Changes of a run on its way: edits of its network, and settings. Each is asked for by the configuration, by a request from another
process (`training/asking.py`), or by the record of a run that is resumed; it is recorded before it is made, and made between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from saccade.core import config as configs
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.scheduled import Scheduled
from saccade.training.begun import Begun
from saccade.training.budget import check_left, steps_left
from saccade.training.learner import Learner
from saccade.training.ranks import check_batch
from saccade.training.state import CHANGES, read_events
from saccade.training.trying import agreed, lost, said, tried

if TYPE_CHECKING:
    from saccade.training.loop import Trainer


class Changes:
    """Knows what is to change, and makes it."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._planned = [Scheduled.parse(text) for text in trainer.job.config.edits]
        self._recorded: list[dict[str, Any]] = []
        self._begun = Begun(trainer.job.run, trainer.job.ranks)

    def read(self) -> None:
        """Know from the run's events what was changed before. Raises UserError where that cannot be made again."""
        job = self._trainer.job
        phases = list(self._trainer.learner.updater.optimizers)
        self._recorded = job.ranks.first(lambda: [event for event in read_events(job.run, phases) if event["event"] in CHANGES])

    def take(self) -> bool:
        """Make what is due before the next step: what is recorded for it, then what was planned. Whether nothing that is recorded is still
        to come, after which requests may be taken up."""
        while self._replayed():
            pass
        if any(event["number"] >= self._trainer.state.changes for event in self._recorded):
            return False
        state = self._trainer.state
        for place, one in enumerate(() if self._trainer.ended else self._planned):
            if place not in state.planned and one.due(state.step, self._trainer.epoch, state.stale):
                self._plan_comes(place, one)
        return True

    def settle(self) -> None:
        """A step is done: the change before it did not end the process."""
        self._begun.settle(self._trainer.state.step)

    def done(self, request: str) -> int | None:
        """The step at which a request was taken up and recorded, None where it was not."""
        return next((event["step"] for event in self._recorded if event.get("request") == request), None)

    def edit(self, text: str, *, request: str | None = None, planned: int | None = None) -> dict[str, Any]:
        """Plan an edit, record it with who asked for it, make it; gives what it changes. Raises UserError where that cannot be, and nothing
        has changed then."""
        with self._trying(text):
            told = self._told(self._looking([text]))["found"][0]
            row: dict[str, Any] = told["row"]
            sizes = {what: [row[f"{what}_before"], row[f"{what}_after"]] for what in ("parameters", "flops")}
            who = {name: value for name, value in (("request", request), ("planned", planned)) if value is not None}
            self._record({"event": "edit", "text": text, "edit": told["edit"], **sizes, **who})
        kept = "exact" if row["promise"] == "exact" else "changes the function"
        counts = f"{row['parameters_before']:,} -> {row['parameters_after']:,} parameters"
        self.say(f"{row['text']} ({kept}, {counts})")
        return row

    def look(self, texts: list[str]) -> list[dict[str, Any]]:
        """What edits would change, in turn. Raises UserError."""
        return [one["row"] for one in self._told(self._looking(texts))["found"]]

    def take_back(self, request: str) -> dict[str, Any]:
        """Take the run's last edit back; gives what that changes. Raises UserError."""
        workshop, old = self._trainer.workshop, self._trainer.learner
        if len(old.card.edits) <= workshop.base:
            raise UserError("the run has no edit to take back", where="--undo")
        last = old.card.edits[-1]
        made: Mapping[str, Any] = next((event for event in reversed(self._recorded) if event.get("edit") == last), {})
        sizes = {what: made[what][::-1] for what in ("parameters", "flops") if what in made}
        change = {"event": "undo", "text": str(last["text"]), **sizes, "request": request}
        with self._trying(_named(change)):
            self._record(change)
        new, row = self._trainer.learner, {"text": f"undo {last['text']}", "promise": last["promise"], "modules": []}
        if (editor := workshop.editor) is not None:
            try:
                wholes = [one.whole() for one in (old, new)]  # where one of them cannot, none of them can
                before, after = ((workshop.copied(one, whole), one.card) for one, whole in zip((old, new), wholes, strict=True))
                row |= editor.effect(before, after)
            except Exception as error:  # it is taken back all the same
                self.say(f"what it changes is not known: {said(error)}")
        self.say(str(row["text"]))
        return row

    def set(self, settings: Mapping[str, Any], request: str) -> None:
        """Record settings and train by them; `lr` is the rate from here on, and recorded as the schedule's peak that leads to it. Raises
        UserError."""
        change: dict[str, Any] = {"event": "set", "settings": dict(settings), "request": request}
        if "lr" in settings:
            rate = configs.override(self._trainer.learner.config, settings, where="set").lr
            change["settings"]["lr"], change["rate"] = rate / self._height(), rate
        self._set(change)

    def set_back(self, request: str) -> dict[str, Any]:
        """What was set last holds no longer; asked again, what was set before that. Gives the settings that hold in its place. Raises
        UserError where there is nothing, or it cannot be."""
        gone = {event["number"] for event in self._recorded if event["event"] == "withdrawn"}
        done = [event for event in self._recorded if event["event"] == "set" and event["number"] not in gone]
        undone = {event.get("undoes") for event in done}
        standing = [event for event in done if event.get("undoes") is None and event["number"] not in undone]
        if not standing:
            raise UserError("the run has no setting to take back", where="--undo")
        last, job = standing[-1], self._trainer.job
        former = configs.dotted(job.config.to_dict()) | {"epochs": job.resolved.total_steps / job.resolved.steps_per_epoch}
        for event in done[: done.index(last)]:
            former |= event["settings"]
        if "epochs" in last["settings"] and job.config.minutes is not None:
            raise UserError("the minutes of a run do not come back", where="--undo", fix="set epochs=N")
        settings = {key: former[key] for key in last["settings"]}
        change = {"event": "set", "settings": settings, "request": request, "undoes": last["number"]}
        if "lr" in settings:
            change["rate"] = float(f"{float(settings['lr']) * self._height():.6g}")
        self._set(change)
        return _shown(change)

    def _height(self) -> float:
        """What the schedule's peak is multiplied by to give the highest rate from here on."""
        trainer, step = self._trainer, self._trainer.state.step
        return trainer.schedule.highest(step) * trainer.recovery.slowdown(step) or 1.0

    def _set(self, change: Mapping[str, Any]) -> None:
        with self._trying(_named(change)):
            self._record(change)
        self.say(_named(change))

    def note(self, event: Mapping[str, Any]) -> None:
        """Write down what happened at this step. Raises UserError where that cannot be."""
        row = {"step": self._trainer.state.step, **event}

        def write() -> dict[str, Any]:
            self._trainer.job.run.append_event(row)
            return {}

        self._told(write)

    def say(self, text: str) -> None:
        """A line in the run's output."""
        self._trainer.job.progress.message(f"step {self._trainer.state.step}: {text}")

    def _plan_comes(self, place: int, one: Scheduled) -> None:
        """An edit of the configuration; where it cannot be made, the run says so and goes on."""
        self._came(place)
        number = self._trainer.state.changes
        try:
            self.edit(one.edit, planned=place)
        except UserError as error:
            self.say(f"not edited: {error}")
            if self._trainer.state.changes == number:  # else it is recorded as withdrawn
                event = {"event": "refused", "number": number, "planned": place, "text": one.edit, "why": str(error)}
                self.note(event)
                self._recorded.append({"step": self._trainer.state.step, **event})
                self._trainer.state.changes += 1

    def _came(self, place: int) -> None:
        """The time of a planned edit has come."""
        self._trainer.state.planned.append(place)
        if place < len(self._planned) and self._planned[place].by == "stalls":
            self._trainer.state.stale = 0

    def _replayed(self) -> bool:
        """Make again what the record says of this step. Raises DamagedError where it says what cannot have been."""
        state, where = self._trainer.state, str(self._trainer.job.run.events_file)
        mine = [event for event in self._recorded if event["number"] == state.changes]
        if not mine or mine[0]["step"] > state.step:
            return False
        event = mine[0]
        if event["step"] < state.step:
            raise DamagedError(f"change {event['number']} of step {event['step']} is not in the checkpoint after it", where=where)
        if event.get("planned") is not None:
            self._came(event["planned"])
        if any(one["event"] in ("withdrawn", "refused") for one in mine):
            state.changes += 1
            return True
        if why := self._begun.begin(event["number"], _named(event), state.step):
            self._withdraw(event)
            self._left_out(event, why)
            return True
        try:
            new = self._tried(event, lambda: self._remade(event))
        except DamagedError:
            self._begun.end()
            raise
        except UserError as error:
            self._left_out(event, error.message)
        else:
            self._make(event, new)
        return True

    def _left_out(self, event: Mapping[str, Any], why: str) -> None:
        self._begun.end()
        self.say(f"{_named(event)} is left out: {why}")

    def _remade(self, event: Mapping[str, Any]) -> Callable[[], Learner]:
        """How a change of the record is made. Raises DamagedError where it cannot have been."""
        try:
            return self._making(event)
        except (UserError, TypeError, ValueError, LookupError) as error:
            where = str(self._trainer.job.run.events_file)
            raise DamagedError(f"change {event['number']} cannot have been made: {error}", where=where) from None

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """While a change is made that is not recorded yet. Raises UserError where no step would come after it, or where it has
        ended the process as often as may be."""
        state, run = self._trainer.state, self._trainer.job.run
        if self._trainer.ended:
            raise UserError("the run has ended", where=what, fix=f"train on from its model with --weights {run.best}")
        if why := self._begun.begin(state.changes, what, state.step):
            raise UserError(why, where=what, fix="ask for less of it, or give the process more memory")
        try:
            yield
        except Exception as error:
            if not lost(error):  # what ends another process is to be counted as what ends this one
                self._begun.end()
            raise

    def _looking(self, texts: list[str]) -> Callable[[], dict[str, Any]]:
        """What finds edits as a card has them, and what they would change, in turn, on a copy of the network. Raises UserError."""
        workshop, learner = self._trainer.workshop, self._trainer.learner
        editor = workshop.editor
        if editor is None:
            raise UserError("this run cannot be edited", where=texts[0], fix="edit its model file")
        whole = learner.whole()

        def look() -> dict[str, Any]:
            network, card, found = workshop.copied(learner, whole), learner.card, list[dict[str, Any]]()
            for text in texts:
                edit, row = editor.plan(text, network, card)
                found.append({"edit": edit, "row": row})
                if len(texts) > 1:
                    editor.apply(network, edit)
                    card = editor.card(card, edit)
            return {"found": found}

        return look

    def _record(self, change: Mapping[str, Any]) -> None:
        """Write a change down, and make it. Raises UserError where it cannot be made, and it is withdrawn."""
        event = {"step": self._trainer.state.step, "number": self._trainer.state.changes, **change}
        making = agreed(self._trainer.job.ranks, lambda: self._making(event), where=_named(event))
        self.note(event)
        self._recorded.append(event)
        self._make(event, self._tried(event, lambda: making))

    def _tried(self, event: Mapping[str, Any], planned: Callable[[], Callable[[], Learner]]) -> Learner:
        """The learner after a change that is recorded. Where one process cannot make it, it is withdrawn on all of them, and UserError
        raised."""
        ranks, workshop, what = self._trainer.job.ranks, self._trainer.workshop, _named(event)
        try:
            return agreed(ranks, agreed(ranks, planned, where=what), where=what)
        except DamagedError:
            raise
        except UserError:
            workshop.keep(self._trainer.learner)
            self._withdraw(event)
            raise

    def _withdraw(self, event: Mapping[str, Any]) -> None:
        """Write down that a change that is recorded was not made."""
        state = self._trainer.state
        withdrawn = {"event": "withdrawn", "step": state.step, "number": event["number"]}
        self.note(withdrawn)
        self._recorded.append(withdrawn)
        state.changes += 1

    def _making(self, event: Mapping[str, Any]) -> Callable[[], Learner]:
        """How the learner after a change is made. Raises UserError for a change that cannot be."""
        workshop, old = self._trainer.workshop, self._trainer.learner
        if event["event"] == "edit":
            workshop.check(old, event["edit"])
            return lambda: workshop.edited(old, event["edit"])
        if event["event"] == "undo":
            return lambda: workshop.taken_back(old)
        config = self._configured(event["settings"])
        return lambda: workshop.set(old, config)

    def _make(self, event: Mapping[str, Any], new: Learner) -> None:
        """Train on with what a change has made."""
        trainer, state = self._trainer, self._trainer.state
        settings = event.get("settings", {})
        end = self._end(settings, new.config) if "epochs" in settings or "batch" in settings else None
        state.changes += 1
        state.edits = [dict(edit) for edit in new.card.edits]
        state.settings |= settings
        edit = event.get("edit", {})
        if event["event"] == "undo" or (event["event"] == "edit" and (edit.get("promise") != "exact" or edit.get("anew"))):
            state.best, state.best_metrics, state.stale = None, {}, 0  # of another function
        trainer.use(new, stream=bool(settings))
        if end is not None:
            trainer.end_at(end, free="epochs" in settings)
            self._say_what_never_comes()

    def _say_what_never_comes(self) -> None:
        trainer = self._trainer
        images = trainer.state.position + (trainer.schedule.total - trainer.state.step) * trainer.learner.config.batch
        epochs = images / (trainer.job.resolved.steps_per_epoch * trainer.job.config.batch)
        for place, one in enumerate(self._planned):
            end = {"step": trainer.schedule.total, "epoch": epochs}.get(one.by, math.inf)
            if place not in trainer.state.planned and one.value >= end:
                self.say(f"{one.edit!r} at {one.by} {one.value:g} never comes, the run ends at {end:g}")

    def _end(self, settings: Mapping[str, Any], config: TrainConfig) -> int:
        """The last step, for as many epochs as are set, or are left."""
        trainer = self._trainer
        images = trainer.job.resolved.steps_per_epoch * trainer.job.config.batch
        left = float((trainer.schedule.total - trainer.state.step) * trainer.learner.config.batch)
        if "epochs" in settings:
            left = config.epochs * images - trainer.state.position
        return trainer.state.step + steps_left(left, config.batch)

    def _configured(self, settings: Mapping[str, Any]) -> TrainConfig:
        """The configuration with other settings. Raises UserError for what cannot be set on the way."""
        trainer = self._trainer
        configs.check_changeable(settings)
        config = configs.override(trainer.learner.config, settings, where="set")
        trainer.job.task.check(config)
        check_batch(config.batch, trainer.job.ranks.world)
        images = len(trainer.loader.source)
        if "batch" in settings and config.batch > max(images, trainer.learner.config.batch):
            raise UserError(f"batch must be at most the {images:,} images that there are, got {config.batch:,}", where="set")
        wanted, kept = trainer.job.task.augment(config).preparation, trainer.loader.augment.preparation
        if (wanted.name, wanted.covering) != (kept.name, kept.covering):
            raise UserError("the images would have to be read anew for it", where="set", fix="start a run with --set")
        if "epochs" in settings or "batch" in settings:
            check_left(self._end(settings, config) - trainer.state.step, config.epochs, trainer.epoch)
        return config

    def _told(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the first process finds, on all of them; raises its UserError on all of them."""
        told = self._trainer.job.ranks.first(lambda: tried(work))
        if "error" in told:
            raise UserError(**told["error"])
        return told


def _shown(change: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as users mean them."""
    return {**change["settings"], **({"lr": change["rate"]} if change.get("rate") is not None else {})}


def _named(change: Mapping[str, Any]) -> str:
    """A change in a few words."""
    if change["event"] == "set":
        words = ", ".join(f"{key}={value}" for key, value in _shown(change).items())
        return words if change.get("undoes") is None else f"undo: {words}"
    return f"undo {change.get('text', '')}" if change["event"] == "undo" else str(change.get("text") or change["event"])
