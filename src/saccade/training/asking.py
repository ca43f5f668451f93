"""What other processes ask of a run in progress (`core/requests.py`), taken up between two steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.core import requests
from saccade.core.errors import UserError, unknown
from saccade.training.trying import tried

if TYPE_CHECKING:
    from saccade.training.loop import Trainer

LOOK_EVERY = 0.1  # seconds between looks
SETTINGS = "settings"  # what is to be taken back, where it is no edit
_KNOWN = ("dry_run", "edits", "settings", "snapshot", "state", "undo")


class Asking:
    """paused, stopped: what was asked of the loop itself; away: seconds paused."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._looked = 0.0
        self._answered: set[str] = set()  # those whose file could not be removed too
        self.paused = self.stopped = False
        self.away = 0.0

    def asked(self) -> bool:
        """Whether there is a request; the first process looks, now and then."""
        if not self._trainer.job.ranks.is_first or time.monotonic() - self._looked < LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        return bool(self._pending())

    def wait(self) -> None:
        """A moment of a pause."""
        begin = time.monotonic()
        time.sleep(LOOK_EVERY / 2)
        self.away += time.monotonic() - begin

    def answer(self) -> None:
        """Take up all requests in their order; all processes do so together."""
        ranks, changes = self._trainer.job.ranks, self._trainer.changes
        for name in ranks.first(self._pending):
            path = self._trainer.job.run.requests / name
            before = changes.done(name)  # by a process that was killed before it could answer
            found = {"edits": [], "settings": {}} if before is not None else tried(lambda path=path: self._done(path))  # type: ignore[misc]
            if "error" in found:
                self._trainer.job.progress.message(f"not done: {UserError(**found['error'])}")
            self._answered.add(name)
            if ranks.is_first:
                self._tell(path, {"step": self._trainer.state.step if before is None else before, **found})

    def _pending(self) -> list[str]:
        return [path.name for path in requests.pending(self._trainer.job.run) if path.name not in self._answered]

    def _tell(self, path: Path, found: Mapping[str, Any]) -> None:
        try:
            requests.answer(path, found)
        except UserError as error:  # who asked may have made the folder so that we cannot write there
            self._trainer.job.progress.message(f"cannot answer a request: {error}")

    def _done(self, path: Path) -> dict[str, Any]:
        """Do what one request asks for; gives what is answered. Raises UserError, and then nothing has changed."""
        told = self._trainer.job.ranks.first(lambda: tried(lambda: {"request": requests.read(path)}))
        if "error" in told:
            raise UserError(**told["error"])
        request = told["request"]
        if not request or not set(request) <= set(_KNOWN):
            raise UserError(f"a request has {', '.join(_KNOWN)}, got {', '.join(sorted(request)) or 'nothing'}", where="requests")
        state = request.get("state")
        if state is not None and state not in requests.STATES:
            raise unknown("state", str(state), requests.STATES, where="set")
        changes, name, rows = self._trainer.changes, path.name, list[dict[str, Any]]()
        texts = [str(text) for text in request.get("edits", ())]
        if texts and request.get("dry_run"):
            rows = changes.look(texts)
        elif texts:
            rows = [changes.edit(text, request=name) for text in texts[:1]]
        undo, settings = request.get("undo"), request.get("settings")
        if undo and undo != SETTINGS:
            rows.append(changes.take_back(name))
        if undo == SETTINGS:
            settings = changes.set_back(name)
        elif settings:
            changes.set(settings, name)
        self._switch(state)
        if request.get("snapshot"):
            self._trainer.save_now()
        return {"edits": rows, "settings": dict(settings or {})}

    def _switch(self, state: str | None) -> None:
        if state is None:
            return
        self.stopped = state == "stopped"
        if self.paused != (state == "paused"):
            self.paused = not self.paused
            self._trainer.changes.note({"event": "paused" if self.paused else "running"})
            self._trainer.changes.say("paused" if self.paused else "going on")
