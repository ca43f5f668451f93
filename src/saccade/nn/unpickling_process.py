"""The process that opens one pickled file of weights and writes its tensors as safetensors: `python -m ... FILE TARGET`.

torch's unpickler of plain weights has been broken before (CVE-2025-32434, CVE-2026-24747), so it runs where it can do no harm: after its
limits are set this process can open no file, socket or program any more, remove none, and has memory for the file twice and little more.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import re
import resource
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saccade.core import modelfile
from saccade.core.modelfile import Buffer
from saccade.nn.weights import NAMES

MEMORY = 512 << 20  # bytes beside twice the file
LANDLOCK, NO_NEW_PRIVILEGES = 444, 38  # calls of the kernel: the first of three, and what prctl(2) must set before the last
# Where tools keep weights beside other things; averaged ones come first, as they are what is used.
WRAPPINGS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "params_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "params",
    "weights",
    "network",
    "net",
)
PLAIN = (argparse.Namespace, np.dtype, np.ndarray, *(type(np.dtype(kind)) for kind in "bBhHiIlLefd?"))  # of what stands beside weights
# Packages whose objects trainers leave beside weights (settings, paths, curves): of each name an empty one stands in, nothing is imported.
BESIDE = (
    *("pytorch_lightning", "lightning", "lightning_fabric", "mmengine", "mmcv", "omegaconf", "pathlib"),
    *("yacs", "fvcore", "detectron2", "easydict", "addict", "munch", "ml_collections"),
)
DICTS = ("dict", "cfgnode", "munch")  # how names of kinds of dictionaries end
BESIDE_TOO = (
    "typing.Any",
    "collections.defaultdict",
    *(f"builtins.{kind.__name__}" for kind in (bool, bytes, dict, float, int, list, str)),
)
UNSAFE = re.compile(r"[^A-Za-z0-9_.:@=+-]")


class StandIn:
    """In the place of an object that nothing is wanted of: it takes whatever it is made of or told, and forgets it."""

    def __init__(self, *args: object) -> None: ...

    def __new__(cls, *args: object) -> StandIn:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...


class PlainDict:
    """In the place of one of the many kinds of dictionaries: torch's unpickler lets this one have attributes and slots."""

    def __new__(cls, *args: object) -> Counter[Any]:  # type: ignore[misc]
        return Counter()


class NoWeightsError(Exception):
    """Why a file gives no weights."""


def state(content: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors by name within what a file holds, whichever wrapping they stand in, and the keys that lead there."""
    keys: list[str] = []
    while True:
        if not isinstance(content, Mapping):
            raise NoWeightsError(f"it must hold tensors by name, holds a {type(content).__name__}")
        tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        inner = [key for key in WRAPPINGS if isinstance(content.get(key), Mapping) and content[key]]
        if not inner and not tensors:
            inner = [key for key, value in content.items() if isinstance(value, Mapping) and any(map(torch.is_tensor, value.values()))]
        if not inner:
            break
        keys.append(str(inner[0]))
        content = content[inner[0]]
    if not tensors:
        raise NoWeightsError("it holds no tensors by name")
    return tensors, ".".join(keys)


def buffers(tensors: Mapping[str, Tensor]) -> dict[str, Buffer]:
    """The tensors as plain memory, without a copy where they are dense; names are made safe."""
    found: dict[str, Buffer] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.dtype not in NAMES or tensor.is_meta:
            raise NoWeightsError(f"{name[:60]} is no dense tensor of numbers")
        plain = tensor.detach().resolve_conj().contiguous()
        data: Any = plain.reshape(-1).view(torch.uint8).numpy()
        found[UNSAFE.sub("_", name)[:256].lstrip(".:@=+-") or "_"] = Buffer(NAMES[tensor.dtype], tuple(tensor.shape), memoryview(data))
    if len(found) != len(tensors):
        raise NoWeightsError("names of its tensors are alike but for special characters")
    return found


def main(source: str, target: str) -> int:
    """Convert; 0, or 2 with a line of JSON that says why not."""
    torch.set_num_threads(1)
    with open(source, "rb") as file, open(target, "wb") as out:
        _warm()
        _limit(os.fstat(file.fileno()).st_size)
        try:
            _stand_in(file)
            tensors, inside = state(torch.load(file, map_location="cpu", weights_only=True))
            found = buffers(tensors)
            for part in modelfile.parts(found, {"order": json.dumps(list(found)), "inside": inside}):
                out.write(part)
            out.flush()
        except NoWeightsError as error:
            return _told(str(error))
        except MemoryError:
            return _told("it asks for more memory than a file of its size may")
        except Exception as error:  # a hostile file makes torch raise anything
            return _told(_said(error))
    return 0


def _warm() -> None:
    """Make torch import all that it needs for both forms of its files, with what may stand beside weights, as nothing can be opened
    later."""
    torch.serialization.add_safe_globals([*PLAIN, np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]])  # type: ignore[list-item]
    for new in (True, False):
        memory = io.BytesIO()
        beside = [argparse.Namespace(a=1), np.float64(0), np.zeros(1)]
        torch.save({"a": OrderedDict(b=torch.zeros(2, dtype=torch.bfloat16)), "c": beside}, memory, _use_new_zipfile_serialization=new)
        memory.seek(0)
        _stand_in(memory)
        torch.load(memory, map_location="cpu", weights_only=True)


def _stand_in(file: IO[bytes]) -> None:
    """Let torch take stand-ins for what a file names of BESIDE; a file in torch's older form is left as it is."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # of the older form, or hostile: `torch.load` says what is wrong with it
        named = []
    known = [name for name in named if name.partition(".")[0] in BESIDE or name in BESIDE_TOO]
    if any(name.startswith("mm") for name in known):
        known += [name for name in named if name == "builtins.getattr"]  # of methods of its curves
    made: list[Any] = [(type("Of", (PlainDict if name.lower().endswith(DICTS) else StandIn,), {}), name) for name in known]
    torch.serialization.add_safe_globals(made)
    file.seek(0)


def _limit(size: int) -> None:
    """No new file, socket or process; memory and time for a file of `size` bytes; what is open stays open."""
    statm = Path("/proc/self/statm")
    now = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else None
    _leave_alone()
    seconds = 60 + int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + size // 10_000_000
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: 2 * size + MEMORY, resource.RLIMIT_CORE: 0, resource.RLIMIT_NPROC: 0}
    limits |= {resource.RLIMIT_AS: now + 2 * size + MEMORY} if now is not None else {}
    for kind, most in {**limits, resource.RLIMIT_NOFILE: 0}.items():
        resource.setrlimit(kind, (most, most))


def _leave_alone() -> None:
    """Where the kernel has Landlock (Linux 5.13), nothing may be made, cut, renamed or removed by name either, for which nothing need be
    opened (man 7 landlock; the numbers are those of every machine)."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(LANDLOCK, None, 0, 1) if sys.platform == "linux" else 0
    if version < 1:
        return
    rights = ctypes.c_uint64((1 << 13) - 1 | (version >= 2) << 13 | (version >= 3) << 14)  # all of files that it knows of; none is granted
    rules = libc.syscall(LANDLOCK, ctypes.byref(rights), ctypes.sizeof(rights), 0)
    if rules < 0 or libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(LANDLOCK + 2, rules, 0):
        raise OSError(ctypes.get_errno(), "cannot be confined")
    os.close(rules)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    if named := re.search(r"(?:GLOBAL|class) ([\w.]+)", text):
        return f"it holds more than weights: {named[1]}, which could run code and is never loaded"
    if "Weights only load failed" in text:
        return "it holds more than weights, which could run code and is never loaded"
    if "allocate" in text:
        return "it asks for more memory than a file of its size may"
    return f"it is no file of torch's that can be read ({type(error).__name__})"


def _told(reason: str) -> int:
    sys.stdout.write(json.dumps({"reason": reason}) + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
