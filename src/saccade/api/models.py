"""A model file opened: the module, its card, and the verbs on it."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.core import modelfile
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.rundir import RunDir
from saccade.tasks import room

if TYPE_CHECKING:
    from torch import nn

    from saccade.api.explaining import Explanations
    from saccade.core.progress import Progress
    from saccade.evaluation.result import Evaluation
    from saccade.prediction.pipeline import Predictions
    from saccade.prediction.torch_session import TorchSession


@dataclass(frozen=True)
class Model:
    """An ordinary `nn.Module` (uint8 `[B, C, H, W]` in, logits out) with its card. `path` is where it came from."""

    module: nn.Module = field(repr=False)
    card: Card
    path: Path
    device: str

    def session(self, precision: str = "auto") -> TorchSession:
        """Something that answers for this model: prepared pixels in, named arrays out."""
        from saccade.prediction.torch_session import TorchSession
        from saccade.training import precision as precisions

        on = precisions.device(self.device)
        task = room(self.card.task)
        return TorchSession(self.module, self.card, task.decode, device=str(on), precision=precisions.resolve(precision, on))

    def evaluate(
        self,
        data: str | Path,
        *,
        split: str | None = None,
        precision: str = "auto",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Evaluation:
        """`saccade.eval` of this model."""
        from saccade.api.evaluating import evaluate_model

        return evaluate_model(self, data, split=split, precision=precision, seed=seed, progress=progress)

    def predict(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        format: str = "json",
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Predictions:
        """`saccade.predict` with this model."""
        from saccade.api.predicting import predict

        return predict(self, inputs, out=out, format=format, strict=strict, max_pixels=max_pixels, precision=precision, progress=progress)

    def explain(
        self, inputs: Any, *, out: str | Path | None = None, target_class: str | None = None, progress: Progress | None = None
    ) -> Explanations:
        """`saccade.explain` with this model; writes files only where `out` names a folder."""
        from saccade.api.explaining import explain, explain_with

        if out is None:
            return explain_with(self, inputs, target_class=target_class, progress=progress)
        return explain(self, inputs, out=out, target_class=target_class, progress=progress)

    def _repr_html_(self) -> str:
        classes = ", ".join(self.card.classes[:10]) + (" …" if len(self.card.classes) > 10 else "")
        return f"<div><b>{html.escape(str(self.path))}</b><br>{html.escape(self.card.task)}: {html.escape(classes)}</div>"


def load(path: str | Path, *, device: str = "auto") -> Model:
    """Open a model file, or the best model of a run folder; raises UserError where that is neither."""
    from saccade.nn import weights

    file = model_path(path)
    buffers, card = modelfile.load(file)
    module = room(card.task).build(card, sum(math.prod(buffer.shape) for buffer in buffers.values()))
    weights.load_into(module, buffers, where=str(file))
    from saccade.training import precision

    return Model(module.to(precision.device(device)).eval(), card, file, str(precision.device(device)))


def model_path(path: str | Path) -> Path:
    """The model file that a target names: itself, or a run's best."""
    target = Path(path)
    if target.is_dir():
        run = RunDir(target)
        if not run.run_file.is_file():
            raise UserError("is neither a run folder nor a model file", where=str(path), fix="give what `saccade train` named")
        if not run.best.is_file():
            raise UserError("this run has no model yet", where=str(path), fix="let it train to its first evaluation")
        return run.best
    if not target.exists():
        raise UserError("no such run or model", where=str(path), fix="give a run folder or a .safetensors model file")
    return target
