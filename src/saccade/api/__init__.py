"""Short functions, and the only place where a room meets an engine. Importing it loads no torch."""

from saccade.api.benching import Bench, bench
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
from saccade.prediction.pipeline import Failed
from saccade.prediction.predictions import Predictions

__all__ = [
    "Bench",
    "Evaluation",
    "Explanations",
    "Export",
    "ExportedModel",
    "Failed",
    "Generated",
    "Model",
    "Predictions",
    "Run",
    "bench",
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
    "train",
    "verify",
]
