"""From what the user asked for to the configuration of a run: recipe, then file, then options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.core import config as configs
from saccade.core import files
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.opening import Dataset
from saccade.task import Budget
from saccade.tasks import room


def plan(dataset: Dataset, asked: Mapping[str, Any], base: TrainConfig | None, device: str) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration and its reasons. asked: dotted keys that the user set; base: a configuration file's, instead of the recipe."""
    task = asked.get("task") or (base.task if base else dataset.schema.task)
    if task != dataset.schema.task:
        room(task)
        raise UserError(f"the task must be {dataset.schema.task} for class folders, got {task}", where="--task")
    reasons: Sequence[str] = ()
    if base is None:
        size = configs.parse_size(asked["size"]) if isinstance(asked.get("size"), str) else asked.get("size")
        budget = Budget(asked.get("epochs"), asked.get("minutes"), asked.get("model", ""), size, bool(asked.get("pretrained")))
        base, reasons = room(task).recipe(dataset.schema, device, budget)
        reasons = [line for line in reasons if line.split(":")[0].split(" ")[0] not in asked]
    changed = configs.override(replace(base, data=str(dataset.root), task=task), asked)
    if "epochs" in asked and "minutes" not in asked:
        changed = replace(changed, minutes=None)
    if not changed.epochs and changed.minutes is None:
        raise UserError("epochs must be above 0", where="--epochs", fix="or give --minutes")
    room(task).check(changed)
    return changed, reasons


def read_config(path: str | Path) -> TrainConfig:
    """A configuration from JSON; a run's own run.json is one."""
    raw = files.read_json(Path(path))
    if not isinstance(raw, dict):
        raise UserError("a configuration must be a JSON object", where=str(path))
    return configs.from_dict(raw.get("config", raw), where=str(path))
