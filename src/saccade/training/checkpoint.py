"""The state of a run as files: model, average and optimizers as safetensors, the rest as JSON. Nothing is ever pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from saccade.core import files, modelfile
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.nn import weights


def snapshot(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Buffer]]:
    """Copies of named groups of tensors: this moment, whatever the next step does."""
    return {name: weights.to_buffers(group) for name, group in tensors.items()}


def encode(groups: Mapping[str, Mapping[str, Buffer]], state: Mapping[str, Any]) -> dict[str, bytes]:
    """A snapshot and plain values -> the files of a checkpoint."""
    packed = {f"{name}.safetensors": modelfile.pack(group) for name, group in groups.items()}
    return {**packed, "state.json": files.dumps(state).encode()}


def decode(contents: Mapping[str, bytes], *, where: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The inverse of `encode`, on the CPU; raises UserError where the files are not a checkpoint."""
    groups = {}
    for name, data in contents.items():
        if name.endswith(".safetensors"):
            buffers, _ = modelfile.unpack(data, where=f"{where}/{name}")
            groups[name.removesuffix(".safetensors")] = weights.from_buffers(buffers)
    try:
        return groups, json.loads(contents["state.json"])
    except (KeyError, ValueError) as error:
        raise UserError(f"not a checkpoint: {error}", where=where) from None
