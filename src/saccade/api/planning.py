"""From what the user asked for to the configuration of a run: recipe, then file, then options."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saccade.api import licensing
from saccade.core import config as configs
from saccade.core import files, modelfile
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError, unknown
from saccade.core.scheduled import Scheduled
from saccade.data.dataset import Dataset
from saccade.task import SECTIONS, Budget, refuse_sections, refuse_stuff
from saccade.tasks import MAKING, ROOMS, known_as, room
from saccade.tasks.classification.models import hf_rows

VALUED = ("task", "model", "epochs", "minutes", "batch", "weights", "workers", "device", "precision", "seed")
FLAGS = {
    ("pretrained", True): "--pretrained",
    ("skip_bad", True): "--skip-bad",
    ("compile", True): "--compile",
    ("shard", True): "--shard",
    ("images", False): "--no-images",
}


def settle(config: str | Path | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set, by dotted key: a configuration file's values, the options over them; checked as far as no data are needed.

    Raises UserError. Loads no torch, but for a head on a network of timm: a typing error must not cost its start.
    """
    values: dict[str, Any] = {}
    for layer in (read_config(config) if config is not None else {}, asked):
        if "epochs" in layer:
            values["minutes"] = None
        values |= layer
    if isinstance(values.get("size"), str | int):
        values["size"] = configs.parse_size(str(values["size"]))
    if isinstance(values.get("model"), str):
        if Path(values["model"]).suffix in modelfile.SUFFIXES:
            problem = "must be the name of a network, is that of a file of weights"
            raise UserError(problem, where=f"--model {values['model']}", fix="--weights FILE starts from it")
        values["model"] = known_as(values["model"])
    checked = _checked(values)
    room(checked.task)
    if "model" in values:
        _check_model(checked, [checked.task] if "task" in values else able(checked.model))
    if checked.weights and (card := _card(checked.weights)) is not None and values.get("task", card.task) == card.task:
        name = str(card.architecture.get("name", ""))
        if "model" not in values and any(row.name == name for row in room(card.task).models()):
            values["model"] = name
    if checked.license:
        model = str(values.get("model", ""))
        licensing.check(replace(checked, model=model, task=checked.task if "task" in values or not model else knowing(model)))
    return values


def _learned(given: TrainConfig, task: str) -> tuple[int, int] | None:
    """The size that the weights to start from were trained at: their card's, or what their network was made for."""
    card = _card(given.weights)
    if card is not None:
        return card.input.size if card.task == task else None
    return next((row.size for row in room(task).models() if row.name == given.model.partition(".")[0]), None)


def _card(weights: str) -> Card | None:
    """Of a model of ours; raises UserError for a file that is neither that, nor other safetensors, nor pickled."""
    return None if modelfile.is_pickled(weights) else modelfile.peek(weights)


def _check_model(config: TrainConfig, tasks: Sequence[str]) -> None:
    """Raise UserError where none of the tasks can do what is asked: which of them it is, the data are still to say."""
    reasons = []
    for task in tasks:
        try:
            return _check(config, task)
        except UserError as error:
            reasons.append(error)
    raise reasons[0]


def _check(config: TrainConfig, task: str) -> None:
    room(task).check(config)
    refuse_sections(config, task)


def able(model: str) -> list[str]:
    """The tasks that have a model of this name; raises UserError as `knowing`."""
    return [task for task in ROOMS if any(row.name == model for row in room(task).models())] or [knowing(model)]


def knowing(model: str) -> str:
    """The task of a model, where the data are still to say for which they are; raises UserError with the nearest of all names."""
    named = {row.name: task for task in ROOMS for row in room(task).models()}
    if model in named:
        return named[model]
    if model.startswith(hf_rows.PREFIX):
        hf_rows.check(model)
        return "classify"
    reasons: list[UserError] = []
    for task in ROOMS if "/" in model or "." in model else ():  # heads on networks, and tags of weights, stand in no table
        try:
            room(task).check(TrainConfig(model=model))
        except UserError as error:
            reasons.append(error)
        else:
            return task
    said = [error for error in reasons if "/" in model and model not in error.message]  # of a head that is known
    raise said[0] if said else unknown("model", model, named, where="--model")


def plan(dataset: Dataset, values: Mapping[str, Any], device: str) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration and its reasons. values: what `settle` gave; all else is the recipe's."""
    task = values.get("task") or dataset.schema.task
    if task != dataset.schema.task:
        raise UserError(f"the task must be {dataset.schema.task} for class folders, got {task}", where="--task")
    given = _checked(values)
    size = given.size if "size" in values else None
    epochs = given.epochs if "epochs" in values else None
    schema = replace(dataset.schema, shares=dataset.shares()) if task == "segment" else dataset.schema
    learned = _learned(given, task) if given.weights else None
    budget = Budget(epochs, given.minutes, given.model, size, given.pretrained or bool(given.weights), learned, given.pretrained)
    base, reasons = room(task).recipe(schema, device, budget)
    config = configs.override(base, {**values, "data": str(dataset.opened), "task": task})
    _check(config, task)
    if task in SECTIONS["objects"]:
        refuse_stuff(config, schema.stuff)
    check_start(config)
    return config, [line for line in reasons if line.split(":")[0].split(" ")[0] not in values]


def check_start(config: TrainConfig) -> None:
    """Raise UserError where something is asked for that only weights which have learned before can have."""
    for key in ("unfreeze", "start_decay"):
        if getattr(config, key) and not (config.pretrained or config.weights):
            raise UserError("is for weights that have learned before", where=key, fix="--pretrained or --weights FILE, or leave it out")
        if getattr(config, key) and config.shard:
            raise UserError("is not done where weights are spread over processes", where=key, fix="leave --shard out")


def read_config(path: str | Path) -> dict[str, Any]:
    """The values that a JSON configuration sets, by dotted key; a run's own run.json sets all of them."""
    raw = files.read_json(Path(path))
    if not isinstance(raw, dict):
        raise UserError("a configuration must be a JSON object", where=str(path))
    values = raw.get("config", raw)
    configs.from_dict(values, where=str(path))
    return configs.dotted(values)


def command(dataset: Dataset, config: str | Path | None, asked: Mapping[str, Any]) -> str:
    """The line for a shell that repeats a run, however it was started."""
    words = ["saccade", "train", str(dataset.opened)] + (["--config", str(Path(config).absolute())] if config is not None else [])
    for name, value in asked.items():
        words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool) and (name, value) in FLAGS:
        return [FLAGS[name, value]]
    if name == "size" and isinstance(value, tuple):
        return ["--size", "x".join(map(str, value))]
    if name == "edits":
        return [word for text in value for word in ("--edit", text)]
    if name == "license":
        return ["--license", ",".join(value)]
    if name in VALUED and value is not None:
        return [f"--{name}", str(value)]
    return ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]


def _checked(values: Mapping[str, Any]) -> TrainConfig:
    """The values in a configuration of defaults; raises UserError for keys and values that no data could make right."""
    config = configs.override(TrainConfig(), values)
    for key, value in configs.dotted(asdict(config)).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} must be a finite number, got {value}", where="--set")
    if config.compile and (config.shard or config.task in MAKING):
        other = "--shard" if config.shard else "models that make images, whose losses are differentiated twice"
        raise UserError(f"--compile does not go with {other}", where="train")
    for text in config.edits:
        Scheduled.parse(text)
    if config.minutes is not None and not config.minutes:
        raise UserError("minutes must be above 0", where="--minutes")
    if "epochs" in values and not config.epochs and config.minutes is None:
        raise UserError("epochs must be above 0", where="--epochs", fix="or give --minutes")
    return config
