"""A model opened, from a model file or an exported one: its card, and the verbs on it."""

from __future__ import annotations

import html
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from saccade.core import finish, modelfile
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.rundir import RunDir
from saccade.prediction.opening import find_export, open_export
from saccade.prediction.session import ExportedFile, Session
from saccade.prediction.views import Looks
from saccade.tasks import answering, room

if TYPE_CHECKING:
    from torch import nn

    from saccade.api.explaining import Explanations
    from saccade.api.exporting import Export
    from saccade.core.modelfile import Buffer
    from saccade.core.progress import Progress
    from saccade.core.results import Generated, Result
    from saccade.evaluation.result import Evaluation
    from saccade.prediction.embeddings import Embeddings
    from saccade.prediction.pipeline import Failed
    from saccade.prediction.predictions import Predictions
    from saccade.prediction.torch_session import TorchSession


EXIT_THRESHOLD = "exit_threshold"  # among a card's figures: how sure an exit must be


@dataclass(frozen=True)
class Predictor(ABC):
    """The verbs of whatever predicts: the same for a module and for an exported file. `path` is where it came from."""

    card: Card
    path: Path

    @abstractmethod
    def session(self, precision: str = "auto", *, streams: int = 1) -> Session:
        """Prepared pixels in, named arrays out, for `streams` calls at once (1 answers soonest, one for each core answers most)."""

    def by_way(self, nms: str | None) -> Self:
        """The same with another way to suppress doubles, or (None) with its own: see `saccade.predict`."""
        return self if nms is None else replace(self, card=finish.by_way(self.card, nms))

    def evaluate(
        self,
        data: str | Path,
        *,
        split: str | None = None,
        nms: str | None = None,
        tile: int = 0,
        tta: bool = False,
        precision: str = "auto",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        progress: Progress | None = None,
    ) -> Evaluation:
        """`saccade.eval` of this model."""
        from saccade.api.evaluating import evaluate_model

        looks = Looks(tile, tta)
        return evaluate_model(
            self.by_way(nms), data, split=split, looks=looks, precision=precision, seed=seed, max_pixels=max_pixels, progress=progress
        )

    def predict(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        format: str | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        nms: str | None = None,
        tile: int = 0,
        tta: bool = False,
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Predictions:
        """`saccade.predict` with this model."""
        from saccade.api.predicting import predict

        return predict(
            self,
            inputs,
            out=out,
            format=format,
            strict=strict,
            max_pixels=max_pixels,
            nms=nms,
            tile=tile,
            tta=tta,
            precision=precision,
            progress=progress,
        )

    def predict_each(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        nms: str | None = None,
        tile: int = 0,
        tta: bool = False,
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Iterator[Result | Failed]:
        """`saccade.predict_each` with this model."""
        from saccade.api.predicting import predict_each

        return predict_each(
            self,
            inputs,
            out=out,
            strict=strict,
            max_pixels=max_pixels,
            nms=nms,
            tile=tile,
            tta=tta,
            precision=precision,
            progress=progress,
        )

    def _repr_html_(self) -> str:
        classes = ", ".join(self.card.classes[:10]) + (" …" if len(self.card.classes) > 10 else "")
        return f"<div><b>{html.escape(str(self.path))}</b><br>{html.escape(self.card.task)}: {html.escape(classes)}</div>"


@dataclass(frozen=True)
class Model(Predictor):
    """An ordinary `nn.Module` (uint8 `[B, C, H, W]` in, logits out) with its card."""

    module: nn.Module = field(repr=False)
    device: str

    def session(self, precision: str = "auto", *, streams: int = 1) -> TorchSession:
        """Prepared pixels in, named arrays out, for `streams` calls at once (1 answers soonest, one for each core answers most)."""
        from saccade.nn.layers.exits import leaving
        from saccade.prediction.torch_session import TorchSession
        from saccade.training import precision as precisions

        on = precisions.device(self.device)
        decode, form = answering(self.card.task, "predict").decode, precisions.resolve(precision, on)
        module = leaving(self.module, self.card.metrics.get(EXIT_THRESHOLD))
        return TorchSession(module, self.card, decode, device=str(on), precision=form, streams=streams)

    def whole(self) -> Model:
        """The same without exits being used: every image goes through to the last layer."""
        return replace(self, card=self.card.with_metrics({name: one for name, one in self.card.metrics.items() if name != EXIT_THRESHOLD}))

    def embed(
        self,
        inputs: Any,
        *,
        layer: str | None = None,
        out: str | Path | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Embeddings:
        """`saccade.embed` with this model: float32 `[N, D]`."""
        from saccade.api.embedding import embed

        return embed(self, inputs, layer=layer, out=out, strict=strict, max_pixels=max_pixels, precision=precision, progress=progress)

    def explain(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        target_class: str | None = None,
        box: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Explanations:
        """`saccade.explain` with this model; writes files only where `out` names a folder."""
        from saccade.api.explaining import explain, explain_with

        if out is None:
            return explain_with(self, inputs, target_class=target_class, box=box, progress=progress)
        return explain(self, inputs, out=out, target_class=target_class, box=box, progress=progress)

    def generate(
        self,
        *,
        n: int = 16,
        seed: int = 0,
        class_name: str | None = None,
        truncation: float = 1.0,
        interpolate: int = 0,
        from_image: Any = None,
        latents: Any = None,
        nearest: bool = False,
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Generated:
        """`saccade.generate` with this model."""
        from saccade.api.generating import generate

        return generate(
            self,
            n=n,
            seed=seed,
            class_name=class_name,
            truncation=truncation,
            interpolate=interpolate,
            from_image=from_image,
            latents=latents,
            nearest=nearest,
            out=out,
            progress=progress,
        )


@dataclass(frozen=True)
class ExportedModel(Predictor):
    """A file that `saccade export` wrote, on its own runtime: no torch. `file.target`, `file.precision` and `file.runtime` say which."""

    file: ExportedFile = field(repr=False)

    def session(self, precision: str = "auto", *, streams: int = 1) -> Session:
        """As of a Model; raises UserError for another precision than the file's own."""
        if precision not in ("auto", self.file.precision):
            fix = f"export it again with --precision {precision}"
            raise UserError(f"this file computes in {self.file.precision}, not in {precision}", where=str(self.path), fix=fix)
        session = self.file.session(streams)
        session.card = self.card
        return session

    def verify(self, data: str | Path, *, seed: int = 0, progress: Progress | None = None) -> Export:
        """`saccade.verify` of this file."""
        from saccade.api.verifying import verify

        return verify(self.path, data, seed=seed, progress=progress)


def load(path: str | Path, *, device: str = "auto") -> Model | ExportedModel:
    """Open a model file, the best model of a run folder, or an exported file; raises UserError where it is none of them."""
    exported = find_export(path)
    if exported is None:
        return load_model(path, device=device)
    file = open_export(exported, device=device)
    return ExportedModel(file.card, exported, file)


def load_model(path: str | Path, *, device: str = "auto") -> Model:
    """Open a model file, or the best model of a run folder, as a module; raises UserError where that is neither."""
    if find_export(path) is not None:
        raise UserError("is an exported file, which has no module", where=str(path), fix="give the run or the .safetensors model file")
    from saccade.nn import weights

    file = model_path(path)
    buffers, card = modelfile.load(file)
    module = fresh(card, buffers)
    weights.load_into(module, buffers, where=str(file))
    from saccade.training import precision

    return Model(card, file, module.to(precision.device(device)).eval(), str(precision.device(device)))


def fresh(card: Card, buffers: Mapping[str, Buffer]) -> nn.Module:
    """The module of a file, with fresh weights; raises UserError where it cannot be built, or would hold more than the file does."""
    build = room(card.task).build
    if not card.edits:
        return build(card, sum(math.prod(buffer.shape) for buffer in buffers.values()))
    from saccade.editing.edit import rebuild

    return rebuild(card, build, buffers)


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
