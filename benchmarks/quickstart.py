"""`saccade quickstart` as a newcomer runs it, with several seeds: seconds of the whole command and accuracy on the held-out images.

uv run python benchmarks/quickstart.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    print("| seed | accuracy | seconds |\n|---|---|---|")
    rows = []
    for seed in range(parser.parse_args().seeds):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "saccade",
                "quickstart",
                "--out",
                str(Path(folder, "q")),
                "--seed",
                str(seed),
                "--json",
                "--quiet",
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append((json.loads(done.stdout)["metrics"]["accuracy"], time.perf_counter() - begin))
        print(f"| {seed} | {rows[-1][0]:.4f} | {rows[-1][1]:.1f} |", flush=True)
    print(f"| median | {statistics.median(row[0] for row in rows):.4f} | {statistics.median(row[1] for row in rows):.1f} |")


if __name__ == "__main__":
    main()
