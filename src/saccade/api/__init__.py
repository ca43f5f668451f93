"""Short functions, and the only place where a room meets an engine. Importing it loads no torch.

Each name's file is loaded when it is first used (PEP 562): a mistyped `train` need not wait for what exports and explains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.api.adopting import Adopted, adopt
    from saccade.api.benching import Bench, bench
    from saccade.api.controlling import Changed, set
    from saccade.api.editing import Edited, edit
    from saccade.api.embedding import embed
    from saccade.api.evaluating import eval, eval_predictions
    from saccade.api.explaining import Explanations, explain
    from saccade.api.exporting import Export, export
    from saccade.api.generating import generate
    from saccade.api.models import ExportedModel, Model, load
    from saccade.api.predicting import predict, predict_each
    from saccade.api.previewing import preview
    from saccade.api.runs import Run, load_run
    from saccade.api.starting import quickstart
    from saccade.api.training import train
    from saccade.api.verifying import verify
    from saccade.core.results import Generated
    from saccade.evaluation.result import Evaluation
    from saccade.prediction.embeddings import Embeddings
    from saccade.prediction.pipeline import Failed
    from saccade.prediction.predictions import Predictions

__all__ = [
    "Adopted",
    "Bench",
    "Changed",
    "Edited",
    "Embeddings",
    "Evaluation",
    "Explanations",
    "Export",
    "ExportedModel",
    "Failed",
    "Generated",
    "Model",
    "Predictions",
    "Run",
    "adopt",
    "bench",
    "edit",
    "embed",
    "eval",
    "eval_predictions",
    "explain",
    "export",
    "generate",
    "load",
    "load_run",
    "predict",
    "predict_each",
    "preview",
    "quickstart",
    "set",
    "train",
    "verify",
]

_MODULES = {
    "Adopted": "saccade.api.adopting",
    "adopt": "saccade.api.adopting",
    "Bench": "saccade.api.benching",
    "Embeddings": "saccade.prediction.embeddings",
    "Changed": "saccade.api.controlling",
    "Edited": "saccade.api.editing",
    "Evaluation": "saccade.evaluation.result",
    "Explanations": "saccade.api.explaining",
    "Export": "saccade.api.exporting",
    "ExportedModel": "saccade.api.models",
    "Failed": "saccade.prediction.pipeline",
    "Generated": "saccade.core.results",
    "Model": "saccade.api.models",
    "Predictions": "saccade.prediction.predictions",
    "Run": "saccade.api.runs",
    "bench": "saccade.api.benching",
    "embed": "saccade.api.embedding",
    "edit": "saccade.api.editing",
    "eval": "saccade.api.evaluating",
    "eval_predictions": "saccade.api.evaluating",
    "explain": "saccade.api.explaining",
    "export": "saccade.api.exporting",
    "generate": "saccade.api.generating",
    "load": "saccade.api.models",
    "load_run": "saccade.api.runs",
    "predict": "saccade.api.predicting",
    "predict_each": "saccade.api.predicting",
    "preview": "saccade.api.previewing",
    "quickstart": "saccade.api.starting",
    "set": "saccade.api.controlling",
    "train": "saccade.api.training",
    "verify": "saccade.api.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
