"""A GAN and a VAE on MNIST at 32x32 beside a plain DCGAN and a plain VAE of the same minutes; both on Noto's emoji.

    uv run python benchmarks/generation.py --work DIR [--only gan|vae|emoji ...] [--together] [--minutes X] [--seed S]

MNIST is padded by two pixels a side, the same PNGs or arrays for all. Ours are `saccade train DATA --task generate --minutes M` with
the defaults (and `--model vae`), processes of their own; the peers are
benchmarks/peers/dcgan.py and vae.py. Minutes count from the start of each process. `--together` runs the two of a pair at the same time,
each on one thread; without it one after the other, each on two. Features are those of a classifier that is trained here first,
of at least 0.99 accuracy on the test images; distances are to the 10,000 test images, of 10,000 made ones. What is there already is
not done again; each result is a line of benchmarks/results/generation.jsonl, and the tables are printed from that file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets import HERE, SHARED, processor
from datasets import saccade as command

RESULTS = HERE / "results" / "generation.jsonl"
MINUTES = {"gan": 30.0, "vae": 15.0, "emoji": 30.0}
TITLES = {"gan": "MNIST 32x32", "vae": "MNIST 32x32", "emoji": "Noto emoji 32x32 RGBA"}
MADE = 10_000
LEAST = 0.99


def idx(name: str) -> Any:
    """One idx file: images [N, 28, 28] or labels [N], uint8."""
    with gzip.open(SHARED / "mnist-idx" / name) as file:
        raw = file.read()
    sizes = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def prepared(work: Path, name: str) -> Path:
    """The folder of one set; of MNIST, padded to 32x32, also what the peers read."""
    folder = work / "data" / name
    if name != "mnist" and not folder.exists():
        subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(work / "data"), name], check=True)
    if name == "mnist" and not (work / "test.npy").exists():
        for split, stem in (("train", "train"), ("test", "t10k")):
            images = np.pad(idx(f"{stem}-images-idx3-ubyte.gz"), ((0, 0), (2, 2), (2, 2)))
            for number, (image, label) in enumerate(zip(images, idx(f"{stem}-labels-idx1-ubyte.gz"), strict=True)):
                place = folder / split / str(label)
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place / f"{number:05d}.png")
            np.save(work / f"{split}.npy", images)
    return folder


def judged(work: Path) -> tuple[Path, float]:
    """The classifier whose features are compared, and its accuracy on the test images."""
    run = work / "judge"
    if not (run / "best.safetensors").exists():
        command("train", str(prepared(work, "mnist")), "--model", "small_resnet_28px", "--minutes", "7", "--out", str(run))
    accuracy = command("eval", str(run), "--split", "test")["metrics"]["accuracy"]
    if accuracy < LEAST:
        sys.exit(f"the classifier has only {accuracy:.4f} accuracy: remove {run} and give it more minutes")
    return run / "best.safetensors", accuracy


def started(arguments: list[str], threads: int, log: Path) -> subprocess.Popen[bytes]:
    """A process of its own with so many threads; what it prints goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, *arguments], stdout=file, env=environment)


def pair(work: Path, ours: list[str] | None, peer: list[str] | None, *, together: bool, name: str) -> None:
    """Run both that are not there yet, one after the other or at once."""
    threads = 1 if together else 2
    running = []
    for what, arguments in (("ours", ours), ("peer", peer)):
        if arguments is None:
            continue
        process = started([a.replace("THREADS", str(threads)) for a in arguments], threads, work / f"{name}-{what}.json")
        running.append((what, process))
        if not together:
            process.wait()
    for what, process in running:
        if process.wait():
            sys.exit(f"{name}: {what} ended with code {process.returncode}")


def figures(made: Any, work: Path) -> dict[str, Any]:
    """Distances of made images uint8 [N, 32, 32, 1] to the test images on the classifier's features, and the classes it sees in them."""
    from saccade.api import judging
    from saccade.api.models import load_model
    from saccade.tasks.generation import distances
    from saccade.tasks.generation.metrics import GenerationMetric

    file, accuracy = judged(work)
    on = judging.named(str(file), "cpu")
    real = np.load(work / "test.npy")[..., None]
    features = on.of(made), on.of(real)
    metric = GenerationMetric("classifier", likely=False)
    metric.update(list(features[0]), list(features[1]))
    session = load_model(file).session()
    labels = np.concatenate(
        [session.run(part.transpose(0, 3, 1, 2))["probabilities"].argmax(1) for part in np.split(made, len(made) // 100)]
    )
    shares = np.bincount(labels, minlength=10) / len(made)
    interval = distances.intervals(features[1], features[0])
    found = {"metrics": metric.compute(), "interval": list(interval), "shares": shares.tolist(), "judge_accuracy": accuracy}
    return {**found, "least_share": float(shares.min()), "largest_share": float(shares.max())}


def gan(work: Path, seed: int, *, together: bool) -> list[dict[str, Any]]:
    data, run, peer = prepared(work, "mnist"), work / f"gan-{seed}", work / f"dcgan-{seed}.npy"
    judged(work)
    ours = [
        "-m",
        "saccade",
        "train",
        str(data),
        "--task",
        "generate",
        "--size",
        "32",
        "--minutes",
        str(MINUTES["gan"]),
        "--seed",
        str(seed),
    ]
    theirs = [str(HERE / "peers" / "dcgan.py"), str(work / "train.npy"), str(peer), str(MINUTES["gan"]), "THREADS", str(seed)]
    pair(
        work,
        None if run.exists() else [*ours, "--out", str(run), "--json"],
        None if peer.exists() else theirs,
        together=together,
        name=f"gan-{seed}",
    )
    from saccade.api import generate

    made = generate(run, n=MADE, seed=1).images
    rows = [{"what": "saccade, defaults", **figures(made, work), **ran(run)}]
    rows.append({"what": "plain DCGAN", **figures(np.load(peer)[..., None], work), **told(work / f"gan-{seed}-peer.json")})
    return [{"table": "gan", "seed": seed, "threads": 1 if together else 2, **row} for row in rows]


def vae(work: Path, seed: int, *, together: bool) -> list[dict[str, Any]]:
    data, run = prepared(work, "mnist"), work / f"vae-{seed}"
    ours = ["-m", "saccade", "train", str(data), "--task", "generate", "--model", "vae", "--minutes", str(MINUTES["vae"])]
    theirs = [str(HERE / "peers" / "vae.py"), str(work / "train.npy"), str(work / "test.npy"), str(MINUTES["vae"]), "THREADS", str(seed)]
    told_by_peer = work / f"vae-{seed}-peer.json"
    ours = [*ours, "--seed", str(seed), "--out", str(run), "--json"]
    pair(work, None if run.exists() else ours, None if told_by_peer.exists() else theirs, together=together, name=f"vae-{seed}")
    evaluation = command("eval", str(run), "--split", "test")
    low, high = evaluation["intervals"]["bits_per_dim"]
    mine = {"what": "saccade, defaults", "bits_per_dim": evaluation["metrics"]["bits_per_dim"], "interval": [low, high], **ran(run)}
    mine["weighted"] = evaluation["metrics"]["bits_per_dim_weighted"]
    peer = told(told_by_peer)
    peer |= {"what": "plain VAE", "interval": [peer["bits_per_dim"] + sign * 1.96 * peer["error"] for sign in (-1, 1)]}
    return [{"table": "vae", "seed": seed, "threads": 1 if together else 2, **row} for row in (mine, peer)]


def emoji(work: Path, seed: int, *, together: bool) -> list[dict[str, Any]]:
    data = prepared(work, "noto-emoji-32")
    runs = {model: work / f"emoji-{model}-{seed}" for model in ("r3gan", "vae")}
    base = ["-m", "saccade", "train", str(data), "--task", "generate", "--minutes", str(MINUTES["emoji"]), "--seed", str(seed), "--json"]
    asked = [None if run.exists() else [*base, "--model", model, "--out", str(run)] for model, run in runs.items()]
    pair(work, asked[0], asked[1], together=together, name=f"emoji-{seed}")
    rows = []
    for model, run in runs.items():
        evaluation = command("eval", str(run))
        rows.append(
            {"table": "emoji", "seed": seed, "threads": 1 if together else 2, "what": model, "metrics": evaluation["metrics"], **ran(run)}
        )
    return rows


def ran(run: Path) -> dict[str, Any]:
    """How long a run of ours took."""
    facts = json.loads((run / "run.json").read_text())
    steps = facts["steps"]
    return {"steps": steps, "epochs": round(steps / facts["resolved"]["steps_per_epoch"], 1), "seconds": facts["time"]["seconds"]}


def told(file: Path) -> dict[str, Any]:
    """What a peer has printed."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A row as its table shows it, by column."""
    m, bits = row.get("metrics", {}), row.get("bits_per_dim") or row.get("metrics", {}).get("bits_per_dim")
    shown = {TITLES[row["table"]]: row["what"], "seed": row["seed"], "threads": row["threads"], "minutes": f"{row['minutes']:g}"}
    around = " ({:.4f} to {:.4f})".format(*row["interval"]) if "interval" in row else ""
    if "fid_classifier" in m:
        shown |= {"FID (95 % interval)": f"{m['fid_classifier']:.4f}{around}", "KID x 1000": f"{1000 * m['kid_classifier']:.2f}"}
        shown |= {name: f"{m[f'{name}_classifier']:.3f}" for name in ("precision", "recall", "density", "coverage")}
        shown["classes"] = f"{100 * row['least_share']:.1f} % to {100 * row['largest_share']:.1f} %"
    if "fid_clusters" in m:
        shown |= {"FID (clusters)": f"{m['fid_clusters']:.2f}", "coverage": f"{m['coverage_clusters']:.3f}"}
    if row["table"] != "gan":
        shown["bits per dimension"] = "" if bits is None else f"{bits:.4f}{around}"
    if row["table"] == "vae":
        shown["16 draws"] = f"{row['weighted']:.4f}" if "weighted" in row else ""
    return {**shown, "epochs": f"{row['epochs']:.1f}", "seconds": f"{row['seconds']:.0f}"}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, the last of each kind."""
    latest = {(row["table"], row["seed"], row["threads"], row["minutes"], row["what"]): row for row in rows}
    lines: list[str] = []
    for name in TITLES:
        mine = [cells(row) for key, row in latest.items() if key[0] == name]
        if mine:
            lines += ["", f"| {' | '.join(mine[0])} |", "|" + "---|" * len(mine[0])]
            lines += [f"| {' | '.join(map(str, row.values()))} |" for row in mine]
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=list(MINUTES), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--minutes", type=float, help="instead of 30, 15 and 30")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.only or list(MINUTES):
        MINUTES[name] = asked.minutes or MINUTES[name]
        measured = {"gan": gan, "vae": vae, "emoji": emoji}[name](asked.work.resolve(), asked.seed, together=asked.together)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.writelines(json.dumps({**row, "minutes": MINUTES[name], "cpu": processor()}) + "\n" for row in measured)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
