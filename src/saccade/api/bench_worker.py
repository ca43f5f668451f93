"""One model in a process of its own, measured when it is told to: `python -m saccade.api.bench_worker`, JSON lines in and out.

Between commands it waits for standard input and uses no processor.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.models import Predictor, load
from saccade.core.errors import UserError
from saccade.core.geometry import whole
from saccade.core.progress import Silent
from saccade.prediction.session import Session, cores


class Worker:
    """`images`: one batch of noise, uint8 `[B, C, h, w]`; the first answer was given when this exists."""

    def __init__(self, file: str, device: str, precision: str, batch: int, size: list[int] | None) -> None:
        self.model: Predictor = load(file, device=device)
        self.precision = precision
        self.single: Session = self.model.session(precision)
        self.batch = batch or self.single.batch
        spec = self.model.card.input
        shape = (self.batch, spec.channels, *whole((size[0], size[1]) if size else spec.size, spec.resize))
        self.images: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.single.run(self.images[:1])
        self.many: Session | None = None

    def facts(self) -> dict[str, Any]:
        """What is fixed: target, precision, batch, metric's name."""
        from saccade.api.models import ExportedModel
        from saccade.tasks import room

        exported = self.model.file if isinstance(self.model, ExportedModel) else None
        return {
            "target": exported.target if exported else "torch",
            "precision": exported.precision if exported else self.precision.replace("auto", "fp32"),
            "batch": self.batch,
            "metric_name": room(self.model.card.task).metrics(self.model.card).primary,
        }

    def latency(self, repeats: int) -> list[float]:
        """Milliseconds of each of `repeats` calls with one image, all cores at its service."""
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter()
            self.single.run(self.images[:1])
            taken.append(1000 * (time.perf_counter() - begin))
        return taken

    def throughput(self, seconds: float) -> float:
        """Images a second with as many calls at once as there are cores, for at least `seconds`."""
        if self.many is None:
            self.many = self.model.session(self.precision, streams=cores())
            self.many.run(self.images)
        session, begin = self.many, time.perf_counter()

        def work(_: int) -> int:
            done = 0
            while not done or time.perf_counter() - begin < seconds:
                session.run(self.images)
                done += self.batch
            return done

        with ThreadPoolExecutor(session.streams) as pool:
            done = sum(pool.map(work, range(session.streams)))
        return done / (time.perf_counter() - begin)

    def memory(self) -> float:
        """Most megabytes that this process has held. Linux hands getrusage's figure on to children, and tells the own one in a file."""
        own = Path("/proc/self/status")
        if own.exists():
            line = next(line for line in own.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) / 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    def metric(self, data: str) -> float | None:
        """The primary metric on a data set: test where there is one, else validation."""
        found = self.model.evaluate(data, precision=self.precision, progress=Silent())
        return found.metrics[str(self.facts()["metric_name"])]


def main() -> None:
    """Read one request a line: first the model, then [method, *arguments]; answer each with {"value": ...} or {"error": ...}."""
    # Libraries print; what they print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if worker is None:
                worker = Worker(**request)
                value: Any = worker.facts()
            else:
                value = getattr(worker, request[0])(*request[1:])
            answers.write(json.dumps({"value": value}) + "\n")
        except UserError as error:
            answers.write(json.dumps({"error": error.to_dict()}) + "\n")


if __name__ == "__main__":
    main()
