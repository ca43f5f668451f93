"""`predict`: what a model says of any images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade.api.models import Model, load
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.progress import Progress, automatic
from saccade.prediction import pipeline
from saccade.prediction.pipeline import Predictions
from saccade.prediction.sources import expand

FORMATS = ("json", "jsonl", "csv")


def predict(
    target: str | Path | Model,
    inputs: Any,
    *,
    out: str | Path | None = None,
    format: str = "json",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Predictions:
    """Answer for paths, folders, globs, bytes, PIL images, arrays or tensors, one or a list, of any sizes.

    Bad images stand in `.failed`; raises UserError when none could be read, or for the first bad one with `strict`.
    `out`: a folder that gets predictions.<format>.
    """
    if format not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {format!r}", where="--format")
    model = target if isinstance(target, Model) else load(target, device=device)
    found = predict_with(model, inputs, strict=strict, max_pixels=max_pixels, precision=precision, progress=progress)
    if out is not None:
        folder = Path(out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot be made: {error.strerror}", where=str(out), fix="give another --out") from None
        found.save(folder / f"predictions.{format}", format)
    return found


def predict_with(
    model: Model,
    inputs: Any,
    *,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    precision: str = "auto",
    progress: Progress | None = None,
) -> Predictions:
    """The same for an opened model."""
    sources = expand(inputs)
    if not sources:
        raise UserError("no images were given, or the folders hold none", fix="give files, folders or globs of images")
    found = pipeline.predict(model.session(precision), sources, progress=progress or automatic(), max_pixels=max_pixels)
    if found.failed and (strict or not found.results):
        first = found.failed[0]
        more = f" (and {len(found.failed) - 1} more)" if len(found.failed) > 1 else ""
        raise UserError(f"{first['reason']}{more}", where=first["source"], fix="" if not strict else "without --strict the rest goes on")
    return found
