"""What law 1 costs (steps a second of saccade's training against a plain loop of the same network), and what saving costs.

    uv run python benchmarks/resume.py [--only MODEL] [--rounds 7] [--results FILE]

Contenders (benchmarks/peers/resume_loops.py says what each does) run in processes of their own, warmed up, then in turns; ratios are
medians of the rounds' ratios. Saving: the time that some steps take longer with a checkpoint written beside them, against the same steps
without, as a share of the minute between two checkpoints. Every round is a line of results/resume.jsonl; the table is of all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER = HERE / "peers" / "resume_loops.py"
CONTENDERS = ("saccade", "keyed loader", "plain")
# model: side, batch, steps a round (some seconds)
MODELS = {"small_resnet_32px": (32, 64, 40), "small_resnet_128px": (128, 32, 12), "resnet18": (224, 16, 8)}
MINUTE = 60.0


class Worker:
    """One contender on one model."""

    def __init__(self, contender: str, model: str) -> None:
        side, batch, self.steps = MODELS[model]
        command = [sys.executable, str(WORKER), contender, model, str(side), str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._answer()

    def run(self, *, save: bool = False) -> dict[str, float]:
        """Seconds of a round's steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"steps": self.steps, "save": save}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def measure(model: str, rounds: int) -> list[dict[str, Any]]:
    """The rounds of one model."""
    workers = {name: Worker(name, model) for name in CONTENDERS}
    for worker in workers.values():
        worker.run()
    rows = []
    for number in range(rounds):
        order = CONTENDERS if number % 2 else CONTENDERS[::-1]
        seconds = {name: workers[name].run()["seconds"] for name in order}
        saved = workers["saccade"].run(save=True)
        without = workers["saccade"].run()["seconds"]
        rows.append({"model": model, "seconds": seconds, "saving": saved["seconds"] - without, "stall": saved["stall"]})
        print(f"{model} round {number + 1}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """By model, as Markdown."""
    lines = [
        "| model | input | batch | rounds | saccade to plain loop | to plain step on keyed loader | stall of a save | saving |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, (side, batch, _) in MODELS.items():
        mine = [row for row in rows if row["model"] == model]
        if not mine:
            continue
        ratios = [statistics.median(row["seconds"][name] / row["seconds"]["saccade"] for row in mine) for name in ("plain", "keyed loader")]
        stall, saving = (statistics.median(row[name] for row in mine) for name in ("stall", "saving"))
        figures = f"{ratios[0]:.3f} | {ratios[1]:.3f} | {1000 * stall:.0f} ms | {100 * saving / MINUTE:.2f} %"
        lines.append(f"| {model} | {side} | {batch} | {len(mine)} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Add rounds, then print the table of all there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "resume.jsonl")
    asked = parser.parse_args()
    for model in [asked.only] if asked.only else MODELS:
        rows = measure(model, asked.rounds) if asked.rounds else []
        with asked.results.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(table([json.loads(line) for line in asked.results.read_text().splitlines()]))


if __name__ == "__main__":
    main()
