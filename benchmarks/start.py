"""Start times, interleaved: `python -c pass`, argparse with json, click, `import saccade`, `saccade --help`, `saccade train --help`.

    uv run python benchmarks/start.py [--repeats 20]

Prints the median milliseconds of each and its ratio to the bare interpreter in the same round. Byte code is cached first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "argparse and json": ["-c", "import argparse, json"],
    "click": ["-c", "import click"],
    "import saccade": ["-c", "import saccade"],
    "saccade --help": ["-m", "saccade", "--help"],
    "saccade train --help": ["-m", "saccade", "train", "--help"],
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Wall time of one process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for arguments in COMMANDS.values():
        seconds(arguments, environment)
    rounds = [{name: seconds(arguments, environment) for name, arguments in COMMANDS.items()} for _ in range(repeats)]
    print("| command | median ms | times `python -c pass` |\n|---|---|---|")
    for name in COMMANDS:
        median = statistics.median(row[name] for row in rounds)
        ratio = statistics.median(row[name] / row["python -c pass"] for row in rounds)
        print(f"| {name} | {median * 1000:.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
