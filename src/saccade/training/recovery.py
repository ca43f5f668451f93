"""Steps that go wrong: too little memory, or numbers that are no longer finite. What is done about it is an event of the run, so that a
resumed run does the same at the same step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.core.rundir import RunDir
from saccade.data.loader import Batch, Loader
from saccade.task import Phase
from saccade.training import diagnosis
from saccade.training.schedule import Schedule
from saccade.training.state import read_events
from saccade.training.step import NotFiniteError, OutOfMemoryError, Updater, refusal

SLOWER = 0.5  # what the rate is multiplied by after going back
MOST_BACK = 5
MOST_SKIPPED = 10  # steps, or one in a hundred where that is more


class BackError(Exception):
    """The run must go back to its last checkpoint. args: what happened, the event that tells of it, the last step to go back to or None."""


class Recovery:
    """Takes the steps of an Updater, and knows from the run's events what had to be done before."""

    def __init__(self, updater: Updater, loader: Loader, run: RunDir, config: TrainConfig, progress: Progress) -> None:
        self.updater, self.loader, self.run, self.config, self.progress = updater, loader, run, config, progress
        self.ranks, self._peak, self._place = updater.ranks, config.lr, 0
        self.events = [event for event in read_events(run, list(updater.optimizers)) if event["event"] != "pace"]

    def slowdown(self, step: int) -> float:
        """What the rate at `step` is multiplied by, since the run has gone back to it or to a step before it."""
        return float(SLOWER ** sum(event["event"] == "back" and event["to"] <= step for event in self.events))

    def rate(self, step: int, schedule: Schedule) -> float:
        """The run's highest rate as its user means it: the peak, or, once `lr` was set on the way, the highest from `step` on."""
        set_since = self.config.lr != self._peak
        return self.config.lr * self.slowdown(step) * (schedule.highest(step) if set_since else 1.0)

    def step(self, batches: Sequence[Batch], step: int, schedule: Schedule, place: int) -> dict[str, float]:
        """Do step number `step`, whose images begin at `place` of the stream. Raises UserError where the run must end, BackError where it
        must go back."""
        self._place = place
        means: dict[str, float] = {}
        for phase in self.updater.due(step):
            means |= self._phase(phase, self._fitting(batches, step, phase), step, schedule)
        self.updater.finish(step)
        return means

    def _phase(self, phase: Phase, batches: Sequence[Batch], step: int, schedule: Schedule) -> dict[str, float]:
        factor = schedule.factor(step) * self.slowdown(step)
        while True:
            try:
                return self.updater.phase(phase, batches, step, factor)
            except OutOfMemoryError as error:
                batches = self._halved(error, batches, step)
            except NotFiniteError as error:
                self._answer(error, batches, step, schedule)
                return {}

    def _fitting(self, batches: Sequence[Batch], step: int, phase: Phase) -> Sequence[Batch]:
        """The micro-batches, none larger than memory has turned out to hold, by this phase of this step."""
        order = [one.name for one in self.updater.phases]
        limits = [
            event["to"]
            for event in self.events
            if event["event"] == "micro_batch" and (event["step"], order.index(event["phase"])) <= (step, order.index(phase.name))
        ]
        return [part for batch in batches for part in batch.split(min(limits))] if limits else batches

    def _halved(self, error: OutOfMemoryError, batches: Sequence[Batch], step: int) -> list[Batch]:
        """The micro-batches cut in two, mixed pairs kept whole; the images of a step and its result stay what they are."""
        largest = max(map(len, batches))
        if self.ranks.world > 1:  # the others are in the middle of their pass, where batch statistics wait for this one
            message = f"process {self.ranks.rank} has not enough memory for {largest} images at once"
            raise UserError(message, where="train", fix=f"--set micro_batch={max(2, largest // 4 * 2)}") from error
        if largest == 1:
            raise UserError("one image needs more memory than there is", where="train", fix="a smaller --size or --model") from error
        to = 1 if largest <= 2 else (largest + 3) // 4 * 2
        self._record({"event": "micro_batch", "step": step, "phase": error.phase.name, "from": largest, "to": to})
        self.progress.message(f"not enough memory at step {step}: {largest} images at once are now {to}; a step has as many as before")
        return [part for batch in batches for part in batch.split(to)]

    def _answer(self, error: NotFiniteError, batches: Sequence[Batch], step: int, schedule: Schedule) -> None:
        """End the run, leave the phase out of this step, or go back, as the configuration says."""
        told = self.ranks.first(lambda: self._look(error, batches, step))
        finding = str(told.pop("said"))
        done = {kind: sum(event["event"] == kind for event in self.events) for kind in ("skip", "back")}
        if self.config.on_nan == "skip" and done["skip"] < max(MOST_SKIPPED, schedule.total // 100):
            self._record({"event": "skip", **told})
            self.progress.message(f"{error} at step {step}{finding}; the step is left out")
        elif self.config.on_nan == "back" and done["back"] < MOST_BACK:
            raise BackError(f"{error} at step {step}{finding}", told, None) from error
        else:
            raise refusal(error, step, finding, self.rate(step, schedule)) from error

    def _look(self, error: NotFiniteError, batches: Sequence[Batch], step: int) -> dict[str, Any]:
        """What is known of the fault, as the event that tells of it; the first process looks at the images of all."""
        if self.updater.sharded:  # nobody alone could run the network
            file = diagnosis.keep(self.run, self.loader.step(self._place), self.loader, step)
            said = f"; with --shard no image is looked for; the batch is in {file}"
            return {"step": step, "phase": error.phase.name, "what": error.what, "images": [], "module": "", "said": said}
        if self.ranks.world > 1:
            whole = self.loader.step(self._place)
            batches = [batch.to(batches[0].images.device, channels_last=self.config.channels_last) for batch in whole]
        positions, module = diagnosis.diagnose(error, self.updater.model, batches, step)
        names = self.loader.names(_array(positions)) if positions else []
        finding = diagnosis.Finding(tuple(dict.fromkeys(names)), module, diagnosis.keep(self.run, batches, self.loader, step))
        told: dict[str, Any] = {"step": step, "phase": error.phase.name, "what": error.what, "images": list(finding.images)}
        return {**told, "module": finding.module, "said": str(finding)}

    def judge(self, fault: str, step: int, good: int, schedule: Schedule) -> None:
        """Go back to step `good`, end the run or only say it, as the configuration says, where an evaluation found a `fault`."""
        if not fault:
            return
        done = sum(event["event"] == "back" for event in self.events)
        message = f"{fault}, at step {step}"
        if self.config.on_nan == "back" and done < MOST_BACK:
            raise BackError(message, {"step": step, "fault": fault}, good)
        if self.config.on_nan == "skip":
            self.progress.message(message)
            return
        again = f" {done} times" if done else ""
        fix = f"lower the rate, e.g. --set lr={self.rate(step - 1, schedule) / 4:g}, or see the other losses and penalties of generation.*"
        raise UserError(f"{message}; gone back{again} already" if done else message, fix=fix)

    def went_back(self, told: dict[str, Any], to: int) -> None:
        """Record that the run goes on from step `to`, slower. Each time counts."""
        event = {"event": "back", **told, "to": to}
        self.events.append(event)
        if self.ranks.is_first:
            self.run.append_event(event)

    def _record(self, event: dict[str, Any]) -> None:
        """What a resumed run meets again is not told twice."""
        if event not in self.events:
            self.events.append(event)
            if self.ranks.is_first:
                self.run.append_event(event)


def _array(positions: Sequence[int]) -> Any:
    import numpy as np

    return np.array(positions, np.int64)
