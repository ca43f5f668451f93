"""Tensors to the buffers of a model file and back, and into a module with a report of what does not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHOWN = 2  # names of each kind in an error's one line


@dataclass(frozen=True)
class Report:
    """What a set of weights does not share with a module: names, and for `other` the two shapes or types."""

    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything does not fit."""
        return bool(self.missing or self.unexpected or self.other)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape or type", self.other))
        return ", ".join(f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names)


def to_buffers(module: nn.Module | Mapping[str, Tensor]) -> dict[str, Buffer]:
    """Copies of the tensors, by name in sorted order, contiguous and on the CPU; tied tensors are stored once for each name.

    Raises TypeError for what is no dense tensor or has a dtype that safetensors lacks.
    """
    state: Mapping[str, Any] = module.state_dict() if isinstance(module, nn.Module) else module
    return {name: _buffer(name, state[name]) for name in sorted(state)}


def from_buffers(buffers: Mapping[str, Buffer], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Tensors on `device` that own their memory. Raises UserError for a dtype that torch lacks or bytes that do not fill the shape."""
    return {name: _tensor(name, buffer).to(device) for name, buffer in buffers.items()}


def load_into(module: nn.Module, buffers: Mapping[str, Buffer], *, where: str) -> None:
    """Copy `buffers` into `module`: all names and shapes must agree, floating-point types may differ.

    Raises UserError that counts what does not fit and names the first of it; the module is unchanged then.
    """
    tensors, report = _compare(module, buffers)
    if report:
        raise UserError(f"the weights do not fit the model: {report}", where=where)
    _load(module, {name: like(tensors[name], value) for name, value in module.state_dict().items()}, strict=True)


def _load(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool) -> None:
    """With the versions that the module's own state states, without which some modules take nothing (torchvision's MNASNet)."""
    state = OrderedDict(tensors)
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=strict)


@dataclass(frozen=True)
class Rows:
    """The rows of a tensor's first axis that belong to classes: in each of `blocks` of equal length (of anchors, say) `first` others, then
    `each` of every class in turn, then `last` others."""

    first: int
    each: int
    last: int = 0
    blocks: int = 1

    @property
    def others(self) -> int:
        """How many rows belong to no class."""
        return self.blocks * (self.first + self.last)

    def count(self, rows: int) -> int:
        """How many classes a tensor of so many rows has; -1 where it cannot be one of these."""
        left, rest = divmod(rows - self.others, self.blocks * self.each)
        return -1 if rest or left < 0 else left


def rows_of_classes(module: nn.Module, wider: nn.Module, classes: int) -> dict[str, Rows]:
    """The tensors of a module of so many classes that have rows of them, told by those of the same module with one class more. What has
    them once for each of its anchors says so by `blocks_of_classes`, a function of a tensor's name."""
    more = wider.state_dict()
    told: Any = getattr(module, "blocks_of_classes", lambda name: 1)
    found = {}
    for name, value in module.state_dict().items():
        other = more.get(name)
        if other is None or not value.ndim or value.shape[1:] != other.shape[1:] or other.shape[0] <= value.shape[0]:
            continue
        blocks = int(told(name))
        each = int(other.shape[0] - value.shape[0]) // blocks
        others = int(value.shape[0]) // blocks - each * classes
        found[name] = Rows(0, each, others, blocks) if _padded(module, name) else Rows(others, each, 0, blocks)
    return found


def _padded(module: nn.Module, name: str) -> bool:
    """Whether the last row of a tensor stands for nothing: of an embedding of DETR's classes with noise, or of a layer that says so."""
    layer = module.get_submodule(name.rpartition(".")[0])
    padded = isinstance(layer, nn.Embedding) and layer.padding_idx == layer.num_embeddings - 1
    return padded or hasattr(layer, "last_is_nothing")


def load_matching(
    module: nn.Module, buffers: Mapping[str, Buffer], rows: Mapping[str, Rows] | None = None, same: Sequence[tuple[int, int]] = ()
) -> Report:
    """Copy what fits by name and shape, and say what did not: a model's weights as the start for one with other classes.

    rows: the tensors with rows of classes, of which those of `same` classes are copied, (place there, place here) each, whatever the
    number of classes on either side; the rest of such a tensor stays as it is.
    """
    rows = rows or {}
    tensors, report = _compare(module, {name: buffer for name, buffer in buffers.items() if name not in rows})
    state = module.state_dict()
    fitted = {name: _adapted(state[name], buffers[name], part, same) for name, part in rows.items() if name in buffers}
    adapted = {name: value for name, value in fitted.items() if value is not None}
    _load(module, {**tensors, **adapted}, strict=False)
    missing = tuple(name for name in report.missing if name not in adapted)
    return replace(report, loaded=report.loaded + len(adapted), missing=missing)


def _adapted(tensor: Tensor, buffer: Buffer, rows: Rows, same: Sequence[tuple[int, int]]) -> Tensor | None:
    """The tensor with the rows of the same classes; None where the other is none of its kind."""
    theirs = _tensor("", buffer) if buffer.dtype in DTYPES else None
    fits = theirs is not None and theirs.ndim == tensor.ndim and theirs.shape[1:] == tensor.shape[1:] and theirs.is_floating_point()
    if theirs is None or not fits or not tensor.is_floating_point() or (count := rows.count(len(theirs))) < 0:
        return None
    found = tensor.detach().clone()
    mine, other = (value.view(rows.blocks, -1, *value.shape[1:]) for value in (found, theirs.to(found)))
    mine[:, : rows.first] = other[:, : rows.first]
    mine[:, mine.shape[1] - rows.last :] = other[:, other.shape[1] - rows.last :]
    for there, here in same:
        if there < count:
            place, source = rows.first + here * rows.each, rows.first + there * rows.each
            mine[:, place : place + rows.each] = other[:, source : source + rows.each]
    return found


def compare(module: nn.Module, buffers: Mapping[str, Buffer]) -> Report:
    """What does not fit, nothing being copied."""
    return _compare(module, buffers)[1]


def _compare(module: nn.Module, buffers: Mapping[str, Buffer]) -> tuple[dict[str, Tensor], Report]:
    state = module.state_dict()
    shared = [name for name in state if name in buffers]
    problems = {name: problem for name in shared if (problem := _problem(buffers[name], state[name]))}
    tensors = from_buffers({name: buffers[name] for name in shared if name not in problems})
    return tensors, Report(
        loaded=len(tensors),
        missing=tuple(name for name in state if name not in buffers),
        unexpected=tuple(sorted(name for name in buffers if name not in state)),
        other=tuple(f"{name}: {problem}" for name, problem in problems.items()),
    )


def is_sharded(value: Any) -> bool:
    """Whether a tensor is spread over several processes; told without importing what knows more."""
    return hasattr(value, "placements")


def like(value: Tensor, other: Any) -> Tensor:
    """`value`, which every process has whole, spread as `other` is: each takes its own part, and nothing is sent."""
    if not is_sharded(other):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def _problem(buffer: Buffer, tensor: Tensor) -> str:
    if tuple(buffer.shape) != tuple(tensor.shape):
        return f"is {_shape(buffer.shape)}, must be {_shape(tensor.shape)}"
    dtype = DTYPES.get(buffer.dtype)
    if dtype != tensor.dtype and not (dtype and dtype.is_floating_point and tensor.is_floating_point()):
        return f"is {buffer.dtype}, must be {NAMES.get(tensor.dtype, tensor.dtype)}"
    return ""


def _buffer(name: str, tensor: Any) -> Buffer:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.dtype not in NAMES:
        got = getattr(tensor, "dtype", type(tensor).__name__)
        raise TypeError(f"{name} must be a dense tensor of one of {', '.join(DTYPES)}, is {got}")
    # A copy: the file must hold this moment, whatever the optimizer does next; also resolves views, conjugates and sharing.
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    copy.copy_(tensor.detach())
    # As bytes, because NumPy lacks some of the dtypes (bfloat16).
    data: Any = copy.reshape(-1).view(torch.uint8).numpy()
    return Buffer(NAMES[tensor.dtype], tuple(tensor.shape), memoryview(data))


def _tensor(name: str, buffer: Buffer) -> Tensor:
    dtype = DTYPES.get(buffer.dtype)
    if dtype is None:
        raise UserError(f"{name}: torch has no dtype {buffer.dtype}")
    tensor = torch.empty(tuple(buffer.shape), dtype=dtype)
    data = np.frombuffer(buffer.data, np.uint8)
    if data.size != tensor.numel() * tensor.element_size():
        raise UserError(f"{name}: {data.size} bytes do not fill {_shape(buffer.shape)} of {buffer.dtype}")
    if data.size:
        tensor.view(-1).view(torch.uint8).numpy()[:] = data
    return tensor


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _shape(shape: Any) -> str:
    return "x".join(map(str, shape)) or "a scalar"
