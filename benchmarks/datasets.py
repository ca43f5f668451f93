"""Train with the defaults on real sets and print test accuracy, seconds and images per second.

    uv run python benchmarks/datasets.py --work DIR [--only mnist|cifar10|clothing-photos] [--seed S ...]

Nothing is set but the seed: `saccade train DATA --seed S`, then `saccade eval RUN`, each a process of its own. Data are laid out
in DIR/data, runs in DIR/runs; a run that is there already is not trained again, one that was interrupted goes on. Each
result is one line of benchmarks/results/datasets.jsonl; the table of docs/results.md is printed from that file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared" / "data"
RESULTS = HERE / "results" / "datasets.jsonl"
SETS = {"mnist": (0, 1, 2), "cifar10": (0,), "clothing-photos": (0,)}


def saccade(*arguments: str) -> dict[str, Any]:
    """Run one command and give back its JSON object; progress goes to the terminal."""
    done = subprocess.run([sys.executable, "-m", "saccade", *arguments, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"saccade {' '.join(arguments)} ended with code {done.returncode}: {done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(work: Path, name: str, seed: int) -> dict[str, Any]:
    """Train (or take up) one run and evaluate it on the test images."""
    data, run = work / "data" / name, work / "runs" / f"{name}-{seed}"
    if not data.exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work / "data"), name], check=True)
    record = run / "run.json"
    state = json.loads(record.read_text())["state"] if record.exists() else None
    if state is None:
        saccade("train", str(data), "--out", str(run), "--seed", str(seed))
    elif state != "done":
        saccade("train", "--resume", "--out", str(run))
    evaluation = saccade("eval", str(run), "--split", "test")
    facts = json.loads(record.read_text())
    return {
        "data": name,
        "seed": seed,
        "model": facts["config"]["model"],
        "size": facts["config"]["size"],
        "epochs": round(facts["steps"] / facts["resolved"]["steps_per_epoch"], 1),
        "test_images": evaluation["images"],
        "accuracy": evaluation["metrics"]["accuracy"],
        "interval": evaluation["intervals"]["accuracy"],
        "seconds": round(facts["time"]["seconds"], 1),
        "images_per_second": round(facts["time"]["images_per_second"], 1),
        "machine": {**facts["machine"], "threads": facts["resolved"]["threads"], "device": facts["resolved"]["device"]},
        "versions": facts["versions"],
        "cpu": processor(),
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, with the median of the seeds where there are several."""
    head = "| data | seed | test accuracy (95 % interval) | test images | model | epochs | seconds | images/s |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for name in SETS:
        mine = sorted((row for row in rows if row["data"] == name), key=lambda row: row["seed"])
        for row in mine:
            low, high = row["interval"]
            figures = f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f}) | {row['test_images']:,} | {row['model']} | {row['epochs']:g}"
            lines.append(f"| {name} | {row['seed']} | {figures} | {row['seconds']:.0f} | {row['images_per_second']:.0f} |")
        if len(mine) > 1:
            median = statistics.median(row["accuracy"] for row in mine)
            seconds = statistics.median(row["seconds"] for row in mine)
            lines.append(f"| {name} | median of {len(mine)} | **{median:.4f}** | | | | {seconds:.0f} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for and not yet there, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=list(SETS))
    parser.add_argument("--seed", type=int, action="append")
    asked = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for name in [asked.only] if asked.only else SETS:
        for seed in asked.seed or SETS[name]:
            if any(row["data"] == name and row["seed"] == seed for row in rows):
                continue
            rows.append(measure(asked.work, name, seed))
            with RESULTS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(table(rows), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
