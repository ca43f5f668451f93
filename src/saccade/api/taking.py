"""The weights of a file into a new network: what fits, of the classes that both know, with preprocessing and descent."""

from __future__ import annotations

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

    from saccade.nn.weights import Rows


def take(task: Task, config: TrainConfig, schema: Schema, model: nn.Module, card: Card, progress: Progress) -> Card:
    """Fill `model`, which the task made of configuration and schema, with the weights of the configuration's file where they fit, and with
    what a model of ours knows of each class, those that are here too. Returns the card with the file's preprocessing and descent.

    Raises UserError where they fill less than `config.weights_share`, or where the file cannot be read.
    """
    from saccade.nn import checkpoints
    from saccade.nn.layers import normalize

    checkpoint = checkpoints.read(Path(config.weights))
    theirs = checkpoint.card
    known = theirs.classes if theirs is not None else ()
    same = [(known.index(name), place) for place, name in enumerate(card.classes) if name in known]
    try:
        taken = checkpoints.take(model, checkpoint, rows_of_classes(task, config, schema, model, card), same, config.weights_share)
    except UserError as error:
        fix = f"it is a {theirs.architecture.get('name')}: give --model" if theirs is not None else error.fix
        raise UserError(error.message, where=error.where, fix=f"{fix}, or allow it by --set weights_share=0") from None
    kept = f"; of {len(same)} of {len(card.classes)} classes what it knows of them" if card.classes else ""
    progress.message(f"took from {config.weights}: {taken}{kept}")
    card = replace(card, licenses=checkpoint.descent())
    if theirs is not None and theirs.input.channels == card.input.channels:
        card = replace(card, input=replace(card.input, mean=theirs.input.mean, std=theirs.input.std))
        normalize.standardise(model, card.input)
    return card


def rows_of_classes(task: Task, config: TrainConfig, schema: Schema, model: nn.Module, card: Card) -> dict[str, Rows]:
    """Which tensors have rows of classes. Those of libraries that mix classes with anchors are left out: their order is not known."""
    import torch

    from saccade.nn import weights

    if not card.classes:
        return {}
    one_more = "\0".join((*schema.classes, ""))  # a name that none of them is
    wider = replace(schema, classes=(*schema.classes, one_more), shares=())
    config = replace(config, pretrained=False, segmentation=replace(config.segmentation, class_weights=()))
    with torch.random.fork_rng(devices=[]):
        other, _ = task.create(config, wider)
    found = weights.rows_of_classes(model, other, len(card.classes))
    return {name: rows for name, rows in found.items() if rows.each == 1 or card.architecture.get("source") == "saccade"}
