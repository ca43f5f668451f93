"""Steps of training on a processor with freed memory kept (`saccade.core.memory`) and given back as glibc does by itself.

    uv run python benchmarks/memory.py [--threads N] [--rounds 5]

Forward, loss and backward pass of a batch, each way in a process of its own, in turns; counted: page faults of a step, processor seconds
of a step as a ratio (medians of the rounds), and the most memory that the process held. Each round is a line of
benchmarks/results/memory.jsonl, and the table is printed from that file.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

from datasets import HERE, processor

RESULTS = HERE / "results" / "memory.jsonl"
CASES = {
    "resnet18": ("classify", 16, 224),
    "small_resnet_128px": ("classify", 32, 128),
    "small_unet": ("segment", 4, 256),
    "small_detector": ("detect", 8, 320),
}
WAYS = ("given back", "kept")
WARM, STEPS = 3, 8


def worker(name: str, way: str, threads: int) -> None:
    """Some steps of one network; prints what they took."""
    import torch
    from torch.utils._pytree import tree_leaves

    from saccade.core import memory
    from saccade.core.config import TrainConfig
    from saccade.data.sample import Schema
    from saccade.tasks import room

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    task, batch, side = CASES[name]
    schema = Schema(task, tuple("abcdefghij"), {"train": (100,) * 10}, 3, (side, side), uniform=True)
    network = room(task).create(TrainConfig(task=task, model=name, size=(side, side), batch=batch), schema)[0]
    network = network.train().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).to(memory_format=torch.channels_last)

    def step() -> None:
        found = tree_leaves(network(images))
        torch.stack([value.square().mean() for value in found if value.requires_grad]).sum().backward()
        network.zero_grad()

    with memory.kept() if way == "kept" else nullcontext():
        for _ in range(WARM):
            step()
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        for _ in range(STEPS):
            step()
        seconds, after = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before.ru_minflt) / STEPS
    print(json.dumps({"name": name, "way": way, "threads": threads, "faults": faults, "seconds": seconds / STEPS, "held": after.ru_maxrss}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, way = args.worker
        worker(name, way, args.threads)
        return
    for number in range(args.rounds):
        for name in CASES:
            for way in WAYS if number % 2 else WAYS[::-1]:
                line = [sys.executable, __file__, "--worker", name, way, "--threads", str(args.threads)]
                found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({"round": number, "machine": processor(), **found}) + "\n")
    table(args.threads)


def table(threads: int) -> None:
    """Print what was measured with so many threads."""
    rows = [row for row in map(json.loads, RESULTS.read_text().splitlines()) if row["threads"] == threads]
    print(
        "| network | batch | page faults a step, given back | kept | time of a step, kept to given back | memory held, kept to given back |"
    )
    print("|---|---|---|---|---|---|")
    for name, (_, batch, side) in CASES.items():
        by_way = {way: [row for row in rows if row["name"] == name and row["way"] == way] for way in WAYS}
        faults = [f"{statistics.median(row['faults'] for row in by_way[way]):,.0f}" for way in WAYS]
        ratios = {
            key: statistics.median(one[key] / other[key] for other, one in zip(by_way["given back"], by_way["kept"], strict=True))
            for key in ("seconds", "held")
        }
        told = f"{batch} of {side}x{side} | {faults[0]} | {faults[1]} | {ratios['seconds']:.3f} | {ratios['held']:.2f}"
        print(f"| {name} | {told} |")


if __name__ == "__main__":
    main()
