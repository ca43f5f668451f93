"""Thousands of real kills: runs over the variants of tests/faults, each killed up to 50 times at drawn places and then compared, to the
bit, with the run that nothing happened to.

    uv run python benchmarks/kills.py [--kills 10000] [--seed 0] [--results FILE]

Every run is one line of results/kills.jsonl; an interrupted script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faults.kills import VARIANTS, Server, survive  # noqa: E402
from saccade.core.rundir import RunDir  # noqa: E402
from small_jobs import Outcome  # noqa: E402

MOST = 50  # kills a run


def one(server: Server, folder: Path, whole: dict[str, Outcome], seed: int, number: int) -> dict[str, Any]:
    """Kill run `number` many times, let it end, compare."""
    variant = VARIANTS[number % len(VARIANTS)]
    draws = random.Random(f"{seed} {number}")
    began = time.monotonic()
    came = survive(server, folder / "run", variant, draws, draws.randint(1, MOST))
    differs = Outcome.of(RunDir(folder / "run")).differs(whole[variant])
    return {
        "seed": seed,
        "run": number,
        "variant": variant,
        "kills": came,
        "differs": differs,
        "seconds": round(time.monotonic() - began, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """By variant, as Markdown."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        for name in (row["variant"], "all"):
            sums[name] = [a + b for a, b in zip(sums[name], (1, row["kills"], bool(row["differs"])), strict=True)]
    lines = ["| variant | runs | kills | runs that differ in a bit |", "|---|---|---|---|"]
    order = [*(name for name in VARIANTS if name in sums), "all"]
    return "\n".join([*lines, *(f"| {name} | {sums[name][0]:,} | {sums[name][1]:,} | {sums[name][2]:,} |" for name in order)])


def main() -> None:
    """Add runs until there were enough kills, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "kills.jsonl")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    rows = [row for row in rows if row["seed"] == asked.seed]
    server = Server()
    with tempfile.TemporaryDirectory() as scratch:
        whole = {}
        for variant in VARIANTS:
            path = Path(scratch, variant)
            server.run(path, variant)
            whole[variant] = Outcome.of(RunDir(path))
        while sum(row["kills"] for row in rows) < asked.kills:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(one(server, Path(folder), whole, asked.seed, len(rows)))
            with asked.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"run {len(rows)}: {sum(row['kills'] for row in rows):,} kills {rows[-1]['differs'] or ''}", file=sys.stderr, flush=True)
    server.close()
    print(table(rows))


if __name__ == "__main__":
    main()
