"""The worker's side of `predict_folder.py`: JSON lines on standard input and output, in whatever environment a contender needs.

A contender answers for a folder of images. It names its options, each a list with the value to use first; the harness may try the
others. While no command comes the process sleeps in a read. Nothing but the standard library and NumPy is needed here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

PACKAGES = ("ultralytics", "timm", "torchvision", "torch", "onnxruntime", "opencv-python", "pillow", "numpy", "saccade")
CLASSES = 1000
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's

Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """A class for one image: its file's name, the best class, and the probabilities float32 [CLASSES]."""

    name: str
    label: int | str
    probabilities: NDArray[np.float32]


@dataclass
class Contender:
    """Base of all. `ready` is not timed, `run` is: from a folder's path to one answer an image, in the order of their names."""

    material: Path
    arch: str
    cores: int
    options: ClassVar[dict[str, list[Any]]] = {}
    answers: Sequence[Answer] = field(default=(), init=False)

    def ready(self, folder: Path, setting: Setting) -> None:
        """What a run needs and is not part of it."""

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        """Answer for every image of the folder."""
        raise NotImplementedError


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def answers(names: Sequence[str], probabilities: NDArray[np.float32]) -> list[Answer]:
    """One answer a row of `probabilities` float32 [B, CLASSES]."""
    best = probabilities.argmax(1).tolist()
    return [Answer(name, label, row) for name, label, row in zip(names, best, probabilities, strict=True)]


def serve(contenders: Mapping[str, Callable[[Path, str, int], Contender]]) -> None:
    """`python FILE CONTENDER MATERIAL ARCH`: open that contender, then obey until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    name, material, arch = sys.argv[1:4]
    try:
        contender = contenders[name](Path(material), arch, cores())
        _say(replies, {"ready": name, "options": contender.options, "versions": _versions()})
        for line in sys.stdin:
            _say(replies, _obey(contender, json.loads(line)))
    except Exception:
        _say(replies, {"error": traceback.format_exc()})
        raise


def _obey(contender: Contender, command: Mapping[str, Any]) -> dict[str, Any]:
    if command["do"] == "answers":
        names = [answer.name for answer in contender.answers]
        rows = [answer.probabilities for answer in contender.answers]
        np.savez(command["file"], names=np.array(names), probabilities=np.array(rows, np.float32))
        return {"images": len(names)}
    folder, setting = Path(command["folder"]), command["setting"]
    contender.answers = ()
    contender.ready(folder, setting)
    begin, used = time.perf_counter(), processor_seconds()
    contender.answers = contender.run(folder, setting)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images": len(contender.answers), "processor_seconds": processor_seconds() - used}


def processor_seconds() -> float:
    """What this process and its children that have ended took of the cores."""
    return sum(os.times()[:4])


def _say(replies: IO[str], reply: Mapping[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _versions() -> dict[str, str]:
    """Of what is installed where this runs."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
