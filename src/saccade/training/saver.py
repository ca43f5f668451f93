"""Writing in the background: training goes on while a snapshot of it reaches the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

AHEAD = 2  # snapshots that may wait: a best model and the checkpoint after it


class Saver:
    """One thread that writes in the order in which it was asked. An error there is raised by the next call here.

    After it nothing more is written: a checkpoint whose lines before it are missing would be resumed from as if it were whole.
    """

    def __init__(self) -> None:
        self._failed = False
        self._pool = ThreadPoolExecutor(1, "saccade-saver")
        self._pending: deque[Future[object]] = deque()

    def submit(self, write: Callable[[], object]) -> None:
        """Write when the writes before are done; waits while AHEAD of them are not, so that memory stays bounded."""
        while len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self.check()
        self._pending.append(self._pool.submit(self._write, write))

    def check(self) -> None:
        """Raise what a write has met since the last call."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    def wait(self) -> None:
        """Return when everything is on the disk."""
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Let what was asked for be written, and end the thread; an error of it is passed over, since another one is on its way."""
        self._pool.shutdown(wait=True)
        self._pending.clear()

    def _write(self, write: Callable[[], object]) -> None:
        """In the thread: it alone knows of an error before the next write begins."""
        if self._failed:
            return
        try:
            write()
        except BaseException:
            self._failed = True
            raise
