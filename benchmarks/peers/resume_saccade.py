"""saccade's side of `resume_exact.py`: `saccade train`, then `saccade train --resume`, saving as often as it can."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

from resume_worker import BATCH, CROP, DROPOUT, EPOCHS, SEED, SIZE, Lines, Order, begin, end, named
from safetensors.torch import load_file

import saccade.training.loop
from saccade.cli.main import main
from saccade.core.rundir import RunDir
from saccade.tasks.classification.models.small import SmallResNet


def set_dropout() -> None:
    """Our command has no option for dropout: the small network's default is changed instead."""
    start: Any = SmallResNet.__init__
    assert list(inspect.signature(SmallResNet).parameters)[-1] == "dropout"
    start.__defaults__ = (*start.__defaults__[:-1], DROPOUT)


def arguments(order: Order) -> list[str]:
    """Of `saccade train`."""
    run = ["train", "--out", str(order.folder / "run"), "--workers", str(order.workers), "--device", "cpu", "--quiet"]
    if order.resume:
        return [*run, "--resume"]
    values = {"ema": 0.1, "augment.flip": 0.5, "augment.crop": CROP}
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    size = ["--size", str(SIZE), "--batch", str(BATCH), "--epochs", str(EPOCHS), "--precision", "fp32", "--seed", str(SEED)]
    return [*run, order.data, "--no-images", "--model", order.model, *size, *sets]


def lines(run: RunDir) -> Lines:
    """Of metrics.jsonl, without what clocks say."""
    return [(f"step {row['step']} {row.get('split', 'train')}", _values(row)) for row in run.metrics()]


def _values(row: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in row.items() if name != "time"}


if __name__ == "__main__":
    order = begin()
    saccade.training.loop.CHECKPOINT_SECONDS = 0
    set_dropout()
    if code := main(arguments(order)):
        sys.exit(code)
    run = RunDir(order.folder / "run")
    newest = max(run.checkpoints.glob("step-*"))
    parts = {name: load_file(newest / f"{name}.safetensors") for name in ("model", "average", "optimizer-train")}
    weights = {key: value for name, part in parts.items() for key, value in named(name, part).items()}
    end(order, {**weights, **named("last", load_file(run.last))}, lines(run))
