"""Ultralytics' side of `resume_exact.py`: a YOLO classifier, deterministic=True, then `YOLO(last.pt).train(resume=True)`.

It saves once an epoch; a kill in the middle of one goes on from the epoch's begin. The weights that are compared are those that it holds
in memory when training has ended, as its last file is rounded to half precision. On the CPU it loads without workers, whatever is asked.
"""

from __future__ import annotations

from typing import Any

from resume_worker import BATCH, DROPOUT, EPOCHS, SEED, SIZE, Order, begin, csv_lines, end, named
from ultralytics import YOLO


def hand_back(order: Order, trainer: Any) -> None:
    """At the end of training."""
    weights = {**named("model", trainer.model.state_dict()), **named("average", trainer.ema.ema.state_dict())}
    end(order, weights, csv_lines([trainer.csv], keys=("epoch",), leave_out=("time",)))


if __name__ == "__main__":
    order = begin()
    yolo = YOLO(str(order.folder / "run" / "weights" / "last.pt") if order.resume else order.model)
    yolo.add_callback("on_train_end", lambda trainer: hand_back(order, trainer))
    if order.resume:
        yolo.train(resume=True)
    else:
        yolo.train(
            data=order.data,
            epochs=EPOCHS,
            imgsz=SIZE,
            batch=BATCH,
            nbs=BATCH,  # an optimizer step each batch
            workers=order.workers,
            device="cpu",
            seed=SEED,
            deterministic=True,
            dropout=DROPOUT,
            optimizer="SGD",
            amp=False,
            plots=False,
            project=order.out,
            name="run",
            exist_ok=True,
        )
