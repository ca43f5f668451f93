"""Weights that others have trained, adopted and measured on test images, beside what is published of them.

    uv run python benchmarks/adopting.py --work DIR

`saccade adopt` on the pickled checkpoints of ../shared/data/weights, then their answers for the 1,000 test images of the CIFAR-10 excerpt
and the 10,000 of MNIST (there scaled bilinearly to 32x32, as its authors do). Each result is a line of benchmarks/results/adopting.jsonl,
and the table is printed from that file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from datasets import HERE, SHARED
from datasets import saccade as command

RESULTS = HERE / "results" / "adopting.jsonl"
CIFAR = ("--classes", "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck", "--license", "bsd-2-clause")
# Of each: file, model, set, the options of adopt, the accuracy published, and by the authors' own code on these images (INDEX.md).
ADOPTED: list[tuple[str, str, str, tuple[str, ...], float, float]] = [
    ("akamaster-cifar10/resnet20-12fca82f.th", "cifar_resnet20", "cifar10", CIFAR, 0.9173, 0.915),
    ("akamaster-cifar10/resnet32-d509ac18.th", "cifar_resnet32", "cifar10", CIFAR, 0.9263, 0.928),
    ("csinva-mnist/lenet*.pth", "lenet5", "mnist", ("--mean", "0", "--std", "1"), 0.991, 0.9908),
]


def measured(work: Path, pattern: str, model: str, data: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Adopted unless it was before, and its accuracy on the test images."""
    (source,) = (SHARED / "weights").glob(pattern)
    file = work / f"{model}.safetensors"
    if not (work / data).exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work), data], check=True)
    if not file.exists():
        command("adopt", str(source), "--model", model, "--out", str(file), *options)
    found = command("eval", str(file), str(work / data), "--split", "test")
    return {"file": source.name, "model": model, "images": found["images"], "accuracy": found["metrics"]["accuracy"]}


def table(rows: list[dict[str, Any]]) -> str:
    """The latest of each as Markdown."""
    head = ("file", "model", "test images", "accuracy", "by the authors' code on these", "published, on all 10,000")
    latest = {row["file"]: row for row in rows}.values()
    shown = ["| {file} | {model} | {images:,} | {accuracy:.4f} | {authors} | {published} |".format(**row) for row in latest]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *shown])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    RESULTS.parent.mkdir(exist_ok=True)
    for pattern, model, data, options, published, authors in ADOPTED:
        row = measured(work, pattern, model, data, options) | {"published": published, "authors": authors}
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    sys.stdout.write(table([json.loads(line) for line in RESULTS.read_text().splitlines()]) + "\n")


if __name__ == "__main__":
    main()
