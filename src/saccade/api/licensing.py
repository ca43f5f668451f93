"""Whether weights from elsewhere are under a licence that the user allows: asked before they are read or fetched. Loads no torch, but for
tags of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.api.models import model_path
from saccade.core import licenses, modelfile
from saccade.core.config import TrainConfig
from saccade.tasks import MAKING, room
from saccade.tasks.classification.models import hf_rows
from saccade.tasks.generation.metrics import INCEPTION

LEARNED = ("classifier", "clusters")  # features of made images that are no weights from elsewhere


def check(config: TrainConfig) -> None:
    """Raise UserError where any weights that a run would take are not under one of its `license` (none: any)."""
    by = config.license
    if config.weights:
        of_file(config.weights, by, where="--weights")
    if config.pretrained and config.model:
        published(config.task, config.model, by)
    features = config.generation.features
    if config.task not in MAKING or features in LEARNED:
        return
    if Path(features).suffix == ".safetensors" or Path(features).is_dir():
        of_file(model_path(features), by, where="generation.features")
    elif features == INCEPTION:
        from saccade.tasks.generation import inception

        licenses.refuse([licenses.link(features, license=inception.WEIGHTS.license)], by, where="generation.features")
    else:
        published("classify", features, by, where="generation.features")


def of_file(file: str | Path, by: Sequence[str], *, where: str) -> None:
    """Raise UserError where a file of weights descends from any that are not under one of the licences `by` (none: any). A model that
    saccade trained from nothing descends from none; what a file without a card is under is not known."""
    if not by:
        return
    card = None if modelfile.is_pickled(file) else modelfile.peek(file)
    if card is not None:
        licenses.refuse(card.licenses, by, where=where)
        return
    fix = "saccade adopt FILE --license NAME makes a model file that states it"
    licenses.refuse([licenses.link(licenses.name_of(Path(file)), license=licenses.UNKNOWN)], by, where=where, fix=fix)


def published(task: str, model: str, by: Sequence[str], *, where: str = "--pretrained") -> None:
    """The same of the published weights of a model, before they are fetched."""
    if not by:
        return
    rows = {row.name: row for row in room(task).models()}
    license = rows[model].license if model in rows else ""
    if model not in rows and model.partition(".")[0] in rows:  # a tag is a set of weights of its own
        from saccade.nn import pretrained

        license = pretrained.weights(model).license
    if task == "classify" and model not in rows and model.startswith(hf_rows.PREFIX):  # its model card says, which is fetched alone
        from saccade.tasks.classification.models import hf

        license = hf.license_of(model)[0]
    licenses.refuse([licenses.link(model, license=license)], by, where=where)
