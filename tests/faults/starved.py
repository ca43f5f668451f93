"""A run whose first step may take so many more bytes of memory and no more: `starved.py FOLDER BYTES MICRO_BATCH` (0: no limit)."""

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
from saccade.training.loop import Trainer
from small_jobs import CONFIG, job, resolved

SIDE, BATCH = 256, 32


def main() -> None:
    """Two steps on images large enough that a batch of them needs some hundred megabytes."""
    folder, more, micro = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    config = replace(CONFIG, batch=BATCH, micro_batch=micro, size=(SIDE, SIDE), ema=0.0, augment=AugmentConfig())
    made = job(folder, config, replace(resolved(2, every=2), threads=1))
    pixels = list(np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8))
    made.loader.source = Source(pixels, [i % 3 for i in range(BATCH)], [f"{i}.png" for i in range(BATCH)])  # type: ignore[arg-type]
    trainer = Trainer(made)
    trainer.saver.submit(lambda: None)  # its thread is there before memory is scarce
    step = trainer._step

    def limited(batches: list[Batch]) -> None:
        trainer._step = step  # type: ignore[method-assign]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))
        step(batches)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    if more:
        trainer._step = limited  # type: ignore[method-assign]
    trainer.fit()
    sys.stdout.write(json.dumps(made.run.events()))


if __name__ == "__main__":
    main()
