"""The run's figures as TensorBoard events, for those who watch runs there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Writes the rows of metrics.jsonl as scalars, nowhere without a folder; `purge_step` hides what an interrupted run wrote beyond it."""

    def __init__(self, folder: Path | None, *, purge_step: int | None) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)

    def add(self, row: Mapping[str, Any]) -> None:
        """One row: a training step, or an evaluation with its `split` and `metrics`."""
        group = row.get("split", "train")
        values = row.get("metrics", {name: value for name, value in row.items() if isinstance(value, float) and name != "epoch"})
        for name, value in values.items():
            if value is not None and self._writer is not None:
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def close(self) -> None:
        """Flush what is left."""
        if self._writer is not None:
            self._writer.close()
