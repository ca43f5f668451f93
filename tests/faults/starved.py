"""A run whose first step, or whose second edit, may take so many more bytes of memory and no more: `starved.py FOLDER BYTES MICRO_BATCH`
(0: no limit), `starved.py FOLDER BYTES edit`."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from saccade.core.config import AugmentConfig
from saccade.data.loader import Batch, Source
from saccade.editing.live import Editor
from saccade.tasks.classification.task import Classification
from saccade.training.loop import Job, Trainer
from small_jobs import ARCHITECTURE, CARD, CONFIG, job, resolved

SIDE, BATCH = 256, 32


def edited(folder: Path, more: int) -> Job:
    """A run that is to be made wider twice, the second time by some hundred megabytes, for which there is no memory."""
    edits = ("at step 3: widen features 1.1", "at step 5: widen features.*.conv* 14")
    card = replace(CARD, architecture={**ARCHITECTURE, "arguments": {**ARCHITECTURE["arguments"], "width": 32}})  # type: ignore[dict-item]
    task, config = Classification(), replace(CONFIG, model="small_resnet_32px", edits=edits if more else edits[:1])
    torch.manual_seed(0)
    made = job(folder, config, card=card, model=task.build(card).to(memory_format=torch.channels_last), editor=Editor(task.build, 0))
    trainer = Trainer(made)
    take = trainer.changes.take

    def limited() -> bool:
        if trainer.state.step != 5 or not more:
            return take()
        limit(more)
        try:
            return take()
        finally:
            limit(0)

    trainer.changes.take = limited  # type: ignore[method-assign]
    trainer.fit()
    return made


def limit(more: int) -> None:
    """So many more bytes from now on; 0: as many as there are."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more if more else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def main() -> None:
    """Two steps on images large enough that a batch of them needs some hundred megabytes."""
    torch.set_num_threads(1)
    if sys.argv[3] == "edit":
        sys.stdout.write(json.dumps(edited(Path(sys.argv[1]), int(sys.argv[2])).run.events()))
        return
    folder, more, micro = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = replace(CONFIG, batch=BATCH, micro_batch=micro, size=(SIDE, SIDE), ema=0.0, augment=AugmentConfig())
    made = job(folder, config, replace(resolved(2, every=2), threads=1))
    pixels = list(np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8))
    made.loader.source = Source(pixels, [i % 3 for i in range(BATCH)], [f"{i}.png" for i in range(BATCH)])  # type: ignore[arg-type]
    trainer = Trainer(made)
    trainer.saver.submit(lambda: None)  # its thread is there before memory is scarce
    step = trainer._step

    def limited(batches: list[Batch]) -> None:
        trainer._step = step  # type: ignore[method-assign]
        limit(more)
        step(batches)
        limit(0)

    if more:
        trainer._step = limited  # type: ignore[method-assign]
    trainer.fit()
    sys.stdout.write(json.dumps(made.run.events()))


if __name__ == "__main__":
    main()
