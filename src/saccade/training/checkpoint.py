"""The state of a run as files: model, average and optimizers as safetensors, the rest as JSON. Nothing is ever pickled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from saccade.core import files, modelfile
from saccade.core.files import DamagedError
from saccade.core.modelfile import Buffer
from saccade.nn import weights
from saccade.training.state import Saved, checked


def snapshot(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Buffer]]:
    """Copies of named groups of tensors: this moment, whatever the next step does."""
    return {name: weights.to_buffers(group) for name, group in tensors.items()}


def encode(groups: Mapping[str, Mapping[str, Buffer]], state: Mapping[str, Any]) -> dict[str, bytes]:
    """A snapshot and plain values -> the files of a checkpoint."""
    packed = {f"{name}.safetensors": modelfile.pack(group) for name, group in groups.items()}
    return {**packed, "state.json": files.dumps(state).encode()}


def decode(contents: Mapping[str, bytes], groups: Collection[str], *, where: str) -> tuple[dict[str, dict[str, Buffer]], Saved]:
    """The inverse of `encode` for a checkpoint that must hold these groups; raises UserError where it is not one."""
    wanted = {f"{name}.safetensors" for name in groups} | {"state.json"}
    if contents.keys() != wanted:
        missing, more = sorted(wanted - contents.keys()), sorted(contents.keys() - wanted)
        raise DamagedError(f"not a checkpoint of this run: missing {missing}, not known {more}", where=where)
    saved = checked(Saved, files.parse_json(contents["state.json"], where=f"{where}/state.json"), f"{where}/state.json")
    return {name: modelfile.unpack(contents[f"{name}.safetensors"], where=f"{where}/{name}.safetensors")[0] for name in groups}, saved
