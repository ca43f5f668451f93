"""Learning from weights of elsewhere against learning from nothing, and what can be told from vectors alone in seconds.

    uv run python benchmarks/transfer.py --work DIR [--minutes X] [--seed S]

The ResNet-20 for CIFAR-10 of ../shared/data/weights (32x32) is adopted and learns the clothing photos of ../shared/data, ten classes, from
10 and from 50 images of each: `saccade train SET --weights FILE` for X minutes (default 2) beside the same network from random weights for
the same minutes, one after the other, all else by default; three seeds. Beside them a linear probe and 5 nearest neighbours of
scikit-learn on `saccade embed` of the same images by the same network, with the seconds both take together. Figures are accuracies on the
214 test photos. What is there already is not done again; each result is a line of benchmarks/results/transfer.jsonl, and the table is
printed from that file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from datasets import HERE, SHARED, processor
from datasets import saccade as command

RESULTS = HERE / "results" / "transfer.jsonl"
CIFAR = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
MODEL, COUNTS, NEIGHBOURS = "cifar_resnet20", (10, 50), 5
WEIGHTS = "weights/akamaster-cifar10/resnet20-12fca82f.th"


def prepared(work: Path, count: int) -> Path:
    """`count` training photos of each class, the first by name, and all test photos."""
    whole, folder = work / "data" / "clothing-photos", work / "data" / f"clothing-{count}"
    if not whole.exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work / "data"), "clothing-photos"], check=True)
    if not folder.exists():
        for split in ("train", "test"):
            for group in sorted(path for path in (whole / split).iterdir() if path.is_dir()):
                (folder / split / group.name).mkdir(parents=True)
                for image in sorted(group.iterdir())[: count if split == "train" else None]:
                    shutil.copy(image, folder / split / group.name)
    return folder


def adopted(work: Path) -> Path:
    """The weights of CIFAR-10 as a model file."""
    file = work / "cifar.safetensors"
    if not file.exists():
        source = str(SHARED / WEIGHTS)
        command("adopt", source, "--model", MODEL, "--classes", CIFAR, "--license", "bsd-2-clause", "--out", str(file))
    return file


def trained(work: Path, count: int, seed: int, minutes: float, *, weights: bool) -> dict[str, Any]:
    """One run and its accuracy on the test photos."""
    data, run = prepared(work, count), work / f"{'from-cifar' if weights else 'from-nothing'}-{count}-{seed}"
    start = ["--weights", str(adopted(work))] if weights else ["--model", MODEL, "--size", "32"]
    if not (run / "report.html").exists():
        shutil.rmtree(run, ignore_errors=True)
        command("train", str(data), *start, "--minutes", str(minutes), "--seed", str(seed), "--out", str(run))
    found = command("eval", str(run), "--split", "test")
    steps = json.loads((run / "run.json").read_text())["steps"]
    return {"accuracy": found["metrics"]["accuracy"], "interval": found["intervals"]["accuracy"], "steps": steps}


def vectors(work: Path, count: int) -> list[dict[str, Any]]:
    """A probe and nearest neighbours on the vectors of the network as it is."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import saccade

    data, model = prepared(work, count), saccade.load(adopted(work))
    begin = time.perf_counter()
    sides = []
    for split in ("train", "test"):
        paths = sorted(path for path in (data / split).rglob("*") if path.is_file())
        sides.append((saccade.embed(model, paths), np.array([path.parent.name for path in paths])))
    (seen, known), (new, truth) = sides
    rows = []
    for what, kind in (("linear probe", LogisticRegression(max_iter=1000)), ("k-NN", KNeighborsClassifier(NEIGHBOURS))):
        told = make_pipeline(StandardScaler(), kind).fit(seen, known).predict(new)
        rows.append({"what": what, "accuracy": float((told == truth).mean())})
    seconds = time.perf_counter() - begin
    return [{**row, "seconds": seconds} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over seeds as Markdown, all seeds beside them."""
    head = ("clothing photos, images a class", "way", "accuracy on 214 test photos", "seeds", "steps", "seconds")
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|"]
    latest = {(row["count"], row["what"], row["seed"]): row for row in rows}
    for count, what in dict.fromkeys((row["count"], row["what"]) for row in rows):
        mine = [row for key, row in sorted(latest.items()) if key[:2] == (count, what)]
        each = [row["accuracy"] for row in mine]
        steps = "" if "steps" not in mine[0] else f"{statistics.median(row['steps'] for row in mine):.0f}"
        seconds = statistics.median(row["seconds"] for row in mine)
        shown = ", ".join(f"{value:.3f}" for value in each)
        lines.append(f"| {count} | {what} | {statistics.median(each):.3f} | {shown} | {steps} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, action="append", help="several times for several; default 0, 1, 2")
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    RESULTS.parent.mkdir(exist_ok=True)
    for count in COUNTS:
        rows = [{"seed": 0, **row} for row in vectors(work, count)]
        for seed in asked.seed or (0, 1, 2):
            for what, weights in (("from CIFAR-10", True), ("from nothing", False)):
                found = trained(work, count, seed, asked.minutes, weights=weights)
                rows.append({"what": what, "seed": seed, "seconds": asked.minutes * 60, **found})
        with RESULTS.open("a") as file:
            file.writelines(json.dumps({"count": count, **row, "cpu": processor()}) + "\n" for row in rows)
    sys.stdout.write(table([json.loads(line) for line in RESULTS.read_text().splitlines()]) + "\n")


if __name__ == "__main__":
    main()
