"""A fault at every system call of a save, in turn, over sizes and states of the folder: tests/faults/sweep.py in full.

    uv run python benchmarks/sweep.py [--sizes 400000,4000,3000000] [--minutes M] [--results FILE]

Linux with strace. Each (mode, size, fault, call) is one line of results/sweep.jsonl; an interrupted script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faults.sweep import FAST, FAULTS, MODES, Point, Savers, Sweep, missing  # noqa: E402

KINDS = ("lost", "false success", "exit", "leftover")
Group = tuple[str, int, str, str]


def groups(sweep: Sweep, sizes: list[int]) -> Iterator[tuple[Group, list[Point]]]:
    """The points by mode, size, fault and call."""
    for size in sizes:
        for mode in MODES:
            found: dict[Group, list[Point]] = defaultdict(list)
            for point in sweep.points(mode, size):
                found[mode, size, point.fault, point.call].append(point)
            yield from found.items()


def one(sweep: Sweep, group: Group, points: list[Point]) -> dict[str, Any]:
    """Try each point of a group; the counts, and what the first few failures were."""
    began, wrong = time.monotonic(), []
    for point in points:
        wrong += [(point.number, *each) for each in sweep.try_at(point).wrong]
    row: dict[str, Any] = dict(zip(("mode", "size", "fault", "call"), group, strict=True))
    row |= {"points": len(points), **{kind: len({number for number, found, _ in wrong if found == kind}) for kind in KINDS}}
    return {**row, "first": wrong[:3], "seconds": round(time.monotonic() - began, 2)}


def table(rows: list[dict[str, Any]]) -> str:
    """By fault, as Markdown."""
    names = {"lost": "lost", "false success": "false successes", "exit": "wrong exits", "leftover": "leftovers"}
    lines = [f"| fault | system calls | points | {' | '.join(names.values())} |", "|---|---" + "|---" * (1 + len(names)) + "|"]
    for fault in (*FAULTS, "all"):
        those = [row for row in rows if fault in (row["fault"], "all")]
        sums = [sum(row[key] for row in those) for key in ("points", *names)]
        lines.append(f"| {fault} | {len({row['call'] for row in those})} | {' | '.join(f'{value:,}' for value in sums)} |")
    return "\n".join(lines)


def main() -> None:
    """Sweep what is not swept yet, until the minutes are over, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="400000,4000,3000000", help="bytes of a checkpoint")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--results", type=Path, default=HERE / "results" / "sweep.jsonl")
    asked = parser.parse_args()
    if why := missing():
        sys.exit(why)
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    done = {(row["mode"], row["size"], row["fault"], row["call"]) for row in rows}
    end = time.monotonic() + asked.minutes * 60
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as scratch:
        savers = Savers(Path(scratch))
        sweep = Sweep(savers, Path(scratch))
        for group, points in groups(sweep, [int(size) for size in asked.sizes.split(",")]):
            if group in done or time.monotonic() > end:
                continue
            rows.append(one(sweep, group, points))
            with asked.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{sum(row['points'] for row in rows):,} points {rows[-1]}", file=sys.stderr, flush=True)
        savers.close()
    print(table(rows))


if __name__ == "__main__":
    main()
