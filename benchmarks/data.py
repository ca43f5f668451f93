"""How fast images reach the network: the whole way of training's pixels, beside torchvision, timm, albumentations and Ultralytics.

    uv run python benchmarks/data.py [--only SET] [--repeats 3] [--work DIR] [--results FILE]

Sets: photos of 500x375 and of 2048x1536 (made of the clothing photos of ../shared/data, quality 90), and grey PNGs of 28x28. Every way
takes a random resized crop (8 to 100 % of the area) at 224 (32 for the small ones), mirrors half of them, and gives normalised float32
batches of 64, with two workers on two cores (peers: processes, ours: threads). In turns, several repeats, each in a process of its own.
First epoch: from the imported library on, listing and caching included. The peers live in an environment of their own under --work.
Every run is one line of results/data.jsonl; a script that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
WORKER = HERE / "peers" / "data_worker.py"
WAYS = ("saccade", "torchvision_v2", "torchvision_pil", "timm", "albumentations", "ultralytics")
SETS = {"500x375": (375, 500, 1000, 224, 3), "2048x1536": (1536, 2048, 150, 224, 3), "28x28": (28, 28, 6000, 32, 4)}
QUALITY = 90

Row = dict[str, Any]


def make_sets(work: Path) -> dict[str, Path]:
    """The three sets as class folders, made once."""
    if not SHARED.exists():
        sys.exit("needs ../shared/data: the photos come from there")
    unpack = [sys.executable, str(SHARED / "unpack.py"), str(work / "source"), "clothing-photos"]
    if not (work / "source" / "clothing-photos").exists():
        subprocess.run(unpack, check=True, stdout=subprocess.DEVNULL)
    photos = sorted((work / "source" / "clothing-photos").rglob("*.jpg"))
    folders = {}
    for name, (height, width, count, _, _) in SETS.items():
        folders[name] = work / name
        if not folders[name].exists():
            draft = work / f"draft-{name}"
            shutil.rmtree(draft, ignore_errors=True)
            _fill(draft, photos, (height, width), count)
            draft.rename(folders[name])
    return folders


def _fill(folder: Path, photos: Sequence[Path], size: tuple[int, int], count: int) -> None:
    draws = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % 5}"
        place.mkdir(parents=True, exist_ok=True)
        if size[0] <= 32:
            glyph = Image.fromarray(draws.integers(0, 256, (7, 7), np.uint8)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
            glyph.save(place / f"{number}.png")
            continue
        with Image.open(photos[number % len(photos)]) as opened:
            image = opened.convert("RGB")
        if image.height > image.width:
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=QUALITY)


def peers_python(work: Path) -> Path:
    """The interpreter of the peers' environment, made where it is missing."""
    home = work / "peers"
    if not (home / "made").exists():
        uv = shutil.which("uv") or sys.exit("uv is needed to make the peers' environment")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        wanted = ["torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "ultralytics"]
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(home / "bin" / "python"), *wanted], check=True
        )
        (home / "made").touch()
    return home / "bin" / "python"


def measure(python: Path, way: str, folder: Path, size: int, epochs: int) -> Row:
    """One process, and what it printed; the cache of ours is empty."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": cache,
            "XDG_CACHE_HOME": cache,
            "PYTHONPATH": str(HERE.parent / "src"),
            "YOLO_VERBOSE": "0",
        }
        command = [str(python), str(WORKER), way, str(folder), str(size), str(epochs), "2"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def table(rows: Sequence[Row]) -> None:
    """Medians, and ours as a multiple of each."""
    for name in SETS:
        here = [row for row in rows if row["set"] == name]
        if not here:
            continue
        middle = {
            (way, epoch): statistics.median(row[epoch] for row in here if row["way"] == way)
            for way in WAYS
            for epoch in ("first", "later")
            if any(row["way"] == way for row in here)
        }
        repeats = min(sum(row["way"] == way for row in here) for way in WAYS if (way, "first") in middle)
        print(f"\n{name}, {here[0]['images']} images, median of {repeats}\n")
        print("| way | first epoch, images/s | later, images/s | ours / it, first | ours / it, later |\n|---|---|---|---|---|")
        for way in WAYS:
            if (way, "first") in middle:
                first, later = middle[way, "first"], middle[way, "later"]
                ratios = f"{middle['saccade', 'first'] / first:.2f} | {middle['saccade', 'later'] / later:.2f}"
                print(f"| {way} | {first:.0f} | {later:.0f} | {ratios} |")


def main() -> None:
    """Add what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "saccade-data")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "data.jsonl")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    folders, peers = make_sets(asked.work), peers_python(asked.work)
    rows: list[Row] = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    for repeat in range(asked.repeats):
        for name in [asked.only] if asked.only else SETS:
            for way in WAYS:
                if any((row["set"], row["way"], row["repeat"]) == (name, way, repeat) for row in rows):
                    continue
                *_, size, epochs = SETS[name]
                python = Path(sys.executable) if way == "saccade" else peers
                found = measure(python, way, folders[name], size, epochs)
                rows.append({"set": name, "way": way, "repeat": repeat, **found})
                print(f"{name} {way}: first {found['first']:.0f}, later {found['later']:.0f} images/s", file=sys.stderr)
                with asked.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
