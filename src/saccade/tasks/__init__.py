"""The rooms: one folder a task, the same doors in each (see `saccade.task`)."""

from __future__ import annotations

import importlib

from saccade.core.errors import UserError, unknown
from saccade.task import Answering, Making, Task
from saccade.tasks.classification.models import TORCHVISION, hf_rows

ROOMS = {
    "classify": ("saccade.tasks.classification.task", "Classification"),
    "detect": ("saccade.tasks.detection.task", "Detection"),
    "instances": ("saccade.tasks.instances.task", "Instances"),
    "panoptic": ("saccade.tasks.panoptic.task", "Panoptic"),
    "segment": ("saccade.tasks.segmentation.task", "Segmentation"),
    "generate": ("saccade.tasks.generation.task", "Generation"),
}
MAKING = ("generate",)


def room(name: str) -> Task:
    """The room of a task; raises UserError naming those there are."""
    if name not in ROOMS:
        raise unknown("task", name, ROOMS, where="--task")
    module, kind = ROOMS[name]
    task: Task = getattr(importlib.import_module(module), kind)()
    return task


def answering(name: str, verb: str) -> Answering:
    """The room of a task whose models answer for images; raises UserError where they make images instead."""
    if name in MAKING:
        raise UserError(
            f"this model makes images: {verb} is for models that answer for them", fix="saccade generate MODEL; saccade eval measures it"
        )
    task: Answering = room(name)  # type: ignore[assignment]
    return task


def making(name: str) -> Making:
    """The room of a task whose models make images; raises UserError where they do not."""
    if name not in MAKING:
        raise UserError(f"this model answers for images and makes none: it was trained to {name}", fix="saccade train DATA --task generate")
    task: Making = room(name)  # type: ignore[assignment]
    return task


def known_as(model: str) -> str:
    """The name here of a model that goes by another where its weights are published: hf/ustc-community/dfine-small-coco, a repository, is
    dfine_s; torchvision/fasterrcnn_resnet50_fpn and torchvision/fasterrcnn_resnet50_fpn.COCO_V1 are fasterrcnn_resnet50_fpn. Any
    other name is what it was. Raises UserError for a tag that torchvision has not."""
    repository = model.removeprefix(hf_rows.PREFIX)
    if repository != model:
        return next((row.name for task in ROOMS for row in room(task).models() if row.weights == repository), model)
    base, _, tag = model.removeprefix(TORCHVISION).partition(".")
    row = next((row for task in ROOMS for row in room(task).models() if row.tag and row.name == base), None)
    if row is None:
        return model
    if tag not in ("", row.tag, "DEFAULT"):
        raise unknown("weights", model, [f"{TORCHVISION}{base}.{row.tag}"], where="--model")
    return base
