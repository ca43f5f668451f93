"""`edit`: a model file with a changed network."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.api import controlling
from saccade.api.models import load_model
from saccade.core import modelfile
from saccade.core.card import MAX_CARD_BYTES, Card
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.core.rundir import RunDir
from saccade.tasks import room

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Edited:
    """What was changed. model: the new file, None where nothing was written; edits: of each the text, the promise ("exact": the outputs
    stay what they were, for classes that stay and pictures that both networks can be shown), parameters and FLOPs of one image before and
    after, the modules that were touched, the largest difference of the outputs it was tried on, and the tensors with other shapes; step:
    of the run that trains on with it."""

    model: Path | None
    edits: Sequence[Mapping[str, Any]] = field(repr=False)
    step: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {"edits": [dict(row) for row in self.edits], "step": self.step, "model": None if self.model is None else str(self.model)}


def edit(
    target: str | Path,
    *edits: str,
    dry_run: bool = False,
    undo: bool = False,
    out: str | Path | None = None,
    seed: int = 0,
) -> Edited:
    """Change the network of a model file by `edits`, one line each, such as "widen layer2 1.5", in turn, and write it to a new file; or
    that of a run which trains now, between two of its steps.

    dry_run: say what would change, and change nothing; undo: take the last edit back instead; out: by default NAME-edited.safetensors
    beside the model; seed: of weights that are new (a run has its own). Raises UserError, and writes nothing, for an edit that cannot be
    made; of a run, those before it are made then.
    """
    path = Path(target)
    if undo == bool(edits):
        raise UserError("must be edits, or --undo alone", where="edit", fix='saccade edit MODEL "widen layer2 1.5"')
    given: Sequence[object] = edits
    if others := [one for one in given if not isinstance(one, str)]:
        raise UserError(
            f"edits must be texts, one after the other, got a {type(others[0]).__name__}", where="edit", fix="edit(MODEL, *EDITS)"
        )
    if path.is_dir():
        return _of_run(controlling.found(path), edits, dry_run=dry_run, undo=undo, out=out, seed=seed)
    from saccade.editing import planning
    from saccade.nn import weights

    for text in edits:
        planning.parse(text)
    new = Path(out) if out is not None else path.with_name(f"{path.stem}-edited.safetensors")
    if not dry_run and (new.exists() or new.suffix != ".safetensors"):
        problem = "exists already" if new.exists() else "must end in .safetensors"
        raise UserError(problem, where=str(new), fix="name a new file with --out")
    model = load_model(path, device="cpu")
    network, card, rows = model.module, model.card, []
    build = room(card.task).build
    if undo:
        network, card, row = _taken_back(network, card)
        rows.append(row)
    for text in edits:
        planned = planning.plan(text, network, card, build, seed)
        network, card = planned.network, planned.card
        rows.append(planned.to_dict())
    buffers = weights.to_buffers(network)
    _check_opens(card, buffers)
    return Edited(None if dry_run else modelfile.save(new, buffers, card), rows)


def _of_run(run: RunDir, edits: Sequence[str], *, dry_run: bool, undo: bool, out: str | Path | None, seed: int) -> Edited:
    """Ask the process that trains it, one edit after the other."""
    if out is not None:
        raise UserError("a run keeps its network to itself", where="--out", fix=f"edit its model: {run.best}")
    if seed:
        raise UserError("a run draws new weights by its own seed", where="--seed", fix="leave --seed out")
    if undo and dry_run:
        raise UserError("a run's edit is taken back or not", where="--dry-run", fix="leave --dry-run out")
    if not controlling.trains(run):
        controlling.check_resumable(run)
        again = f"saccade train --resume --out {shlex.quote(str(run.path))}"
        raise UserError("the run does not train now", where=str(run.path), fix=f"go on with: {again}; or edit its model, {run.best}")
    wanted: list[dict[str, Any]] = [{"edits": list(edits), "dry_run": True}] if dry_run else [{"edits": [text]} for text in edits]
    told = list[dict[str, Any]]()
    for request in [*wanted, *([{"undo": True}] if undo else [])]:
        try:
            told.append(controlling.asked(run, request))
        except UserError as error:
            if not told:
                raise
            made = f"made before it: {', '.join(edits[: len(told)])}; --undo takes the last of them back, if that has a way back"
            raise UserError(error.message, where=error.where, fix="; ".join(filter(None, [error.fix, made]))) from None
    return Edited(None, [row for one in told for row in one["edits"]], None if dry_run else int(told[-1]["step"]))


def _check_opens(card: Card, buffers: Mapping[str, Buffer]) -> None:
    """Raise UserError where the file could not be opened again: its edits are too many, or have left too little of its network."""
    from saccade.editing.edit import rebuild

    try:
        if len(card.to_json()) > MAX_CARD_BYTES:
            raise UserError(f"its card would have more than {MAX_CARD_BYTES:,} bytes")
        rebuild(card, room(card.task).build, buffers)
    except UserError as error:
        fix = "fewer edits, or smaller ones; or train a model that is of this size from the first"
        raise UserError(f"the new file could not be opened: {error.message}", where="edit", fix=fix) from None


def _taken_back(network: nn.Module, card: Card) -> tuple[nn.Module, Card, dict[str, Any]]:
    """The network and the card without the last edit, and what that changes."""
    from saccade.editing import planning
    from saccade.editing.undoing import undo

    before, old = undo(network, card, room(card.task).build)
    text = f"undo {card.edits[-1]['text']}"
    effect = planning.effect(network, card, before, old)
    return before, replace(old, metrics={}), {"text": text, "promise": card.edits[-1]["promise"], "modules": [], **effect.to_dict()}
