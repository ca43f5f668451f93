"""Images per second from a folder of JPEGs to vectors of features: `embed` beside a plain loop with timm's network.

    uv run python benchmarks/embedding.py [--only resnet18|resnet50] [--repeats 5] [--images 500] [--work DIR] [--run ID] [--results FILE]

FP32 on all cores, 224 px, one set of weights for all. The peers are `timm.create_model(ARCH, num_classes=0)` with Pillow and torchvision's
preset, in batches of 32: in one loop, and with a DataLoader of two workers. Each contender is a process of its own, is warmed up once, and
takes its turn in every round while the others sleep; the order rotates. A measurement that other processes disturbed is repeated, three at
most. Every round is one line of results/embedding.jsonl; a run that was interrupted goes on. Ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predict_folder import ARCHS, CACHE, HERE, Plan, Row, Worker, commit, cores, environment, processor, run_name

RESULTS = HERE / "results" / "embedding.jsonl"
SCRIPT = "embedding_worker.py"
OURS, PEERS = "saccade", ("timm loop", "timm DataLoader")


def one_round(workers: Sequence[Worker], plan: Plan, number: int, scratch: Path) -> Row:
    """Images per second of each, what others took of the cores meanwhile, and how alike its vectors are to those of the plain loop."""
    turn = [*workers[number % len(workers) :], *workers[: number % len(workers)]]
    measured = {worker.name: worker.run(plan.folder) for worker in turn}
    found = {worker.name: worker.answers(scratch / "answers.npz") for worker in workers}
    names, truth = found[PEERS[0]]
    alike = {}
    for name, (own, vectors) in found.items():
        if own != names or vectors.shape != truth.shape:
            sys.exit(f"{name} has vectors of other images, or of another length, than {PEERS[0]}")
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(truth, axis=1)
        alike[name] = round(float(((vectors * truth).sum(1) / lengths).min()), 5)
    rates = {name: round(rate.value, 2) for name, rate in measured.items()}
    return {"images_per_second": rates, "others": {name: round(rate.others, 3) for name, rate in measured.items()}, "least_cosine": alike}


def measure(plan: Plan, arch: str, rows: list[Row]) -> None:
    """Add the rounds that are missing to `rows` and to the results file."""
    done = sum(row["run"] == plan.run and row["arch"] == arch for row in rows)
    if done >= plan.repeats:
        return
    script = [sys.executable, str(HERE / "peers" / SCRIPT), "make", str(plan.work), str(plan.images), arch]
    subprocess.run(script, check=True, env=environment())
    material = plan.work / arch
    workers = [Worker(name, sys.executable, SCRIPT, material) for name in (OURS, *PEERS)]
    try:
        for worker in workers:
            worker.run(plan.part)
        machine = {"cpu": processor(), "cores": cores(), "system": platform.platform(), "python": platform.python_version()}
        about = {"versions": {**workers[0].versions, "commit": commit()}, "machine": machine}
        for number in range(done, plan.repeats):
            row = {"run": plan.run, "arch": arch, "round": number, "images": plan.images, "repeats": plan.repeats}
            rows.append(row | one_round(workers, plan, number, material) | about)
            with plan.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{arch} round {number + 1}: {rows[-1]['images_per_second']}", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.close()


def table(rows: Sequence[Row]) -> str:
    """One architecture's rounds as Markdown."""
    rounds: list[dict[str, Any]] = [row["images_per_second"] for row in rows]
    lines = [
        f"| {rows[0]['arch']}, {len(rows)} rounds of {rows[0]['images']} | images/s | saccade's ratio to it | least cosine to {PEERS[0]} |",
        "|---|---|---|---|",
    ]
    for name in (OURS, *PEERS):
        ratio = statistics.median(rates[OURS] / rates[name] for rates in rounds)
        rate, alike = statistics.median(rates[name] for rates in rounds), min(row["least_cosine"][name] for row in rows)
        lines.append(f"| {name} | {rate:.1f} | {ratio:.2f} | {alike:.4f} |")
    most = max(share for row in rows for share in row["others"].values())
    lines += ["", f"Other processes took at most {most:.0%} of the cores in any run."]
    return "\n".join([*lines, *(f"{name}: {json.dumps(rows[-1][name])}" for name in ("versions", "machine"))])


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARCHS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--work", type=Path, default=CACHE.parent / "embedding")
    parser.add_argument("--run", help="the name of a run to begin or go on with")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    asked = parser.parse_args()
    archs = [asked.only] if asked.only else ARCHS
    asked.results.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    plan = Plan(run_name(asked, archs, rows), asked.work.resolve(), asked.images, asked.repeats, False, asked.results)
    print(f"run {plan.run}", file=sys.stderr)
    for arch in archs:
        measure(plan, arch, rows)
        print(table([row for row in rows if row["run"] == plan.run and row["arch"] == arch]) + "\n", flush=True)


if __name__ == "__main__":
    main()
