"""What the training scripts of `resume_exact.py` share: the order to train, the kill, and the form in which a run's end is handed back.

A script runs in its tool's own environment as `python SCRIPT ORDER`, ORDER being a JSON file. It trains to the end, or goes on from what
a killed run left in the same folder, and then writes weights.npz, log.json and about.json. Torch and NumPy are all that is needed here.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

PACKAGES = ("saccade", "timm", "lightning", "torchdata", "ultralytics", "torch", "torchvision", "numpy")
SEED = 1
EPOCHS = 4
BATCH = 32
SIZE = 32
CLASSES = 10
DROPOUT = 0.1
CROP = 0.6  # smallest share of the area that a random crop keeps

Lines = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Order:
    """data: holds train/ and val/; out: the run's folder; kill_at: the optimizer step of this process in which it is killed (0: none);
    resume: "" to begin, "epoch" to go on from the newest save of an epoch's end, "step" from the newest save of any kind."""

    data: str
    out: str
    kill_at: int
    resume: str
    workers: int
    stateful: bool = False
    model: str = ""

    @property
    def folder(self) -> Path:
        """Where the run keeps everything."""
        return Path(self.out)


def begin() -> Order:
    """Read the order; count the optimizer's steps from here on, and end by SIGKILL in the one that was named."""
    order = Order(**json.loads(Path(sys.argv[1]).read_text()))
    order.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    register_optimizer_step_post_hook(lambda *_: _count(order.kill_at))
    return order


_steps = 0


def _count(kill_at: int) -> None:
    global _steps
    _steps += 1
    if _steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def end(order: Order, tensors: Mapping[str, torch.Tensor], lines: Lines) -> None:
    """Hand back the final weights and the lines of the tool's own log, each with what names it."""
    arrays = {name: tensor.detach().cpu().float().numpy() for name, tensor in tensors.items()}
    np.savez(order.folder / "weights.npz", **arrays)  # type: ignore[arg-type]
    (order.folder / "log.json").write_text(json.dumps(lines))
    (order.folder / "about.json").write_text(json.dumps({"steps": _steps, "versions": versions()}))


def versions() -> dict[str, str]:
    """Of the packages that are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def csv_lines(files: Iterable[Path], *, keys: tuple[str, ...], leave_out: tuple[str, ...] = ()) -> Lines:
    """The lines of CSV logs, headers among them, named by the columns `keys` and by which other columns hold something."""
    lines: Lines = []
    for file in files:
        with file.open(newline="") as opened:
            rows = list(csv.reader(opened))
        names = [name.strip() for name in rows[0]]
        for number, row in enumerate(rows):
            cells = [cell.strip() for cell in row]
            if cells == names:
                if number:
                    lines.append(("header", {}))
                continue
            held = {name: cell for name, cell in zip(names, cells, strict=False) if cell and name not in leave_out}
            key = [f"{name} {held.pop(name, '')}" for name in keys]
            lines.append((", ".join([*key, *sorted(held)]), held))
    return lines


def named(prefix: str, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors under longer names; what is no tensor is left out."""
    return {f"{prefix}.{name}": value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
