"""Ranks that die: runs of two processes under torchrun (Gloo, two cores), in which now the one, now the other is killed by SIGKILL
at a drawn step, and torchrun starts both anew; at its end each run is compared, to the bit, with the run that nobody disturbed.

    uv run python benchmarks/rank_kills.py [--kills 200] [--seed 0] [--results FILE]

Every run is one line of results/rank_kills.jsonl; an interrupted script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from ranked import HERE as TESTS  # noqa: E402
from ranked import environment, free_port  # noqa: E402
from saccade.core.rundir import RunDir  # noqa: E402
from saccade.data import make  # noqa: E402
from small_jobs import Outcome  # noqa: E402

STEPS, MOST = 24, 6  # of a run, and the kills in it
OPTIONS = ["--epochs", "8", "--batch", "8", "--model", "small_resnet_32px", "--size", "16", "--device", "cpu", "--no-images"]


def train(data: Path, out: Path, kills: list[tuple[int, int]]) -> None:
    """Two processes to the end, whatever happens to them."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={len(kills)}", "--monitor-interval=0.1"]
    start += ["--master-addr=127.0.0.1", f"--master-port={free_port()}", str(TESTS / "ranked.py"), "command"]
    arguments = ["train", str(data), "--out", str(out), "--quiet", *OPTIONS]
    command = [sys.executable, *start, json.dumps(arguments), json.dumps(kills)]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=600)


def main() -> None:
    """Add runs until there were enough kills, then print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "rank_kills.jsonl")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        data, whole = Path(scratch, "data"), Path(scratch, "whole")
        make("shapes", n=36, size=(16, 16), out=data, seed=asked.seed)
        train(data, whole, [])
        expected = Outcome.of(RunDir(whole))
        while sum(row["kills"] for row in rows) < asked.kills:
            draws = random.Random(f"{asked.seed} {len(rows)}")
            at = sorted(draws.sample(range(1, STEPS), MOST))
            out, began = Path(scratch, str(len(rows))), time.monotonic()
            train(data, out, [(draws.randrange(2), step) for step in at])
            came = len(list(Path(scratch).glob(f"{out.name}.killed-*")))
            differs = Outcome.of(RunDir(out)).differs(expected)
            rows.append({"run": len(rows), "kills": came, "differs": differs, "seconds": round(time.monotonic() - began, 1)})
            with asked.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"run {len(rows)}: {sum(row['kills'] for row in rows)} kills {differs or ''}", file=sys.stderr, flush=True)
    kills, differing = sum(row["kills"] for row in rows), sum(bool(row["differs"]) for row in rows)
    print(f"{len(rows)} runs, {kills} ranks killed, {differing} runs differ in a bit")


if __name__ == "__main__":
    main()
