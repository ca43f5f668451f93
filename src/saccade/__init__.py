"""saccade: from a folder of images to a trained, measured, explained computer-vision model, on PyTorch.

The public names load when they are first used: `import saccade` itself imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade import data
    from saccade.api import (
        Adopted,
        Bench,
        Changed,
        Edited,
        Embeddings,
        Evaluation,
        Explanations,
        Export,
        ExportedModel,
        Failed,
        Model,
        Predictions,
        Run,
        adopt,
        bench,
        edit,
        embed,
        eval,
        eval_predictions,
        explain,
        export,
        generate,
        load,
        load_run,
        predict,
        predict_each,
        preview,
        quickstart,
        set,
        train,
        verify,
    )
    from saccade.api.listing import models
    from saccade.core.config import TrainConfig
    from saccade.core.errors import Interrupted, SaccadeError, UserError
    from saccade.core.layers import Layers
    from saccade.core.panoptic import Panoptic
    from saccade.core.results import Classification, Detections, Generated, Instances
    from saccade.core.segmentation import Segmentation

__version__ = "0.1.0"

__all__ = [
    "Adopted",
    "Bench",
    "Changed",
    "Classification",
    "Detections",
    "Edited",
    "Embeddings",
    "Evaluation",
    "Explanations",
    "Export",
    "ExportedModel",
    "Failed",
    "Generated",
    "Instances",
    "Interrupted",
    "Layers",
    "Model",
    "Panoptic",
    "Predictions",
    "Run",
    "SaccadeError",
    "Segmentation",
    "TrainConfig",
    "UserError",
    "__version__",
    "adopt",
    "bench",
    "data",
    "edit",
    "embed",
    "eval",
    "eval_predictions",
    "explain",
    "export",
    "generate",
    "load",
    "load_run",
    "models",
    "predict",
    "predict_each",
    "preview",
    "quickstart",
    "set",
    "train",
    "verify",
]

_MODULES = {
    "Classification": "saccade.core.results",
    "Detections": "saccade.core.results",
    "Instances": "saccade.core.results",
    "Generated": "saccade.core.results",
    "Layers": "saccade.core.layers",
    "Panoptic": "saccade.core.panoptic",
    "Segmentation": "saccade.core.segmentation",
    "models": "saccade.api.listing",
    "Interrupted": "saccade.core.errors",
    "SaccadeError": "saccade.core.errors",
    "TrainConfig": "saccade.core.config",
    "UserError": "saccade.core.errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "data":
        return importlib.import_module("saccade.data")
    return getattr(importlib.import_module(_MODULES.get(name, "saccade.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
