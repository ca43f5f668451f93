"""SIGINT and SIGTERM end a run after the step in progress, a second one at once; SIGUSR1 has the state saved, and the run goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

NOTICE = signal.SIGUSR1  # that a scheduler sends some time before it takes the machine away


class StopSignals:
    """While this context is entered, `received` is the number of the signal that came, or None; `noticed`: a save was asked for."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.noticed = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM, NOTICE)}
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == NOTICE:
            self.noticed = True
            return
        if self.received is not None:
            os._exit(128 + number)
        self.received = number


@contextmanager
def notices_ignored() -> Iterator[None]:
    """Where there is nothing to save yet, or no longer, SIGUSR1 must not end the process, which is what it does by default."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(NOTICE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(NOTICE, before)
