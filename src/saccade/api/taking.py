"""The weights of a file into a new network: what fits, of the classes that both know, with preprocessing and descent."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.data.sample import Schema
from saccade.task import Task

if TYPE_CHECKING:
    from torch import nn

    from saccade.nn.checkpoints import Place


def take(task: Task, config: TrainConfig, schema: Schema, model: nn.Module, card: Card, progress: Progress) -> tuple[Card, frozenset[str]]:
    """Fill `model`, which the task made of configuration and schema, with the weights of the configuration's file where they fit, and with
    what a model of ours knows of each class, those that are here too. Returns the card with the file's preprocessing and descent, and the
    names of the tensors that were filled whole.

    Raises UserError where they fill less than `config.weights_share`, or where the file cannot be read.
    """
    from saccade.nn import checkpoints, coco, fitting
    from saccade.nn.layers import normalize

    checkpoint = checkpoints.read(Path(config.weights))
    theirs = checkpoint.card
    known = theirs.classes if theirs is not None else coco.classes(config.model, checkpoint.path)
    same = [(known.index(name), here) for here, name in enumerate(card.classes) if name in known]
    try:
        where = place(task, config, schema, model, card, theirs)
        taken = checkpoints.take(model, checkpoint, where, same, config.weights_share)
    except UserError as error:
        fix = f"it is a {theirs.architecture.get('name')}: give --model" if theirs is not None else error.fix
        raise UserError(error.message, where=error.where, fix=f"{fix}, or allow it by --set weights_share=0") from None
    fresh = f"; its {len(card.classes)} classes are learned anew, as the file knows none of their names"
    kept = f"; of {len(same)} of {len(card.classes)} classes what it knows of them" if same else fresh if card.classes else ""
    progress.message(f"took from {config.weights}: {taken}{kept}")
    card = replace(card, licenses=checkpoint.descent())
    if theirs is not None:
        seen, count = theirs.input, card.input.channels
        mean, std = fitting.spread(seen.mean, count, fitting.OPAQUE), fitting.spread(seen.std, count, fitting.ALPHA_STD)
        card = replace(card, input=replace(card.input, mean=mean, std=std))
        normalize.standardise(model, card.input)
    return card, frozenset(taken.match.names) - where.rows.keys()


def edited(task: Task, config: TrainConfig, schema: Schema, progress: Progress) -> tuple[nn.Module, Card] | None:
    """The network of the configuration's file, where that has edits, with its weights and its card, which carries them on; None for files
    without, or of another model, of which `take` takes what fits. Channels, size and classes become those of the data by edits more.
    Raises UserError where they cannot."""
    from saccade.editing import planning
    from saccade.editing.edit import MOST_TEXT, rebuild
    from saccade.nn import checkpoints, weights

    checkpoint = checkpoints.read(Path(config.weights))
    card = checkpoint.card
    if card is None or not card.edits or card.task != task.name or card.architecture.get("name") != config.model:
        return None
    model = rebuild(card, task.build, checkpoint.tensors)
    weights.load_into(model, checkpoint.tensors, where=config.weights)
    many = f"its {len(card.edits)} edits" if len(card.edits) > 1 else "its edit"
    progress.message(f"took from {config.weights}: its network, with {many}")
    for text in _towards(card, config, schema):
        if len(text) > MOST_TEXT:
            raise UserError(f"its network has edits, and the data have {len(schema.classes)} other classes", where=config.weights)
        planned = planning.plan(text, model, card, task.build, config.seed)
        model, card = planned.network, planned.card
        progress.message(text)
    return model, replace(card, ids=schema.ids, stuff=schema.stuff, metrics={}, licenses=checkpoint.descent())


def _towards(card: Card, config: TrainConfig, schema: Schema) -> list[str]:
    """The edits that make a model one for these data."""
    found = []
    if card.input.channels != config.channels:
        found.append(f"set-input-channels {config.channels}")
    if card.input.size != config.size:
        found.append(f"set-size {config.size[0]}x{config.size[1]}")
    if card.classes != tuple(schema.classes):
        found.append(shlex.join(["set-classes", *(f"={name}" for name in schema.classes)]))
    return found


def place(task: Task, config: TrainConfig, schema: Schema, model: nn.Module, card: Card, theirs: Card | None = None) -> Place:
    """What the tensors of a new network are for, told by those of the same network with a class more and other channels; theirs: the card
    of the file whose weights it takes. Rows of libraries that mix classes with others are left out where their order is not known."""
    import torch

    from saccade.nn import fitting, weights
    from saccade.nn.checkpoints import Place

    count = card.input.channels
    one_more = "\0".join((*schema.classes, ""))  # a name that none of them is
    wider = replace(schema, classes=(*schema.classes, one_more) if card.classes else (), shares=(), ids=())
    plain = replace(config.segmentation, class_weights=())
    changed = replace(config, pretrained=False, channels=1 if count == 3 else 3, segmentation=plain)
    with torch.random.fork_rng(devices=[]):
        other, _ = task.create(changed, wider)
    rows = weights.rows_of_classes(model, other, len(card.classes)) if card.classes else {}
    rows = {name: part for name, part in rows.items() if part.each == 1 or card.architecture.get("source") in ("saccade", "torchvision")}
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    seen = {name: fitting.sees(value.shape, shapes[name], count) for name, value in model.state_dict().items() if name in shapes}
    inputs = [name for name, channels in seen.items() if channels == changed.channels]
    inner = (theirs.architecture if theirs is not None else {}).get("inner")
    other_size = isinstance(inner, list) and inner != card.architecture.get("inner")
    return Place(rows, inputs, count, (int(inner[0]), int(inner[1])) if other_size and isinstance(inner, list) else None)
