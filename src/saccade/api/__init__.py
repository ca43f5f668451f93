"""Short functions, and the only place where a room meets an engine. Importing it loads no torch."""

from saccade.api.evaluating import eval, eval_predictions
from saccade.api.explaining import Explanations, explain
from saccade.api.models import Model, load
from saccade.api.predicting import predict
from saccade.api.runs import Run, load_run
from saccade.api.starting import quickstart
from saccade.api.training import train
from saccade.evaluation.result import Evaluation
from saccade.prediction.pipeline import Predictions

__all__ = [
    "Evaluation",
    "Explanations",
    "Model",
    "Predictions",
    "Run",
    "eval",
    "eval_predictions",
    "explain",
    "load",
    "load_run",
    "predict",
    "quickstart",
    "train",
]
