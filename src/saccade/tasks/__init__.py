"""The rooms: one folder a task, the same doors in each (see `saccade.task`)."""

from __future__ import annotations

import importlib

from saccade.core.errors import unknown
from saccade.task import Task

ROOMS = {"classify": ("saccade.tasks.classification.task", "Classification")}


def room(name: str) -> Task:
    """The room of a task; raises UserError naming those there are."""
    if name not in ROOMS:
        raise unknown("task", name, ROOMS, where="--task")
    module, kind = ROOMS[name]
    task: Task = getattr(importlib.import_module(module), kind)()
    return task
