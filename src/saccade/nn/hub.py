"""Networks of transformers: what their tensors are called in files of other versions, and their published weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.nn import pretrained, weights


def renamed(tensors: Mapping[str, Buffer], renamings: Iterable[Any], prefix: str) -> dict[str, Buffer]:
    """Tensors of a state dict of this transformers or, as published files are, of an older one, by their names now; prefix: what stands in
    front of them here."""
    found, known = {}, list(renamings)
    for old, tensor in tensors.items():
        name = old
        for renaming in known:
            name, _ = renaming.rename_source_key(name)
        found[f"{prefix}{name}"] = tensor
    return found


def parted(tensors: Mapping[str, Buffer], fused: Mapping[str, Sequence[str]]) -> dict[str, Buffer]:
    """Tensors of which those with a name of `fused` in their own are several of equal length along their first axis, by those names."""
    found = {}
    for name, tensor in tensors.items():
        whole = next((part for part in fused if part in name), "")
        names = fused.get(whole, (whole,))
        rows, data = tensor.shape[0] // len(names) if whole else 0, memoryview(tensor.data)
        length = len(data) // len(names)
        for place, new in enumerate(names):
            part = Buffer(tensor.dtype, (rows, *tensor.shape[1:]), data[place * length : (place + 1) * length]) if whole else tensor
            found[name.replace(whole, new) if whole else name] = part
    return found


def fill(network: Any, name: str, repository: str, of_classes: Sequence[str]) -> Path:
    """Give a network (with `translated`) the weights of a repository, fetched unless they were before; what tells of classes, by a part of
    its name, stays fresh where their number is another. Returns the file. Raises UserError naming the address where it cannot be had or is
    another's."""
    file = pretrained.from_hub(name, repository)
    tensors, _ = modelfile.unpack(file.read_bytes(), where=str(file))
    module: nn.Module = network
    report = weights.load_matching(module, network.translated(tensors))
    missing = [key for key in report.missing if not key.endswith("num_batches_tracked")]
    others = [text for text in report.other if not any(part in text for part in of_classes)]
    if missing or others:
        raise UserError(f"the weights of {repository} do not fit {name}: {report}", where=str(file), fix="pip install -U transformers")
    return file
