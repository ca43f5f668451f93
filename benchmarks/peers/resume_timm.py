"""timm's side of `resume_exact.py`: its training script, which is no part of its package, run as it is from outside the repository.

`--resume` is given last.pth.tar after an epoch, and in the middle of one the newest recovery file (`--recovery-interval 1`).
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import torch
from resume_worker import BATCH, CLASSES, CROP, DROPOUT, EPOCHS, SEED, SIZE, Order, begin, csv_lines, end, named

TRAIN = Path(os.environ["TIMM_TRAIN"])
EXPERIMENT = "run"


def saved(order: Order) -> Path:
    """What to go on from."""
    run = order.folder / EXPERIMENT
    if order.resume == "epoch":
        return run / "last.pth.tar"
    return max(run.glob("recovery-*.pth.tar"), key=lambda path: [int(part) for part in path.name.split(".")[0].split("-")[1:]])


def arguments(order: Order) -> list[str]:
    """Of train.py."""
    data = ["--data-dir", order.data, "--train-split", "train", "--val-split", "val", "--num-classes", str(CLASSES)]
    data += ["--input-size", "3", str(SIZE), str(SIZE), "--batch-size", str(BATCH), "--workers", str(order.workers)]
    model = ["--model", order.model, "--drop", str(DROPOUT), "--model-ema", "--model-ema-decay", "0.9", "--device", "cpu"]
    steps = ["--opt", "sgd", "--lr", "0.05", "--epochs", str(EPOCHS), "--warmup-epochs", "1", "--seed", str(SEED)]
    augment = ["--scale", str(CROP), "1.0", "--hflip", "0.5"]
    kept = ["--output", order.out, "--experiment", EXPERIMENT, "--recovery-interval", "1", "--log-interval", "1"]
    resume = ["--resume", str(saved(order))] if order.resume else []
    return [*data, *model, *steps, *augment, *kept, *resume]


if __name__ == "__main__":
    order = begin()
    sys.argv = [str(TRAIN), *arguments(order)]
    sys.path.insert(0, str(TRAIN.parent))
    runpy.run_path(str(TRAIN), run_name="__main__")
    run = order.folder / EXPERIMENT
    held = torch.load(run / "last.pth.tar", map_location="cpu", weights_only=False)
    weights = {**named("model", held["state_dict"]), **named("average", held["state_dict_ema"])}
    end(order, weights, csv_lines([run / "summary.csv"], keys=("epoch",)))
