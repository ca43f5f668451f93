"""Where a number stopped being finite: which images, which module."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saccade.core import files
from saccade.core.rundir import RunDir
from saccade.data.loader import Batch, Loader
from saccade.training.step import NotFiniteError

NAMED = 5


@dataclass(frozen=True)
class Finding:
    """images: names of those that give no finite loss on their own; module: the first whose output (or parameter whose gradient) is not
    finite, "" where none was found; file: the batch, saved."""

    images: tuple[str, ...]
    module: str
    file: str

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.images[:NAMED])) + (f" and {len(self.images) - NAMED} more" if len(self.images) > NAMED else "")
        images = f"; by itself {named}" if self.images else "; no image alone does it"
        return f"{images}{f', first in {self.module!r}' if self.module else ''}; the batch is in {self.file}"


def diagnose(error: NotFiniteError, model: nn.Module, batches: Sequence[Batch], step: int) -> tuple[list[int], str]:
    """(positions in the stream of the images that fail alone, name of the first module or gradient that is not finite). Changes nothing."""
    if error.what == "gradient":
        wrong = [name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        return [], wrong[-1] if wrong else ""
    with _looking(model):
        alone = [single for batch in batches for single in batch.split(1) if not _finite(error.phase.loss(single, step).total)]
        module = _first_module(model, lambda: [error.phase.loss(batch, step) for batch in (alone or batches)])
    return [int(single.positions[0]) for single in alone], module


def keep(run: RunDir, batches: Sequence[Batch], loader: Loader, step: int) -> str:
    """Write the batch as a NumPy archive (images and targets by micro-batch, positions, names) into the run; returns its path."""
    positions = np.concatenate([batch.positions for batch in batches])
    arrays = {f"images-{number}": batch.images.cpu().numpy() for number, batch in enumerate(batches)}
    for number, batch in enumerate(batches):  # micro-batches may hold different numbers of objects
        arrays |= {f"{name}-{number}": value.cpu().numpy() for name, value in batch.targets.items()}
    names = np.array([name.encode("utf-8", "surrogateescape") for name in loader.names(positions)])
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, positions=positions, names=names, **arrays)
    try:
        run.not_finite.mkdir(exist_ok=True)
    except OSError as error:
        raise files.os_error(error, run.not_finite, "make the folder") from None
    return str(files.write_bytes(run.not_finite / f"step-{step:09d}.npz", data.getvalue()))


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which statistics stay as they are and no draw is made, and no gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _first_module(model: nn.Module, forward: Any) -> str:
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not _finite(output):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())
