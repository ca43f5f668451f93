"""Pickled weights of other people's (.pt, .pth, .th, .bin, .ckpt): opened in a child process with limits, never in this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer

CHILD = "saccade.nn.unpickling_process"
BY_HAND = "save its state_dict() with safetensors.torch.save_file where it was made"
SECONDS = 300.0  # and one more for every ten megabytes


@dataclass(frozen=True)
class Unpickled:
    """The tensors of a file, in its order; inside: under which keys they stood there, "" for at the top."""

    tensors: dict[str, Buffer]
    inside: str


def unpickled(path: Path) -> Unpickled:
    """The tensors of a pickled file, through a child process that may open nothing, has memory for them and little more, and unpickles
    with `weights_only`. What it wrote is checked like any file from elsewhere.

    Raises UserError for a file that holds code or anything that is no set of tensors.
    """
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        target = Path(folder) / "weights.safetensors"
        # -P: no module from the folder that we happen to be in. The script's own stderr is torch's warnings.
        call = [sys.executable, "-P", "-m", CHILD, str(path.absolute()), str(target)]
        seconds = SECONDS + path.stat().st_size / 1e7
        try:
            done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"its weights could not be read in {seconds:.0f} seconds", where=str(path), fix=BY_HAND) from None
        if done.returncode:
            raise UserError(_reason(done.stdout), where=str(path), fix=BY_HAND)
        tensors, metadata = modelfile.unpack(target.read_bytes(), where=str(path))
    order = json.loads(metadata["order"])
    return Unpickled({name: tensors[name] for name in order}, metadata["inside"])


def _reason(said: bytes) -> str:
    """What the child has said last; one that was stopped says nothing."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    try:
        return str(json.loads(lines[-1])["reason"])[:300]
    except (IndexError, ValueError, KeyError, TypeError):
        return "its weights cannot be read: it asks for more memory or time than a file of its size may"
