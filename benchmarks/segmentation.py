"""A network that gives each pixel a class, from random weights on two cores, defaults only, beside a plain loop around a library's.

    uv run python benchmarks/segmentation.py --work DIR [--only nuclei|shapes|mirrored|panoptic|peer|tiles ...] [--seed S] [--minutes X]
        [--threads N]

`nuclei`: the cell nuclei of ../shared/data as background, nucleus and border (the pixels of a nucleus with one of another or of none
beside, above or below them, and the next ones within), 30 minutes, a fifth of the images set apart for the test. `peer`: the Unet of
segmentation_models_pytorch with its own default encoder from random weights in a plain loop (benchmarks/peers/unet.py) on the same images
for the same minutes, one after the other, both measured by the same figures; with `--threads 1` the two may run at the same time.
`shapes`: 1,000 drawn scenes of 256x256 pixels with 1 to 12 objects of six classes, 8 minutes. `mirrored`: the network of `shapes`, asked
of each image and its mirror image (`eval --tta`). `panoptic`: the same scenes on one or two of three kinds of ground, things and stuff, 10
minutes. `tiles`: how far the answer of the network of `nuclei` for an image of 3072x3072
pixels, set together from the test images, differs in tiles from that at once. Minutes count from the start of each process. What is there
already is not done again; each result is a line of benchmarks/results/segmentation.jsonl, and the tables are printed from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import HERE, SHARED, processor
from datasets import saccade as command

RESULTS = HERE / "results" / "segmentation.jsonl"
ALONE = ("panoptic", "tiles")  # tables without a row for each processor
MINUTES = {"nuclei": 30.0, "peer": 30.0, "shapes": 8.0, "mirrored": 8.0, "panoptic": 10.0, "tiles": 0.0}
CLASSES = ("background", "nucleus", "border")
SHARES = "0.65,0.15,0.2"
SIDE = 256
LARGE = 3072


def prepared(work: Path, name: str) -> Path:
    """The folder of one set."""
    folder = work / "data" / {"shapes": "shapes-classes", "panoptic": "shapes-panoptic"}.get(name, "nuclei-classes")
    if folder.exists():
        return folder
    if name in ("shapes", "panoptic"):
        command("data", "make", "shapes", "--task", _task(name), "--n", "1000", "--size", str(SIDE), "--out", str(folder))
        return folder
    raw = work / "data" / "nuclei"
    if not raw.exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work / "data"), "nuclei"], check=True)
    listed = work / "data" / "nuclei.splits.json"
    if not listed.exists():
        command("data", "split", str(raw), "--task", "instances", "--shares", SHARES, "--seed", "0", "--out", str(listed))
    _write_classes(listed, folder)
    return folder


def _task(name: str) -> str:
    return "panoptic" if name == "panoptic" else "segment"


def _write_classes(listed: Path, folder: Path) -> None:
    """images/SPLIT/NAME.png, masks/SPLIT/NAME.png and classes.txt."""
    from PIL import Image

    from saccade.core import run_lengths
    from saccade.data.opening import open_dataset

    dataset = open_dataset(listed, task="instances")
    for split, places in dataset.splits.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for place in places.tolist():
            pixels = dataset.decode(place)
            objects = dataset.target(place, pixels.shape[:2])
            mask = np.zeros(pixels.shape[:2], np.uint8)
            for one in objects.masks:
                shape = run_lengths.to_mask(one)
                mask[shape] = 1
                mask[shape & ~_shrunk(shape)] = 2
            name = f"{Path(dataset.paths[place]).stem}.png"
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(folder / "images" / split / name)
            Image.fromarray(mask).save(folder / "masks" / split / name)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def _shrunk(shape: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the outer two pixels."""
    from scipy.ndimage import binary_erosion

    inner: NDArray[np.bool_] = binary_erosion(shape, iterations=2)
    return inner


def mirrored(work: Path, seed: int) -> dict[str, Any]:
    """The network of the drawn scenes, mirror images asked too."""
    row = ours(work, "shapes", seed, "--tta")
    return {**row, "what": f"{row['what']}, eval --tta"}


def ours(work: Path, name: str, seed: int, *options: str) -> dict[str, Any]:
    """Train with the defaults, measure on the test images."""
    data, run = prepared(work, name), work / f"classes-{name}-{seed}"
    record = run / "run.json"
    state = json.loads(record.read_text())["state"] if record.exists() else None
    if state != "done":
        again = ["--resume"] if state else [str(data), "--task", _task(name), "--minutes", str(MINUTES[name]), "--seed", str(seed)]
        command("train", *again, "--out", str(run))
    found = command("eval", str(run), "--split", "test", *options)
    facts = json.loads((run / "run.json").read_text())
    epochs = facts["steps"] / facts["resolved"]["steps_per_epoch"]
    row = {"what": f"saccade, {facts['config']['model']}", "metrics": found["metrics"], "intervals": found["intervals"]}
    row |= {"per_class": {one["class"]: one["pq" if name == "panoptic" else "iou"] for one in found["per_class"]}}
    return {**row, "images": found["images"], "epochs": round(epochs, 1), "seconds": facts["time"]["seconds"]}


def theirs(work: Path, seed: int) -> dict[str, Any]:
    """The plain loop, its masks by our figures."""
    from saccade.core.class_masks import Packed
    from saccade.core.segmentation import Segmentation
    from saccade.data.opening import open_dataset
    from saccade.evaluation.intervals import bootstrap
    from saccade.tasks.segmentation.metrics import SegmentationMetric

    data, place = prepared(work, "peer"), work / f"smp-unet-{seed}"
    told = place / "told.json"
    if not told.exists():
        place.mkdir(exist_ok=True)
        script = [str(HERE / "peers" / "unet.py"), str(data), str(place), str(MINUTES["peer"]), os.environ["OMP_NUM_THREADS"]]
        script += [str(len(CLASSES)), str(seed)]
        done = subprocess.run([sys.executable, *script], stdout=subprocess.PIPE, text=True, check=True)
        told.write_text(done.stdout.splitlines()[-1])
    dataset = open_dataset(data, task="segment")
    metric = SegmentationMetric(dataset.schema.classes)
    for index in dataset.split("test").tolist():
        said = Packed.of(np.load(place / f"{Path(dataset.paths[index]).stem}.npy"))
        metric.update([Segmentation(said, dataset.schema.classes)], [dataset.target(index, said.size)])
    intervals = {name: list(bounds) for name, bounds in bootstrap(metric, len(dataset.split("test")), seed=0).items()}
    row = {"what": "segmentation_models_pytorch, Unet (resnet34)", "metrics": metric.compute(), "intervals": intervals}
    row |= {"per_class": {one["class"]: one["iou"] for one in metric.per_class()}}
    return {**row, "images": len(dataset.split("test")), **json.loads(told.read_text())}


def seams(work: Path, seed: int) -> dict[str, Any]:
    """Differences of probabilities, and of classes, between tiles and the whole."""
    from saccade.api.models import load_model
    from saccade.data.opening import open_dataset
    from saccade.prediction import tiling

    run = work / f"classes-nuclei-{seed}"
    if not run.exists():
        raise SystemExit(f"{run} is not there: first --only nuclei, of this seed and work")
    dataset = open_dataset(prepared(work, "nuclei"), task="segment")
    canvas, rest = np.zeros((1, 3, LARGE, LARGE), np.uint8), iter(dataset.split("test").tolist() * 9)
    for top in range(0, LARGE, SIDE):
        for left in range(0, LARGE, SIDE):
            pixels = dataset.decode(next(rest))[:SIDE, :SIDE].transpose(2, 0, 1)
            canvas[0, :, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    session = load_model(run).session()
    found = [_shares(one["logits"][0]) for one in (session.run(canvas), tiling.run(session, canvas))]
    apart = np.abs(found[0] - found[1])
    other = float((found[0].argmax(0) != found[1].argmax(0)).mean())
    return {"what": "small_unet", "largest": float(apart.max()), "mean": float(apart.mean()), "other": other}


def _shares(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.exp(logits - logits.max(0))
    shares: NDArray[np.float32] = weights / weights.sum(0)
    return shares


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, the last of each kind on each processor."""
    latest = {(row["table"], row["seed"], row["threads"], row["what"], row["cpu"] * (row["table"] not in ALONE)): row for row in rows}
    lines = []
    for name, kinds in (("nuclei", ("nuclei", "peer")), ("shapes", ("shapes", "mirrored"))):
        mine = [row for key, row in latest.items() if key[0] in kinds]
        if mine:
            head = ["seed", "threads", "mean IoU (95 % interval)", *(mine[0]["per_class"] if name == "nuclei" else ())]
            head += ["Dice", "pixel accuracy", "boundary F1", "Hausdorff 95", "epochs", "seconds", "processor"]
            lines += ["", f"| {name}, {MINUTES[name]:g} minutes | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
        for row in sorted(mine, key=lambda row: (row["cpu"], row["seed"], -row["threads"], row["what"])):
            m = row["metrics"]
            around = " ({:.3f} to {:.3f})".format(*row["intervals"]["miou"])
            cells = [row["what"], row["seed"], row["threads"], f"{m['miou']:.3f}{around}"]
            cells += [f"{value:.3f}" for value in row["per_class"].values()] if name == "nuclei" else []
            cells += [f"{m[key]:.3f}" for key in ("dice", "pixel_accuracy", "boundary_f1")] + [f"{m['hausdorff_95']:.1f} px"]
            lines.append(f"| {' | '.join(map(str, [*cells, row['epochs'], round(row['seconds']), row['cpu']]))} |")
    lines += _of_segments([row for key, row in latest.items() if key[0] == "panoptic"])
    for row in (row for key, row in latest.items() if key[0] == "tiles"):
        head = ("largest difference of probabilities", "mean", "pixels of another class")
        lines += ["", f"| tiles against the whole, {LARGE}x{LARGE} | {' | '.join(head)} |", "|---|---|---|---|"]
        lines.append(f"| {row['what']} | {row['largest']:.4f} | {row['mean']:.2g} | {100 * row['other']:.4f} % |")
    return "\n".join(lines)


def _of_segments(rows: list[dict[str, Any]]) -> list[str]:
    """The table of things and stuff, a line for each run."""
    if not rows:
        return []
    head = ["seed", "threads", "PQ (95 % interval)", "SQ", "RQ", "PQ of things", "of stuff", *rows[0]["per_class"], "epochs", "seconds"]
    lines = ["", f"| panoptic, {MINUTES['panoptic']:g} minutes | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    for row in sorted(rows, key=lambda row: row["seed"]):
        m, (low, high) = row["metrics"], row["intervals"]["pq"]
        cells = [row["what"], row["seed"], row["threads"], f"{m['pq']:.3f} ({low:.3f} to {high:.3f})"]
        cells += [f"{m[key]:.3f}" for key in ("sq", "rq", "pq_things", "pq_stuff")]
        cells += ["" if value is None else f"{value:.3f}" for value in row["per_class"].values()]
        lines.append(f"| {' | '.join(map(str, [*cells, row['epochs'], round(row['seconds'])]))} |")
    return lines


def main() -> None:
    """Measure what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=list(MINUTES), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="instead of 30, 30, 8, 8 and 10")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(asked.threads), "MKL_NUM_THREADS": str(asked.threads)}
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    MINUTES.update(dict.fromkeys(MINUTES, asked.minutes) if asked.minutes else {})
    for name in asked.only or MINUTES:
        way = {"peer": theirs, "tiles": seams, "mirrored": mirrored}.get(name)
        found = way(work, asked.seed) if way else ours(work, name, asked.seed)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            row = {"table": name, "seed": asked.seed, "threads": asked.threads, "minutes": MINUTES[name], **found, "cpu": processor()}
            file.write(json.dumps(row) + "\n")
    if RESULTS.exists():
        print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
