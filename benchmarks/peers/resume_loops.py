"""The worker's side of `resume.py`: one contender on one model, in a process of its own; steps for each line that it is sent.

saccade: its own Trainer, all of law 1 in it (keyed order, augmentation and dropout, seeding before each forward pass, buffers kept, the
loss read and every number checked before the optimizer steps, running average, saving in the background on request).
keyed loader: saccade's batches into a step as people write it. plain: the same, and no keys either: one generator for all draws, a
permutation an epoch. All have the same network, images, augmentation, optimizer (fused AdamW), memory format and running average.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from saccade.core import keys
from saccade.core.progress import Silent
from saccade.core.rundir import RunDir
from saccade.data.loader import Batch, Loader, Source
from saccade.data.sample import Schema
from saccade.task import Budget
from saccade.tasks import room
from saccade.training import optim
from saccade.training.budget import Resolved
from saccade.training.loop import Job, Trainer

IMAGES, CLASSES, STEPS = 600, 10, 1_000_000


def job(model: str, side: int, batch: int) -> Job:
    """A run on images of noise, kept as the cache keeps them, as the recipe configures it."""
    task = room("classify")
    schema = Schema("classify", tuple(map(str, range(CLASSES))), {"train": (IMAGES // CLASSES,) * CLASSES}, 3, (side, side), True)
    config, _ = task.recipe(schema, "cpu", Budget(epochs=100.0, model=model, size=(side, side)))
    config = replace(config, batch=batch, device="cpu", precision="fp32")
    torch.manual_seed(0)
    network, card = task.create(config, schema)
    network = network.to(memory_format=torch.channels_last)
    stored = side if side <= 64 else round(side * 1.25)
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (stored, stored, 3), dtype=np.uint8) for _ in range(IMAGES)]
    source = Source(pixels, [i % CLASSES for i in range(IMAGES)], [f"{i}.png" for i in range(IMAGES)])  # type: ignore[arg-type]
    loader = Loader(source, task.augment(config), seed=0, batch=batch)
    facts = Resolved("cpu", "fp32", torch.get_num_threads(), 0, 100, STEPS, STEPS)
    run = RunDir(Path(tempfile.mkdtemp(prefix="resume-")))
    return Job(task, network, card, config, facts, loader, run, lambda module: SimpleNamespace(metrics={}), Silent())


def saccade(made: Job) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
    """(a step, a save, a wait for it)."""
    trainer = Trainer(made)
    trainer.log_every = 100
    stream = made.loader.stream(0)

    def step() -> None:
        trainer._step(next(stream))

    return step, trainer._checkpoint, trainer.saver.wait


def plain(made: Job, batches: Iterator[Batch]) -> Callable[[], None]:
    """A step as people write it."""
    model, config = made.model, made.config
    optimizer = optim.build(made.task.phases(model, config)[0], config)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=True)
    model.train()
    taken = [0]

    def step() -> None:
        batch = next(batches)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        label, other, share = batch.targets["label"], batch.targets["other"], batch.targets["share"]
        own = F.cross_entropy(logits, label, reduction="none", label_smoothing=config.label_smoothing)
        theirs = F.cross_entropy(logits, other, reduction="none", label_smoothing=config.label_smoothing)
        loss = (share * own + (1 - share) * theirs).mean()
        loss.backward()
        if config.clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = config.lr
        optimizer.step()
        average.update_parameters(model)
        taken[0] += 1
        if taken[0] % 100 == 0:
            loss.item()

    return step


def keyed(made: Job) -> Iterator[Batch]:
    """saccade's own stream."""
    return (parts[0] for parts in made.loader.stream(0))


def unkeyed(made: Job) -> Iterator[Batch]:
    """The same augmentation, its draws from one generator, images by a permutation an epoch."""
    one = np.random.default_rng(0)
    keys.Keyed = lambda seed, purpose: SimpleNamespace(at=lambda position: one)  # type: ignore[assignment,misc]
    loader, source, count = made.loader, made.loader.source, len(made.loader.source)
    while True:
        order = one.permutation(count)
        for start in range(0, count - loader.batch + 1, loader.batch):
            places = order[start : start + loader.batch]
            samples = [loader.augment.apply([source[int(place)]], one) for place in places]
            yield loader.augment.collate(samples, np.arange(start, start + loader.batch))


def main() -> None:
    """Steps in seconds, on request: `{"steps": N, "save": bool}` -> `{"seconds": s, "stall": s}`."""
    contender, model, side, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    made = job(model, side, batch)
    save = wait = lambda: None
    if contender == "saccade":
        step, save, wait = saccade(made)
    else:
        step = plain(made, keyed(made) if contender == "keyed loader" else unkeyed(made))
    step()
    print(json.dumps({"ready": True, "parameters": sum(p.numel() for p in made.model.parameters())}), flush=True)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        began = time.perf_counter()
        if asked.get("save"):
            save()
        stall = time.perf_counter() - began
        for _ in range(asked["steps"]):
            step()
        seconds = time.perf_counter() - began
        wait()
        print(json.dumps({"seconds": seconds, "stall": stall}), flush=True)


if __name__ == "__main__":
    main()
