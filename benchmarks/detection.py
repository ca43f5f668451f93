"""Detectors, with masks too, from random weights on two cores, defaults only, beside Ultralytics' smallest; and how fast figures are.

    uv run --with pycocotools python benchmarks/detection.py --work DIR [--only bccd|shapes|nuclei|pasted|figures ...] [--seed S]
        [--threads N] [--no-peer]

`bccd`: the blood cells of ../shared/data, 20 minutes of training, test split; the peer is yolo11n from its configuration (an environment
of its own in DIR/peers, made with uv), on the same images at the same 320 pixels, for the same minutes, one after the other, on two
cores. Both are measured by the same figures. `shapes`: 2,000 drawn scenes of 320x320 pixels with 1 to 12 objects, 10 minutes. `nuclei`:
masks of the cell nuclei of ../shared/data, 30 minutes, a fifth of the images set apart for the test; `pasted`: the same with copy-paste.
`figures`: 5,000 images with 100 detections each, ours beside faster-coco-eval and pycocotools in turns, as ratios. Minutes count from
the start of each process. What is there already is not done again; each result is a line of benchmarks/results/detection.jsonl, and the
tables are printed from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from data import peers_python
from datasets import HERE, SHARED, processor
from datasets import saccade as command

RESULTS = HERE / "results" / "detection.jsonl"
MINUTES = {"bccd": 20.0, "shapes": 10.0, "nuclei": 30.0, "pasted": 30.0}
OPTIONS = {"pasted": ["--set", "augment.paste=0.5"]}
SHARES = "0.65,0.15,0.2"
SIDE = 320
IMAGES, DETECTIONS, CLASSES = 5000, 100, 80


def prepared(work: Path, name: str) -> Path:
    """The folder of one set."""
    folder = work / "data" / {"pasted": "nuclei"}.get(name, name)
    if name == "shapes" and not folder.exists():
        command("data", "make", "shapes", "--task", "detect", "--n", "2000", "--size", str(SIDE), "--out", str(folder))
    elif not folder.exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work / "data"), folder.name], check=True)
    if folder.name == "nuclei":
        listed = work / "data" / "nuclei.splits.json"
        if not listed.exists():
            command("data", "split", str(folder), "--task", "instances", "--shares", SHARES, "--seed", "0", "--out", str(listed))
        return listed
    return folder


def ours(work: Path, name: str, seed: int) -> dict[str, Any]:
    """Train with the defaults, measure on the test images."""
    data, run = prepared(work, name), work / f"{name}-{seed}"
    record = run / "run.json"
    state = json.loads(record.read_text())["state"] if record.exists() else None
    if state != "done":
        again = ["--resume"] if state else [str(data), "--minutes", str(MINUTES[name]), "--seed", str(seed), *OPTIONS.get(name, ())]
        command("train", *again, "--out", str(run))
    found = command("eval", str(run), "--split", "test")
    facts = json.loads((run / "run.json").read_text())
    epochs = facts["steps"] / facts["resolved"]["steps_per_epoch"]
    row = {"what": f"saccade, {facts['config']['model']}", "metrics": found["metrics"], "intervals": found["intervals"]}
    return {**row, "images": found["images"], "epochs": round(epochs, 1), "seconds": facts["time"]["seconds"]}


def theirs(work: Path, seed: int, threads: int) -> dict[str, Any]:
    """Ultralytics on the same set, converted, and its boxes by our figures."""
    from saccade.data.opening import open_dataset
    from saccade.objects.metrics import ObjectsMetric

    data, place = prepared(work, "bccd"), work / f"bccd-yolo11n-{seed}"
    told = place / "told.json"
    yolo = work / "data" / "bccd-yolo"
    if not yolo.exists():
        command("data", "convert", str(data), str(yolo), "--to", "yolo")
    images = next(folder for folder in (yolo / "test" / "images", yolo / "images" / "test") if folder.is_dir())
    if not told.exists():
        place.mkdir(exist_ok=True)
        script = [str(HERE / "peers" / "detect_ultralytics.py"), str(next(yolo.glob("*.yaml"))), str(images), str(place)]
        more = [str(MINUTES["bccd"]), str(threads), str(seed), str(SIDE)]
        environment = {**os.environ, "YOLO_CONFIG_DIR": str(place), "YOLO_OFFLINE": "true"}
        done = subprocess.run(
            [str(peers_python(work)), *script, *more], stdout=subprocess.PIPE, text=True, env=environment, cwd=place, check=True
        )
        told.write_text(done.stdout.splitlines()[-1])
    said = json.loads(told.read_text())
    dataset = open_dataset(data)
    metric = ObjectsMetric(dataset.schema.classes)
    for index in dataset.split("test").tolist():
        size = dataset.size(index)
        answer = said["found"][Path(dataset.paths[index]).stem]
        metric.update([_detections(answer, dataset.schema.classes)], [dataset.target(index, size)])
    return {
        "what": "Ultralytics, yolo11n",
        "metrics": metric.compute(),
        "images": len(said["found"]),
        "epochs": said["epochs"],
        "seconds": said["seconds"],
    }


def _detections(answer: dict[str, Any], classes: tuple[str, ...]) -> Any:
    from saccade.core.results import Detections

    labels = np.array([classes.index(name) for name in answer["labels"]], np.int64)
    return Detections(np.array(answer["boxes"], np.float32).reshape(-1, 4), np.array(answer["scores"], np.float32), labels, classes)


def made(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Truths and detections in COCO's words: seven objects an image, detections moved from them or invented."""
    draws = np.random.default_rng(seed)
    truths, found = [], []
    for image in range(IMAGES):
        count = int(draws.integers(1, 14))
        boxes = np.column_stack([draws.uniform(0, 500, (count, 2)), draws.uniform(10, 140, (count, 2))])
        labels = draws.integers(1, CLASSES + 1, count)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            number = len(truths) + 1
            truths.append({"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        chosen = draws.integers(0, count, DETECTIONS)
        moved = boxes[chosen] + draws.normal(0, 6, (DETECTIONS, 4))
        moved[:, 2:] = moved[:, 2:].clip(1)
        names = np.where(draws.random(DETECTIONS) < 0.7, labels[chosen], draws.integers(1, CLASSES + 1, DETECTIONS))
        for box, label, score in zip(moved.tolist(), names.tolist(), draws.random(DETECTIONS).tolist(), strict=True):
            found.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return truths, found


def figures() -> list[dict[str, Any]]:
    """Seconds of each way on the same arrays, and whether the twelve figures are the same."""
    truths, found = made(0)
    whole = coco(truths)
    ways = {"saccade": by_saccade, "faster-coco-eval": by_faster, "pycocotools": by_pycocotools}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, list[float]] = {}
    for _ in range(3):
        for name, way in ways.items():
            given = json.loads(json.dumps([whole, found]))  # the libraries write into what they are given
            begin = time.perf_counter()
            values[name] = way(*given)
            taken[name].append(time.perf_counter() - begin)
    slowest = float(np.median(taken["pycocotools"]))
    apart = {name: float(np.abs(np.array(value) - values["pycocotools"]).max()) for name, value in values.items()}
    return [
        {"what": name, "ratio": slowest / float(np.median(seconds)), "apart": apart[name], "rounds": 3} for name, seconds in taken.items()
    ]


def by_saccade(truths: dict[str, Any], found: list[dict[str, Any]]) -> list[float]:
    """From the same dictionaries, with what it takes to make arrays of them."""
    from saccade.core import average_precision as ap
    from saccade.core.average_precision import AveragePrecision, Image

    here: list[list[dict[str, Any]]] = [[] for _ in range(IMAGES)]
    there: list[list[dict[str, Any]]] = [[] for _ in range(IMAGES)]
    for rows, images in ((truths["annotations"], here), (found, there)):
        for row in rows:
            images[row["image_id"]].append(row)
    made_of = []
    for own, said in zip(here, there, strict=True):
        boxes, given = (np.array([row["bbox"] for row in rows]).reshape(-1, 4) for rows in (said, own))
        boxes[:, 2:] += boxes[:, :2]
        given[:, 2:] += given[:, :2]
        no = np.zeros(len(own), bool)
        labels = [np.array([row["category_id"] for row in rows], np.int64) - 1 for rows in (said, own)]
        scores, areas = np.array([row["score"] for row in said]), np.array([row["area"] for row in own])
        made_of.append(Image(scores, labels[0], ap.area(boxes), labels[1], areas, no, no, ap.overlaps(boxes, given, no)))
    precision, recall = AveragePrecision(made_of, CLASSES).tables()
    values = [precision[:, 0], precision[:, 0, 0], precision[:, 0, 5], *(precision[:, place] for place in (1, 2, 3))]
    values += [*(recall[:, 0, :, place] for place in range(3)), *(recall[:, place, :, 2] for place in (1, 2, 3))]
    return [float(np.nanmean(value)) for value in values]


def by_faster(truths: dict[str, Any], found: list[dict[str, Any]]) -> list[float]:
    """faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    gt = COCO(truths)
    run = COCOeval_faster(gt, gt.loadRes(found), "bbox", print_function=lambda *_: None)
    run.run()
    return [float(value) for value in run.stats[:12]]


def by_pycocotools(truths: dict[str, Any], found: list[dict[str, Any]]) -> list[float]:
    """The reference."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truths
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats[:12]]


def coco(truths: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole COCO file."""
    images = [{"id": number, "height": 640, "width": 640} for number in range(IMAGES)]
    return {"images": images, "categories": [{"id": n, "name": str(n)} for n in range(1, CLASSES + 1)], "annotations": truths, "info": {}}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, the last of each kind."""
    latest = {(row["table"], row.get("seed"), row.get("threads", 2), row["what"]): row for row in rows}
    lines = []
    for name in MINUTES:
        mine = [row for key, row in latest.items() if key[0] == name]
        if mine:
            lines += [
                "",
                f"| {name}, {MINUTES[name]:g} minutes | seed | threads | mAP@50-95 (95 % interval) | mAP@50 | mAP@75 | epochs | seconds |",
                "|" + "---|" * 8,
            ]
        for row in sorted(mine, key=lambda row: (row["seed"], row.get("threads", 2), row["what"])):
            m = row["metrics"]
            around = " ({:.3f} to {:.3f})".format(*row["intervals"]["map"]) if "intervals" in row else ""
            cells = [
                row["what"],
                row["seed"],
                row.get("threads", 2),
                f"{m['map']:.3f}{around}",
                f"{m['map_50']:.3f}",
                f"{m['map_75']:.3f}",
                row["epochs"],
                f"{row['seconds']:.0f}",
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    speed = [row for key, row in latest.items() if key[0] == "figures"]
    if speed:
        lines += [
            "",
            f"| {IMAGES:,} images x {DETECTIONS} detections | times as fast as pycocotools | largest difference of twelve figures |",
            "|---|---|---|",
        ]
        lines += [f"| {row['what']} | {row['ratio']:.1f} | {row['apart']:.1e} |" for row in speed]
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=[*MINUTES, "figures"], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(asked.threads), "MKL_NUM_THREADS": str(asked.threads)}
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name in asked.only or [*MINUTES, "figures"]:
        found = figures() if name == "figures" else [ours(work, name, asked.seed)]
        if name == "bccd" and not asked.no_peer:
            found.append(theirs(work, asked.seed, asked.threads))
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            about = {"table": name, "seed": asked.seed, "threads": asked.threads, "cpu": processor()}
            file.writelines(json.dumps(about | row) + "\n" for row in found)
    if RESULTS.exists():
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
