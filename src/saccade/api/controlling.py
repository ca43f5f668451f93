"""What is asked of a run in progress from another process: edits of its network, settings, a pause, a snapshot."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.api.runs import read_record
from saccade.core import config as configs
from saccade.core import files, requests
from saccade.core.errors import UserError, unknown
from saccade.core.files import DamagedError, write_json
from saccade.core.rundir import RunDir
from saccade.tasks import room

POLL = 0.05
_GONE = 2.0  # seconds that an answer may still come in after the run has ended
_DOUBT = 10.0  # seconds without an answer, after which it is asked whether anybody trains the run


@dataclass(frozen=True)
class Changed:
    """What was set. step: from which step on; None where the run does not train and takes it up when it is resumed."""

    run: Path
    step: int | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    snapshot: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        facts = {"run": str(self.run), "step": self.step, "settings": dict(self.settings)}
        return facts | {"state": self.state, "snapshot": self.snapshot}


def set(
    run: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    state: str | None = None,
    snapshot: bool = False,
    undo: bool = False,
) -> Changed:
    """Change how a run trains, between two of its steps.

    settings: keys of TrainConfig that may change on the way (lr: the rate from then on, in the rise at the beginning what it rises to;
    epochs, batch, weight_decay, augment.mixup ...); state: "paused", "running" or "stopped"; snapshot: have a checkpoint written now; undo:
    what was set last holds no longer, and what held before does again (the answer has it). An interrupted run takes settings up when
    it is resumed. Raises UserError for what cannot be set, and then nothing has changed.
    """
    place, given = found(run), dict(settings or {})
    if undo and (given or state or snapshot):
        raise UserError("must be settings, or --undo alone", where="set", fix="one after the other")
    if not (given or state or snapshot or undo):
        raise UserError("nothing to set", where="set", fix=f"saccade set {shlex.quote(str(run))} lr=1e-4")
    if state is not None and state not in requests.STATES:
        raise unknown("state", state, requests.STATES, where="set")
    configs.override(configs.TrainConfig(), given, where="set")
    configs.check_changeable(given)
    request = {"settings": given, "state": state, "snapshot": snapshot, "undo": "settings" if undo else None}
    request = {key: value for key, value in request.items() if value}
    if trains(place):
        told = asked(place, request)
        back = told.get("settings")
        return Changed(place.path, int(told["step"]), dict(back) if undo and isinstance(back, Mapping) else given, state, snapshot)
    check_resumable(place)
    if state or snapshot:
        again = f"saccade train --resume --out {shlex.quote(str(run))}"
        raise UserError("the run does not train now", where=str(run), fix=f"go on with: {again}")
    _check_later(place, given)
    requests.ask(place, request)
    return Changed(place.path, None, given)


def _check_later(run: RunDir, settings: Mapping[str, Any]) -> None:
    """Raise UserError for settings that a run will refuse when it is resumed, as far as its files tell."""
    from saccade.training.budget import Resolved, check_left, steps_left
    from saccade.training.state import Saved, State, checked

    told = read_record(run)
    asked = configs.from_dict(told["config"], where=str(run.run_file))
    state = State()
    if "epochs" in settings and run.has_checkpoint():
        where = str(run.checkpoints)
        state = checked(Saved, files.parse_json(run.load_checkpoint()[1]["state.json"], where=where), where).loop
    config = configs.override(asked, {**state.settings, **settings}, where="set")
    room(config.task).check(config)
    if "epochs" in settings:
        images = checked(Resolved, told["resolved"], f"{run.run_file}: resolved").steps_per_epoch * asked.batch
        check_left(steps_left(config.epochs * images - state.position, config.batch), config.epochs, state.position / images)


def found(run: str | Path) -> RunDir:
    """The folder of a run; raises UserError where there is none."""
    place = RunDir(Path(run))
    if not place.run_file.is_file():
        raise UserError("is no run: there is no run.json in it", where=str(run), fix="name the folder of a run")
    return place


def trains(run: RunDir) -> bool:
    """Whether a process of this machine trains the run. Raises UserError where one of another does."""
    holder = run.holder()
    if holder is not None and holder[1] != socket.gethostname():
        raise UserError(f"the run is on {holder[1]}", where=str(run.path), fix="ask for it there")
    return holder is not None


def check_resumable(run: RunDir) -> None:
    """Raise UserError for a run that has come to its end."""
    if run.read_run().get("state") == "done":
        best = shlex.quote(str(run.best))
        fix = f"edit its model: saccade edit {best}, or train on from that: saccade train DATA --weights {best}"
        raise UserError("the run has ended", where=str(run.path), fix=fix)


def asked(run: RunDir, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the process that trains, and wait for its answer, which comes between two steps. Raises its UserError."""
    path = requests.place(run)
    looked, ended = time.monotonic(), None
    try:
        write_json(path, request)
        while (told := requests.answered(path)) is None:
            now = time.monotonic()
            if now - looked > _DOUBT:
                looked = now
                ended = ended or (None if run.is_locked() else now)  # a number of a process that has gone may be another's
            ended = (ended or now) if run.holder() is None or ended else None
            if ended is not None and now - ended > _GONE:
                fix = f"whether it was taken up stands in {run.events_file}"
                raise UserError("the run ended before it could answer", where=str(run.path), fix=fix)
            time.sleep(POLL)
    finally:
        requests.withdraw(path)
    error = told.get("error")
    if isinstance(error, Mapping):
        raise UserError(str(error.get("message")), where=str(error.get("where", "")), fix=str(error.get("fix", "")))
    if not isinstance(told.get("step"), int) or not isinstance(told.get("edits"), list):
        raise DamagedError("is no answer to a request", where=str(path))
    return told
