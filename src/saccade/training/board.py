"""The run's figures as TensorBoard events, for those who watch runs there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saccade.core.files import os_error


class Board:
    """Writes the rows of metrics.jsonl as scalars, nowhere without a folder; `purge_step` hides what an interrupted run wrote beyond it."""

    def __init__(self, folder: Path | None, *, purge_step: int | None) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._folder, self._hook = folder, threading.excepthook
            threading.excepthook = self._hear
            try:
                with _told(folder):
                    self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)
            except BaseException:
                threading.excepthook = self._hook
                raise

    def add(self, row: Mapping[str, Any]) -> None:
        """One row: a training step, or an evaluation with its `split` and `metrics`."""
        group = row.get("split", "train")
        values = row.get("metrics", {name: value for name, value in row.items() if isinstance(value, float) and name != "epoch"})
        if self._writer is None:
            return
        with _told(self._folder):
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def close(self) -> None:
        """Flush what is left."""
        if self._writer is not None:
            threading.excepthook = self._hook
            with _told(self._folder):
                self._writer.close()

    def _hear(self, found: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread prints what it meets, and raises it again at the next call here: once is enough."""
        if not type(found.thread).__module__.startswith("tensorboard."):
            self._hook(found)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """TensorBoard's own errors, those of its thread too, as one line that names the place."""
    try:
        yield
    except OSError as error:
        raise os_error(error, folder) from error
