"""A network that grows, or is pruned, while it trains, against the one of the final size from the first step on.

    uv run python benchmarks/growing.py --work DIR [--only mnist|cifar10|resnet18] [--seed S]

Each is one run of `saccade train --epochs N --edit ...`, all else by default, on MNIST (60,000 images, 4 epochs) or the CIFAR-10 excerpt of
../shared/data (4,000 images, 40 epochs):

- large: our network for images of that size, two of its stages one block deeper from the first step on.
- small: a quarter of the channels inside of its blocks, and no block more.
- grown: begins as the small one; is widened twofold and one stage deepened after 35 % of the epochs, and both once more after 65 %: then it
  is as large as the large one.
- grown, longer: the same in half as many epochs more.
- pruned: the large one without the blocks more; half of the channels inside of its blocks go after 60 % of the epochs.

resnet18 is timm's, from nothing, on the excerpt (8 epochs): large is the whole of it; of pruned half of all channels, of blocks and trunk,
go after 60 % of the epochs, so that a quarter of its parameters and of its operations is left; small is trained with half of them from step
0 on.

Work is counted, not timed: floating-point operations of one image (a multiplication with its sum counted as two) by the images seen at each
size, three times that for a step; so other load on the machine changes nothing. Figures are accuracies on the test images. What is there
already is not done again; each result is a line of benchmarks/results/growing.jsonl, and the table is printed from that file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import HERE, SHARED, processor
from datasets import saccade as command

RESULTS = HERE / "results" / "growing.jsonl"
LONGER = 1.5
INSIDE, ALL = "features.*.conv*", "*conv*"


@dataclass(frozen=True)
class Trial:
    """data: its name in the shared sets; stages: those that are deepened, none where nothing grows; model: "" for the recipe's."""

    data: str
    epochs: int
    stages: tuple[str, ...] = ()
    model: str = ""

    def ways(self) -> dict[str, tuple[int, list[str]]]:
        """Epochs and what changes, by way."""
        late = f"at epoch {0.6 * self.epochs:g}"
        if not self.stages:
            ways = {"large": [], "pruned": [f"{late}: prune {ALL} 0.5"], "small": [f"at step 0: prune {ALL} 0.5"]}
            return {way: (self.epochs, edits) for way, edits in ways.items()}
        small = [f"at step 0: prune {INSIDE} 0.75"]
        deeper = [f"at step 0: deepen {stage} +1" for stage in self.stages]
        ways = {"large": deeper, "grown": small + self._growing(self.epochs), "small": small, "pruned": [f"{late}: prune {INSIDE} 0.5"]}
        longer = round(LONGER * self.epochs)
        return {way: (self.epochs, edits) for way, edits in ways.items()} | {"grown, longer": (longer, small + self._growing(longer))}

    def _growing(self, epochs: int) -> list[str]:
        times = (f"at epoch {share * epochs:g}" for share in (0.35, 0.65))
        return [f"{when}: {text}" for when, stage in zip(times, self.stages, strict=True) for text in _larger(stage)]


def _larger(stage: str) -> tuple[str, str]:
    return f"widen {INSIDE} 2", f"deepen {stage} +1"


TRIALS = {
    "mnist": Trial("mnist", 4, ("features.2", "features.3")),
    "cifar10": Trial("cifar10", 40, ("features.3", "features.4")),
    "resnet18": Trial("cifar10", 8, model="resnet18"),
}


def prepared(work: Path, name: str) -> Path:
    """The set, unpacked."""
    if not (work / name).exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work), name], check=True)
    return work / name


def trained(work: Path, name: str, way: str, seed: int) -> dict[str, Any]:
    """One run, its accuracy on the test images, and its work."""
    trial, run = TRIALS[name], work / f"{name}-{way.replace(', ', '-')}-{seed}"
    epochs, edits = trial.ways()[way]
    if not (run / "report.html").exists():
        shutil.rmtree(run, ignore_errors=True)
        asked = [word for text in edits for word in ("--edit", text)] + (["--model", trial.model] if trial.model else [])
        command("train", str(prepared(work, trial.data)), "--epochs", str(epochs), "--seed", str(seed), "--out", str(run), *asked)
    found = command("eval", str(run), "--split", "test")
    record = json.loads((run / "run.json").read_text())
    file = run / "events.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    made = [event for event in events if event["event"] == "edit"] or [unchanged(run)]
    work_done, at, flops = 0, 0, made[0]["flops"][0]
    for event in made:
        work_done += (event["step"] - at) * flops
        at, flops = event["step"], event["flops"][1]
    work_done += (record["steps"] - at) * flops
    return {
        "accuracy": found["metrics"]["accuracy"],
        "interval": found["intervals"]["accuracy"],
        "work": 3 * work_done * record["config"]["batch"],
        "parameters": made[-1]["parameters"][1],
        "flops": flops,
        "seconds": record["time"]["seconds"],
    }


def unchanged(run: Path) -> dict[str, Any]:
    """Of a run without an edit what an edit's event says."""
    (found,) = command("edit", str(run / "best.safetensors"), f"prune {ALL} 0.5", "--dry-run")["edits"]
    return {"step": 0} | {key: [found[f"{key}_before"]] * 2 for key in ("parameters", "flops")}


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, the work as a share of the large network's."""
    end = ("parameters at the end", "MFLOPs an image at the end")
    head = ("data", "way", "seed", "test accuracy (95 % interval)", *end, "work", "of the large one's")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    latest = {(row["data"], row["way"], row["seed"]): row for row in rows}
    for (data, way, seed), row in latest.items():
        whole = latest.get((data, "large", seed))
        share = "" if whole is None else f"{row['work'] / whole['work']:.2f}"
        low, high = row["interval"]
        accuracy = f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f})"
        size = f"{row['parameters']:,} | {row['flops'] / 1e6:.1f}"
        lines.append(f"| {data} | {way} | {seed} | {accuracy} | {size} | {row['work'] / 1e12:.1f} TFLOP | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=list(TRIALS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    RESULTS.parent.mkdir(exist_ok=True)
    for name in asked.only or list(TRIALS):
        for way in TRIALS[name].ways():
            row = {"data": name, "way": way, "seed": asked.seed, **trained(work, name, way, asked.seed), "cpu": processor()}
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
    sys.stdout.write(table([json.loads(line) for line in RESULTS.read_text().splitlines()]) + "\n")


if __name__ == "__main__":
    main()
