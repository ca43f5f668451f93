"""Who resumes exactly: training without interruption, twice, against training that is killed and resumed, compared to the bit.

    uv run python benchmarks/resume_exact.py [--only NAME] [--work DIR] [--timm-train FILE] [--results FILE]

320 handwritten digits of 32 px, 4 epochs of 10 steps, random crops and flips, dropout, averaged weights; one thread of the CPU, a fixed
seed, each tool's own deterministic options. A run is killed by SIGKILL in step 21 (the first after two epochs) and goes on from the save
of the epoch's end; another is killed in step 26, in the middle of the third epoch, and goes on from the newest save that the tool made.
Both go on as the tool's documentation says. Compared are all final weights, the averaged ones among them, and the lines of the tool's
own log without what clocks say: those of the uninterrupted run that are lost, those that stand there twice, those that differ, those that
are in the resumed run alone.

Each peer has an environment of its own under --work. timm's training script is no part of its package: get train.py of the repository
pytorch-image-models and name it with --timm-train; without it timm is left out. Every tool and variant is one line of
results/resume_exact.jsonl; a script that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predict_folder import commit, environment, processor
from saccade.data.builtin import write_digits

HERE = Path(__file__).resolve().parent
IMAGES = {"train": 32, "val": 10}  # of each class
STEPS = 40
KILLS = {"epoch": 21, "step": 26}  # what is gone on from -> the step of the kill
LIMIT = 300  # seconds a process may take
TELLING = ("resum", "restor", "unreliable", "recover")
ENVIRONMENTS = {"timm": ["timm", "pyyaml"], "lightning": ["lightning", "torchdata"], "ultralytics": ["ultralytics"]}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A tool and how it is run."""

    tool: str
    note: str
    workers: int
    model: str
    stateful: bool = False

    @property
    def name(self) -> str:
        """Unique."""
        return f"{self.tool}, {self.note}"


VARIANTS = (
    Variant("saccade", "timm's test_resnet, no dropout, 0 workers", 0, "test_resnet"),
    Variant("saccade", "small network, dropout, 0 workers", 0, "small_resnet_32px"),
    Variant("saccade", "small network, dropout, 2 workers", 2, "small_resnet_32px"),
    Variant("timm", "train.py, 0 workers", 0, "test_resnet"),
    Variant("timm", "train.py, 2 workers", 2, "test_resnet"),
    Variant("lightning", "DataLoader, 0 workers", 0, ""),
    Variant("lightning", "DataLoader, 2 workers", 2, ""),
    Variant("lightning", "StatefulDataLoader, 0 workers", 0, "", stateful=True),
    Variant("lightning", "StatefulDataLoader, 2 workers", 2, "", stateful=True),
    Variant("ultralytics", "YOLO11n-cls, 0 workers", 0, "yolo11n-cls.yaml"),
)


@dataclass(frozen=True)
class Place:
    """Where everything is."""

    work: Path
    train_script: Path

    @property
    def data(self) -> Path:
        """train/ and val/, a folder a class in each."""
        return self.work / "data"

    def python(self, tool: str) -> Path:
        """The interpreter of the tool's environment, which is made where it is missing, with our version of torch."""
        if tool not in ENVIRONMENTS:
            return Path(sys.executable)
        home = self.work / "environments" / tool
        if not (home / "made").exists():
            import torch
            import torchvision

            uv = shutil.which("uv") or sys.exit("uv is needed to make the peers' environments")
            shared = [f"{module.__name__}=={module.__version__.partition('+')[0]}" for module in (torch, torchvision)]
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
            command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(home / "bin" / "python")]
            subprocess.run([*command, *ENVIRONMENTS[tool], *shared], check=True)
            (home / "made").touch()
        return home / "bin" / "python"


@dataclass(frozen=True)
class End:
    """What a run left: its weights, its log's lines by name, its optimizer steps (of the last process), and what it said of resuming."""

    weights: dict[str, NDArray[np.float32]]
    log: dict[str, list[dict[str, str]]]
    about: Row
    said: list[str]


class ToolError(Exception):
    """A tool ended with an error; the message is its last line."""


def make_data(place: Place) -> None:
    """The first images of each digit."""
    if place.data.exists():
        return
    digits = write_digits(place.work / "digits", size=32)
    made = place.work / "data.part"
    shutil.rmtree(made, ignore_errors=True)
    for split, source in (("train", "train"), ("val", "test")):
        for folder in sorted((digits / source).iterdir()):
            (made / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[: IMAGES[split]]:
                shutil.copy(file, made / split / folder.name)
    made.rename(place.data)


def process(place: Place, variant: Variant, out: Path, *, kill_at: int = 0, resume: str = "") -> str:
    """Run one process in `out`; what it printed. It must end as ordered."""
    out.mkdir(parents=True, exist_ok=True)
    order = {"data": str(place.data), "out": str(out / "files"), "kill_at": kill_at, "resume": resume}
    about = asdict(variant)
    file = out / "order.json"
    file.write_text(json.dumps(order | {name: about[name] for name in ("workers", "stateful", "model")}))
    told = {"TIMM_TRAIN": str(place.train_script), "YOLO_CONFIG_DIR": str(place.work), "YOLO_OFFLINE": "true", "PYTHONHASHSEED": "0"}
    script = str(HERE / "peers" / f"resume_{variant.tool}.py")
    done = subprocess.run(
        [str(place.python(variant.tool)), script, str(file)],
        cwd=out,
        env={**environment(), **ONE_THREAD, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )
    (out / f"output-{'resumed' if resume else 'begun'}.txt").write_text(done.stdout)
    if done.returncode != (-signal.SIGKILL if kill_at else 0):
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [""]
        raise ToolError(f"ended with {done.returncode}: {lines[-1].strip()[:300]}")
    return done.stdout


def read(out: Path, output: str) -> End:
    """What the run that ended in `out` left."""
    files = out / "files"
    with np.load(files / "weights.npz") as held:
        weights = {name: held[name] for name in held.files}
    log = collections.defaultdict(list)
    for name, values in json.loads((files / "log.json").read_text()):
        log[name].append(values)
    work = re.escape(str(out.parents[2]))
    plain = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", re.sub(rf"{work}\S*/", ".../", line)) for line in output.splitlines()]
    said = [" ".join(line.split())[:300] for line in plain if any(word in line.lower() for word in TELLING)]
    return End(weights, dict(log), json.loads((files / "about.json").read_text()), list(dict.fromkeys(said))[:6])


def differences(whole: End, other: End) -> Row:
    """Of weights and log lines; nothing is rounded."""
    if whole.weights.keys() != other.weights.keys():
        raise ToolError("ended with weights of other names")
    equal = all(value.tobytes() == other.weights[name].tobytes() for name, value in whole.weights.items())
    far = {
        name: float(np.abs(value.astype(np.float64) - other.weights[name].astype(np.float64)).max(initial=0))
        for name, value in whole.weights.items()
        if not name.endswith("num_batches_tracked")
    }
    worst = max(far, key=lambda name: far[name])
    lost = [name for name in whole.log if name not in other.log]
    twice = [name for name, lines in other.log.items() if len(lines) > len(whole.log.get(name, [None]))]
    differ = [name for name, lines in whole.log.items() if name in other.log and other.log[name][-1] != lines[-1]]
    alone = [name for name in other.log if name not in whole.log]
    return {
        "bit_equal": equal,
        "largest_difference": far[worst],
        "where": worst if far[worst] else "",
        "log": {"lines": len(whole.log), "lost": len(lost), "twice": len(twice), "different": len(differ), "alone": len(alone)},
        "examples": {"lost": lost[:3], "twice": twice[:3], "different": differ[:3], "alone": alone[:3]},
        "steps_after": other.about["steps"],
        "said": other.said,
    }


def resumed(place: Place, variant: Variant, whole: End, kind: str, out: Path) -> Row:
    """Kill, go on, compare; an error of the tool is a result too."""
    try:
        process(place, variant, out, kill_at=KILLS[kind])
        output = process(place, variant, out, resume=kind)
        return differences(whole, read(out, output))
    except (ToolError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}


def measure(place: Place, variant: Variant) -> Row:
    """One line of the results."""
    began = time.monotonic()
    out = place.work / "runs" / variant.name.replace(", ", "-").replace(" ", "_")
    shutil.rmtree(out, ignore_errors=True)
    first, second = (read(out / name, process(place, variant, out / name)) for name in ("whole", "again"))
    assert first.about["steps"] == STEPS, f"{variant.name}: {first.about['steps']} steps"
    versions = dict(first.about["versions"])
    if variant.tool == "timm":
        versions["train.py (SHA-256)"] = hashlib.sha256(place.train_script.read_bytes()).hexdigest()[:16]
    row = {"name": variant.name, **asdict(variant), "versions": versions, "commit": commit(), "cpu": processor()}
    row |= {"again": differences(first, second)}
    row |= {f"after_{kind}": resumed(place, variant, first, kind, out / f"killed-{kind}") for kind in KILLS}
    shutil.rmtree(out)
    return {**row, "seconds": round(time.monotonic() - began, 1)}


def verdict(found: Row) -> str:
    """A cell: whether the weights are equal, and if not, how far they are."""
    if "error" in found:
        return found["error"]
    return "yes" if found["bit_equal"] else f"no ({found['largest_difference']:.2g})"


def lines_cell(found: Row) -> str:
    """A cell: lost / twice / different / alone, of all."""
    if "error" in found:
        return ""
    log = found["log"]
    return f"{log['lost']} / {log['twice']} / {log['different']} / {log['alone']} of {log['lines']}"


def table(rows: Sequence[Row]) -> str:
    """As Markdown, the newest line of each name."""
    newest = {row["name"]: row for row in rows}
    lines = [
        "| tool | version | repeatable | killed after an epoch: bit-equal (largest difference) | killed within an epoch | log lines "
        "lost / twice / different / alone: after an epoch | within an epoch | steps after resuming (needed: 20, 15) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        row = newest.get(variant.name)
        if row is None:
            continue
        kinds = [row["after_epoch"], row["after_step"]]
        steps = ", ".join(str(found.get("steps_after", "")) for found in kinds)
        cells = [row["name"], row["versions"].get(row["tool"], ""), verdict(row["again"])]
        cells += [*map(verdict, kinds), *map(lines_cell, kinds), steps]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a tool's name, or the begin of a variant's")
    parser.add_argument("--work", type=Path, default=Path("/tmp/resume_exact"))
    parser.add_argument("--timm-train", type=Path)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "resume_exact.jsonl")
    asked = parser.parse_args()
    work = asked.work.resolve()
    place = Place(work, (asked.timm_train or work / "train.py").resolve())
    os.makedirs(work, exist_ok=True)
    make_data(place)
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    for variant in VARIANTS:
        if not variant.name.startswith(asked.only) or any(row["name"] == variant.name for row in rows):
            continue
        if variant.tool == "timm" and not place.train_script.exists():
            print(f"{variant.name}: left out, {place.train_script} is missing (--timm-train)", file=sys.stderr)
            continue
        try:
            rows.append(measure(place, variant))
        except (ToolError, subprocess.TimeoutExpired) as error:
            print(f"{variant.name}: {error}", file=sys.stderr, flush=True)
            continue
        with asked.results.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(f"{variant.name}: {rows[-1]['seconds']} s", file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
