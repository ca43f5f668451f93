"""The edits that a configuration plans for a run, tried out before an image is read, and their times before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.scheduled import Scheduled
from saccade.tasks import room

if TYPE_CHECKING:
    from torch import nn

    from saccade.core.progress import Progress
    from saccade.editing.live import Editor
    from saccade.training.budget import Resolved


def editor(config: TrainConfig) -> Editor:
    """What edits the network of a run on its way."""
    from saccade.editing.live import Editor

    return Editor(room(config.task).build, config.seed)


def check_texts(config: TrainConfig) -> None:
    """Raise UserError for a planned edit that is none, before any image is read."""
    planned = [Scheduled.parse(text) for text in config.edits]
    if planned:
        from saccade.editing import planning

        for one in planned:
            planning.parse(one.edit)


def try_out(config: TrainConfig, model: nn.Module, card: Card, images: int, progress: Progress) -> None:
    """Try the planned edits in turn on a copy, and say what they would change; images: of an epoch. No image is needed for it. Raises
    UserError for one that could not be made, or that waits for another figure than there is."""
    from saccade.training import budget

    planned = [Scheduled.parse(text) for text in config.edits]
    if not planned:
        return
    known, primary = editor(config), room(config.task).metrics(card).primary
    network, per_epoch = known.copied(model), budget.steps_per_epoch(images, config.batch)
    for one in sorted(planned, key=lambda one: (one.by == "stalls", one.value * (per_epoch if one.by == "epoch" else 1))):
        if one.by == "stalls" and one.metric != primary:
            fix = f"when {primary} stalls"
            raise UserError(f"{one.metric!r} is not what the best model is told by", where=f"--edit {one.edit!r}", fix=fix)
        edit, row = known.plan(one.edit, network, card)
        known.apply(network, edit)
        card = known.card(card, edit)
        counts = f"{row['parameters_before']:,} -> {row['parameters_after']:,} parameters"
        when = f"when {primary} stalls {one.value:g}" if one.by == "stalls" else f"at {one.by} {one.value:g}"
        progress.message(f"{when}: {row['text']} ({counts})")


def check_times(config: TrainConfig, resolved: Resolved) -> None:
    """Raise UserError for a planned edit whose time would never come."""
    for one in map(Scheduled.parse, config.edits):
        where = f"--edit {one.edit!r}"
        if one.by == "stalls":
            _check_stalls(one, resolved, config.patience, where)
            continue
        end = resolved.total_steps / (resolved.steps_per_epoch if one.by == "epoch" else 1)
        if one.value >= end:
            fix = f"at {one.by} {max(0.0, end - 1) if one.by == 'step' else end / 2:g}"
            raise UserError(f"{one.by} {one.value:g} never comes, the run ends at {end:g}", where=where, fix=fix)


def _check_stalls(one: Scheduled, resolved: Resolved, patience: int, where: str) -> None:
    """Raise UserError where the run would have ended before so many evaluations without a better one: the first is the best so far, and an
    edit needs a step after it."""
    most = (resolved.total_steps - 1) // resolved.evaluate_every - 1
    if one.value > most:
        problem = f"the run has {most + 1} evaluations before its last step, of which the first is the best so far"
        fix = f"when {one.metric} stalls {most}" if most > 0 else "at epoch X, or more epochs"
        raise UserError(f"{one.value:g} without a better one never come: {problem}", where=where, fix=fix)
    if 0 < patience <= one.value:
        fix = f"--set patience={one.value + 1:g}" + (f", or when {one.metric} stalls {patience - 1}" if patience > 1 else "")
        raise UserError(f"the run stops after {patience} without a better one", where=where, fix=fix)
