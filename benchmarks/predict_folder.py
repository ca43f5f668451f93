"""Images per second from a folder of JPEGs to classes with probabilities: saccade, its peers, and the ceilings that bound it.

    uv run python benchmarks/predict_folder.py [--only resnet18|resnet50] [--repeats 5] [--images 500] [--work DIR] [--run ID] [--tune]
                                            [--results FILE]

FP32 on all cores, 224 px, the same weights for all. Each contender is a process of its own in the environment that it needs (the peers'
is made under --work), is warmed up once, and then takes its turn in every round while the others sleep; the order rotates. `--tune`
first finds each contender's fastest options on this machine and keeps them under --work; without it, those hold that were fastest
where this was written. A measurement that other processes disturbed is repeated, three at most. Every round is one line of
results/predict_folder.jsonl; a run that was interrupted goes on.

"plain" is each peer as it is commonly written; without the word, with every option chosen for speed on this machine. Ratios are medians
of the rounds' ratios. "sum" is what decoding alone and the runtime alone give one after the other, 1 / (1 / decoding + 1 / runtime), in
the same round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "predict_folder.jsonl"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saccade-benchmarks" / "predict_folder"
ARCHS = ("resnet18", "resnet50")
PEERS = ("ultralytics", "timm loop", "torchvision loop")
PLAIN = tuple(f"{name}, plain" for name in PEERS)
OURS = ("saccade torch", "saccade onnx")
CEILINGS = ("decoding alone", "runtime alone")
REFERENCE = "torchvision loop"
SUM = "sum"
DISTURBED = 0.1  # share of the cores that others may take
SHORT = 0.2  # seconds
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    run: str
    work: Path
    images: int
    repeats: int
    tune: bool
    results: Path

    @property
    def folder(self) -> Path:
        """The images that are measured."""
        return self.work / f"images-{self.images}"

    @property
    def part(self) -> Path:
        """Those for warming up and finding options."""
        return self.work / "part"


@dataclass(frozen=True)
class Rate:
    """Images per second, and the share of the cores that other processes (or machines on the same host) took meanwhile."""

    value: float
    others: float


class Worker:
    """A contender in its process."""

    def __init__(self, name: str, python: Path | str, script: str, material: Path) -> None:
        self.name = name
        command = [str(python), str(HERE / "peers" / script), name, str(material), material.name]
        log = (material / f"{name.replace(' ', '-')}.log").open("w")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment())
        log.close()
        told = self._read()
        self.options: Mapping[str, list[Any]] = told["options"]
        self.versions: dict[str, str] = told["versions"]
        self.setting = {name: values[0] for name, values in self.options.items()}

    def run(self, folder: Path, setting: Mapping[str, Any] | None = None) -> Rate:
        """Over a folder; once more, twice at most, where other processes disturb it."""
        tries = [self._run(folder, setting or self.setting)]
        while tries[-1].others > DISTURBED and len(tries) < 3:
            print(f"{self.name}: other processes took {tries[-1].others:.0%} of the cores, once more", file=sys.stderr, flush=True)
            tries.append(self._run(folder, setting or self.setting))
        return min(tries, key=lambda rate: rate.others)

    def _run(self, folder: Path, setting: Mapping[str, Any]) -> Rate:
        before = busy_seconds()
        reply = self._ask({"do": "run", "folder": str(folder), "setting": setting})
        # Less than a few ticks of the system's clock tell nothing.
        taken = busy_seconds() - before - reply["processor_seconds"] if reply["seconds"] > SHORT else 0.0
        others = taken / (reply["seconds"] * cores())
        wanted = len(list(folder.glob("*.jpg")))
        if reply["images"] != wanted:
            sys.exit(f"{self.name} answered for {reply['images']} of {wanted} images")
        return Rate(reply["images"] / reply["seconds"], max(0.0, others))

    def answers(self, file: Path) -> tuple[list[str], NDArray[np.float32]]:
        """Names and probabilities [N, K] of the last run."""
        self._ask({"do": "answers", "file": str(file)})
        with np.load(file) as held:
            return held["names"].tolist(), held["probabilities"]

    def close(self) -> None:
        """The end of its standard input ends it."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, command: Mapping[str, Any]) -> Row:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Row:
        assert self._process.stdout
        line = self._process.stdout.readline()
        reply: Row = json.loads(line) if line else {"error": "its process has ended; its log stands beside the weights"}
        if "error" in reply:
            sys.exit(f"{self.name}: {reply['error']}")
        return reply


def busy_seconds() -> float:
    """What all processes have taken of the cores since the machine started; 0 where the system does not tell."""
    file = Path("/proc/stat")
    if not file.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def environment() -> dict[str, str]:
    """Ours, without what some machines set and users' do not."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}


def peers_python(work: Path) -> Path:
    """The interpreter of the peers' environment, which is made where it is missing, with our versions of what we share."""
    home = work / "peers"
    if not (home / "made").exists():
        uv = shutil.which("uv") or sys.exit("uv is needed to make the peers' environment")
        shared = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "torchvision", "timm")]
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        wanted = ["ultralytics", *shared, "safetensors"]
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(home / "bin" / "python"), *wanted], check=True
        )
        (home / "made").touch()
    return home / "bin" / "python"


def make_material(plan: Plan, arch: str, *, fresh: bool) -> Path:
    """Images, weights and saccade's files, these anew where `fresh`."""
    material = plan.work / arch
    if fresh:
        for name in ("model.safetensors", "model.onnx"):
            (material / name).unlink(missing_ok=True)
    script = str(HERE / "peers" / "folder_material.py")
    subprocess.run([sys.executable, script, str(plan.work), str(plan.images), arch], check=True, env=environment())
    return material


def start(plan: Plan, material: Path) -> list[Worker]:
    """Open every contender, one after the other."""
    python = peers_python(plan.work)
    peers = [Worker(name, python, "folder_peers.py", material) for name in (*PEERS, *PLAIN)]
    return [*peers, *(Worker(name, sys.executable, "folder_ours.py", material) for name in (*OURS, *CEILINGS))]


def choose(workers: Iterable[Worker], plan: Plan, material: Path) -> None:
    """Give each worker its options (found now, found before, or the first of each) and warm it up."""
    file = material / "settings.json"
    kept: Row = json.loads(file.read_text()) if file.exists() and not plan.tune else {}
    for worker in workers:
        worker.setting |= {name: value for name, value in kept.get(worker.name, {}).items() if value in worker.options.get(name, ())}
        worker.run(plan.part)
        if plan.tune:
            tune(worker, plan.part)
            kept[worker.name] = worker.setting
            file.write_text(json.dumps(kept, indent=1))


def tune(worker: Worker, part: Path) -> None:
    """Take the fastest value of each option in turn, the others held; each is measured twice and its better figure counts."""
    for name, values in worker.options.items():
        rates = {}
        for value in values:
            setting = worker.setting | {name: value}
            worker.run(part, setting)
            rates[value] = max(worker.run(part, setting).value for _ in range(2))
        worker.setting[name] = max(rates, key=lambda value: rates[value])
        shown = ", ".join(f"{value} {rate:.1f}" for value, rate in rates.items())
        print(f"{worker.name}: {name} {shown}", file=sys.stderr, flush=True)


def one_round(workers: Sequence[Worker], plan: Plan, number: int, scratch: Path) -> Row:
    """Images per second of each, what others took of the cores meanwhile, and how far its answers are from the reference's."""
    turn = [*workers[number % len(workers) :], *workers[: number % len(workers)]]
    measured = {worker.name: worker.run(plan.folder) for worker in turn}
    found = {worker.name: worker.answers(scratch / "answers.npz") for worker in workers if worker.name not in CEILINGS}
    names, truth = found[REFERENCE]
    answers = {}
    for name, (own, probabilities) in found.items():
        if own != names:
            sys.exit(f"{name} answered for other images, or in another order, than {REFERENCE}")
        same = float((probabilities.argmax(1) == truth.argmax(1)).mean())
        answers[name] = {"difference": float(np.abs(probabilities - truth).max()), "top1": same}
    answers[REFERENCE]["classes"] = len(set(truth.argmax(1).tolist()))
    rates = {name: round(rate.value, 2) for name, rate in measured.items()}
    others = {name: round(rate.others, 3) for name, rate in measured.items()}
    return {"images_per_second": rates, "others": others, "answers": answers}


def measure(plan: Plan, arch: str, rows: list[Row]) -> None:
    """Add the rounds that are missing to `rows` and to the results file."""
    done = sum(row["run"] == plan.run and row["arch"] == arch for row in rows)
    if done >= plan.repeats:
        return
    material = make_material(plan, arch, fresh=not done)
    workers = start(plan, material)
    try:
        choose(workers, plan, material)
        about = {
            "settings": {worker.name: worker.setting for worker in workers},
            "versions": {"peers": workers[0].versions, "ours": workers[-1].versions, "commit": commit()},
            "machine": {"cpu": processor(), "cores": cores(), "system": platform.platform(), "python": platform.python_version()},
        }
        for number in range(done, plan.repeats):
            row = {"run": plan.run, "arch": arch, "round": number, "images": plan.images, "repeats": plan.repeats}
            rows.append(row | one_round(workers, plan, number, material) | about)
            with plan.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{arch} round {number + 1}: {rows[-1]['images_per_second']}", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.close()


def commit() -> str:
    """Of this repository, with a plus where files differ from it."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def table(rows: Sequence[Row]) -> str:
    """One architecture's rounds as Markdown."""
    rounds = [with_sum(row["images_per_second"]) for row in rows]
    names = [name for name in (*PLAIN, *PEERS, *OURS, *CEILINGS, SUM) if all(name in rates for rates in rounds)]
    medians = {name: statistics.median(rates[name] for rates in rounds) for name in names}
    plain, best = (max(group, key=lambda name: medians[name]) for group in (PLAIN, PEERS))
    lines = [
        f"| {rows[0]['arch']}, {len(rows)} rounds of {rows[0]['images']} | images/s | to {plain} | to {best} | to the sum | "
        "same class | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        ratios = [statistics.median(rates[name] / rates[other] for rates in rounds) for other in (plain, best, SUM)]
        cells = [name, f"{medians[name]:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        answers = [row["answers"][name] for row in rows if name in row["answers"]]
        cells += [f"{min(a['top1'] for a in answers):.1%}", f"{max(a['difference'] for a in answers):.1e}"] if answers else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    last = rows[-1]
    most = max(share for row in rows for share in row["others"].values())
    lines += ["", f"Different best classes among the images: {last['answers'][REFERENCE]['classes']}."]
    lines += [f"Other processes took at most {most:.0%} of the cores in any run."]
    lines += [f"{name}: {json.dumps(setting)}" for name, setting in last["settings"].items() if setting]
    lines += [f"{name}: {json.dumps(value)}" for name, value in (*last["versions"].items(), ("machine", last["machine"]))]
    return "\n".join(lines)


def with_sum(rates: Row) -> Row:
    """The rates and what the two ceilings give one after the other."""
    return rates | {SUM: 1 / sum(1 / rates[name] for name in CEILINGS)}


def run_name(asked: argparse.Namespace, archs: Sequence[str], rows: Sequence[Row]) -> str:
    """The one asked for; else the last one, where it was asked for the same and lacks rounds; else a new one."""
    if asked.run:
        return str(asked.run)
    if rows and (rows[-1]["images"], rows[-1]["repeats"]) == (asked.images, asked.repeats):
        last = str(rows[-1]["run"])
        if any(sum(row["run"] == last and row["arch"] == arch for row in rows) < asked.repeats for arch in archs):
            return last
    return time.strftime("%Y%m%d-%H%M%S")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARCHS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--work", type=Path, default=CACHE)
    parser.add_argument("--run", help="the name of a run to begin or go on with")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    asked = parser.parse_args()
    archs = [asked.only] if asked.only else ARCHS
    asked.results.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    plan = Plan(run_name(asked, archs, rows), asked.work.resolve(), asked.images, asked.repeats, asked.tune, asked.results)
    print(f"run {plan.run}", file=sys.stderr)
    for arch in archs:
        measure(plan, arch, rows)
        print(table([row for row in rows if row["run"] == plan.run and row["arch"] == arch]) + "\n", flush=True)


if __name__ == "__main__":
    main()
