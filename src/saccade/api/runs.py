"""A run that has been trained: its figures, its model, and the verbs on it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.core import config as configs
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.images import MAX_PIXELS
from saccade.core.rundir import RunDir

if TYPE_CHECKING:
    from saccade.api.explaining import Explanations
    from saccade.api.exporting import Export
    from saccade.core.progress import Progress
    from saccade.core.results import Generated, Result
    from saccade.evaluation.result import Evaluation
    from saccade.prediction.embeddings import Embeddings
    from saccade.prediction.pipeline import Failed
    from saccade.prediction.predictions import Predictions


@dataclass(frozen=True)
class Run:
    """A run folder and what its run.json says. `summary`: lines that tell a person what was done, `exported`: its export (quickstart)."""

    path: Path
    record: Mapping[str, Any] = field(repr=False)
    summary: tuple[str, ...] = field(default=(), repr=False)
    exported: Export | None = None

    @property
    def config(self) -> TrainConfig:
        """The configuration, every value resolved by recipe or user."""
        return configs.from_dict(self.record["config"], where=str(self.path))

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Validation figures of the best model."""
        metrics: Mapping[str, float | None] = self.record.get("metrics", {})
        return metrics

    @property
    def model(self) -> Path:
        """The best model's file."""
        return RunDir(self.path).best

    @property
    def report(self) -> Path:
        """The report page."""
        return RunDir(self.path).report

    def to_dict(self) -> dict[str, Any]:
        """The object of `train --json`."""
        time = self.record.get("time", {})
        return {
            "run": str(self.path),
            "model": str(self.model),
            "task": self.record["config"]["task"],
            "metrics": dict(self.metrics),
            "seconds": time.get("seconds"),
            "steps": self.record.get("steps"),
            "images_per_second": time.get("images_per_second"),
            "state": self.record.get("state"),
            "reasons": list(self.record.get("reasons", ())),
            **({"export": self.exported.to_dict()} if self.exported is not None else {}),
        }

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        tta: bool = False,
        progress: Progress | None = None,
    ) -> Evaluation:
        """`saccade.eval` on the best model."""
        from saccade.api.evaluating import eval

        return eval(
            self.path,
            data,
            split=split,
            device=device,
            precision=precision,
            seed=seed,
            max_pixels=max_pixels,
            tta=tta,
            progress=progress,
        )

    def predict(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        format: str = "json",
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        tta: bool = False,
        device: str = "auto",
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Predictions:
        """`saccade.predict` with the best model."""
        from saccade.api.models import load

        model = load(self.path, device=device)
        return model.predict(
            inputs, out=out, format=format, strict=strict, max_pixels=max_pixels, tta=tta, precision=precision, progress=progress
        )

    def predict_each(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        tta: bool = False,
        device: str = "auto",
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Iterator[Result | Failed]:
        """`saccade.predict_each` with the best model."""
        from saccade.api.models import load

        model = load(self.path, device=device)
        return model.predict_each(inputs, out=out, strict=strict, max_pixels=max_pixels, tta=tta, precision=precision, progress=progress)

    def embed(
        self,
        inputs: Any,
        *,
        layer: str | None = None,
        out: str | Path | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        device: str = "auto",
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> Embeddings:
        """`saccade.embed` with the best model: float32 `[N, D]`."""
        from saccade.api.models import load_model

        model = load_model(self.path, device=device)
        return model.embed(inputs, layer=layer, out=out, strict=strict, max_pixels=max_pixels, precision=precision, progress=progress)

    def explain(
        self,
        inputs: Any,
        *,
        out: str | Path | None = None,
        device: str = "auto",
        target_class: str | None = None,
        box: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Explanations:
        """`saccade.explain` with the best model."""
        from saccade.api.explaining import explain

        return explain(self.path, inputs, out=out, device=device, target_class=target_class, box=box, progress=progress)

    def export(
        self,
        *,
        to: str = "onnx",
        data: str | Path | None = None,
        out: str | Path | None = None,
        precision: str = "fp32",
        tolerance: float = 0.5,
        device: str = "auto",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Export:
        """`saccade.export` of the best model."""
        from saccade.api.exporting import export

        return export(
            self.path, to=to, data=data, out=out, precision=precision, tolerance=tolerance, device=device, seed=seed, progress=progress
        )

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
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Generated:
        """`saccade.generate` with the best model."""
        from saccade.api.generating import generate

        return generate(
            self.path,
            n=n,
            seed=seed,
            class_name=class_name,
            truncation=truncation,
            interpolate=interpolate,
            from_image=from_image,
            latents=latents,
            nearest=nearest,
            out=out,
            device=device,
            progress=progress,
        )

    def _repr_html_(self) -> str:
        figures = "".join(f"<tr><td>{html.escape(name)}</td><td>{_shown(value)}</td></tr>" for name, value in self.metrics.items())
        facts = f"{html.escape(str(self.path))} · {html.escape(str(self.record['config']['model']))} · {self.record.get('steps', 0)} steps"
        return f"<div><b>{facts}</b><table>{figures}</table>report: <code>{html.escape(str(self.report))}</code></div>"


def load_run(path: str | Path) -> Run:
    """Open a run folder; raises UserError where there is none."""
    folder = Path(path)
    if not RunDir(folder).run_file.is_file():
        raise UserError("is not a run folder: it has no run.json", where=str(path), fix="give the folder that `saccade train` named")
    return Run(folder, read_record(RunDir(folder)))


def read_record(run: RunDir) -> dict[str, Any]:
    """What run.json says; raises UserError where it is not that of a training run."""
    record = run.read_run()
    missing = [name for name in _OBJECTS if not isinstance(record.get(name), Mapping)]
    missing += [f"data.{name}" for name in _DATA if not missing and name not in record["data"]] + ["command"] * ("command" not in record)
    if missing:
        raise DamagedError(f"must hold {missing[0]!r}", where=str(run.run_file), fix="restore it from a copy, or train anew")
    return record


_OBJECTS = ("config", "resolved", "data", "time", "versions", "machine")
_DATA = ("path", "fingerprint", "classes", "counts", "ignored", "bad")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
