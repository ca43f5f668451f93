"""`--shard`: weights, gradients and moments spread over the processes of a run (torch's FSDP2, Zhao et al. 2023).

What leaves the run (checkpoints, the best model) is whole again, so that it loads on any number of processes, and on one. Evaluation
runs on a whole copy of the weights: they, without gradients and moments, must fit one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.nn.layers.exits import Exit
from saccade.nn.weights import is_sharded
from saccade.task import Phase

K = TypeVar("K")


def check(asked: bool, world: int) -> None:
    """Raise UserError where there is nobody to share with."""
    if asked and world == 1:
        raise UserError("--shard needs several processes", where="train", fix="torchrun --nproc-per-node 2 -m saccade train ... --shard")


def shard(phases: Sequence[Phase]) -> None:
    """Spread the parameters of the phases' networks, block by block; gradients become sums over all processes."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    roots = _outermost(phases)
    kind = next(p.device.type for root in roots for p in root.parameters())
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for root in roots:
        root.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
        for unit in [*_blocks(root), root]:
            heard = any(isinstance(part, Exit) for part in unit.modules())  # what an exit says is no output of the unit: its weights stay
            made: Any = fully_shard(unit, mesh=mesh, reshard_after_forward=False if heard else None)
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)


def synchronise(phase: Phase, last: bool) -> None:
    """Whether the next backward pass adds up over the processes: only the last micro-batch of a step must."""
    for module in phase.modules:
        switch: Any = getattr(module, "set_requires_gradient_sync", None)
        if switch is not None:
            switch(last)


@torch.no_grad()
def whole(tensors: Mapping[K, Tensor]) -> dict[K, Tensor]:
    """The same tensors, those that are spread put together: every process must ask for it. Each makes room for all of them first: where one
    cannot, UserError is raised on all, and none waits for what the other will never send."""
    import torch.distributed as dist

    spread: dict[K, Any] = {name: value for name, value in tensors.items() if is_sharded(value)}
    if not spread:
        return dict(tensors)
    failed: Exception | None = None
    rooms = dict[K, tuple[Tensor, Tensor]]()
    try:
        rooms = {name: _room(value, dist.get_world_size()) for name, value in spread.items()}
    except Exception as error:  # for want of memory, most likely: it is told to the others, and raised by all
        failed = error.with_traceback(None)
    told = torch.tensor([0 if failed is None else dist.get_rank() + 1])
    dist.all_reduce(told, dist.ReduceOp.MAX)
    if int(told):
        raise UserError(
            f"process {int(told) - 1} has not enough memory for whole weights, of which each has a part", where="--shard"
        ) from failed
    for room, part in rooms.values():
        if room.numel():
            dist.all_gather_into_tensor(room, part)
    return {name: rooms[name][0][: value.shape[0]] if name in rooms else value for name, value in tensors.items()}


def _room(value: Any, world: int) -> tuple[Tensor, Tensor]:
    """Where the parts of all processes come to lie, one after the other along the first axis, and the part of this one, which is filled up
    to the length of the first (torch.chunk's way)."""
    own = value.to_local()
    rows, rest = -(-value.shape[0] // world), value.shape[1:]
    part = own.new_zeros((rows, *rest))
    part[: len(own)].copy_(own)
    return own.new_empty((rows * world, *rest)), part


def gathered(value: Any) -> Tensor:
    """What torch has computed of tensors that are spread, whole: the norm of all gradients."""
    return value.full_tensor() if is_sharded(value) else value


def _outermost(phases: Sequence[Phase]) -> list[nn.Module]:
    """The networks of the phases, each once, without those that are parts of another."""
    modules = list({id(module): module for phase in phases for module in phase.modules}.values())
    inner = {id(part) for module in modules for part in module.modules() if part is not module}
    return [module for module in modules if id(module) not in inner]


def _blocks(root: nn.Module) -> Iterable[nn.Module]:
    """What stands in a row inside a network and has parts itself: residual blocks, transformer layers."""
    rows = (module for module in root.modules() if isinstance(module, nn.Sequential | nn.ModuleList))
    parts = (part for row in rows for part in row if any(True for _ in part.children()))
    found = {id(part): part for part in parts if not isinstance(part, nn.Sequential | Exit)}
    return [part for part in found.values() if any(p.requires_grad for p in part.parameters())]
