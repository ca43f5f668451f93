"""Ultralytics' smallest detector from its configuration, for so many minutes; what it finds in the test images, as JSON.

python detect_ultralytics.py DATA.yaml IMAGES WORK MINUTES THREADS SEED SIDE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from ultralytics import YOLO


def main() -> None:
    """Minutes count from the start of the process, as those of saccade do."""
    began = time.monotonic()
    data, images, work, minutes, threads, seed, side = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = YOLO("yolo11n.yaml")
    left = float(minutes) * 60 - (time.monotonic() - began)
    model.train(
        data=data, imgsz=int(side), time=left / 3600, epochs=1000, patience=1000, device="cpu", workers=0, seed=int(seed),
        project=work, name="train", exist_ok=True, plots=False, verbose=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    best = YOLO(str(Path(work) / "train" / "weights" / "best.pt"))
    found = {}
    for path in sorted(Path(images).iterdir()):
        (result,) = best.predict(str(path), imgsz=int(side), conf=0.001, iou=0.7, max_det=300, device="cpu", verbose=False)
        boxes = result.boxes
        found[path.stem] = {
            "boxes": boxes.xyxy.tolist(),
            "scores": boxes.conf.tolist(),
            "labels": [result.names[int(label)] for label in boxes.cls.tolist()],
        }
    lines = (Path(work) / "train" / "results.csv").read_text().splitlines()
    print(json.dumps({"seconds": seconds, "epochs": len(lines) - 1, "found": found}))


if __name__ == "__main__":
    main()
