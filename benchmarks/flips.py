"""Very many single bits that turn over in a checkpoint and in the models of a real run, one at a time: each must be found, and each
time the checkpoint before must be used.

    uv run python benchmarks/flips.py [--flips 1000000] [--seconds 0] [--results FILE]

Every few thousand are one line of results/flips.jsonl; an interrupted script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faults.flips import Flips  # noqa: E402
from saccade.training import loop  # noqa: E402
from saccade.training.loop import Trainer  # noqa: E402
from small_jobs import job  # noqa: E402

LINE = 5000  # flips of one line of the results
OUTCOMES = ("found", "harmless", "MISSED")


def table(rows: list[dict[str, Any]]) -> str:
    """By file, as Markdown."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update(row["found"])
    names = sorted({what.split(": ")[0] for what in sums})
    lines = ["| file | flips | found | harmless | missed |", "|---|---|---|---|---|"]
    for name in [*names, "all"]:
        counts = [sum(sums[f"{one}: {what}"] for one in (names if name == "all" else [name])) for what in OUTCOMES]
        lines.append(f"| {name} | {sum(counts):,} | {counts[0]:,} | {counts[1]:,} | {counts[2]:,} |")
    return "\n".join(lines)


def main() -> None:
    """Add flips until there were enough, or the time is up, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long, to go on another time")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "flips.jsonl")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    loop.CHECKPOINT_SECONDS = 0.0
    memory = Path("/dev/shm")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        made = job(Path(scratch, "run"))
        Trainer(made).fit()
        flips = Flips(made.run)
        while sum(row["flips"] for row in rows) < asked.flips:
            start = time.monotonic()
            if asked.seconds and start - began > asked.seconds:
                break
            found = flips.some(LINE, random.Random(f"flips {len(rows)}"))
            rows.append({"line": len(rows), "flips": LINE, "found": found, "seconds": round(time.monotonic() - start, 2)})
            with asked.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{len(rows) * LINE:,} flips, {rows[-1]['seconds']} s", file=sys.stderr, flush=True)
        flips.close()
    print(table(rows))


if __name__ == "__main__":
    main()
