"""The processes of one run under torchrun: one is first, speaks and writes; all hold the same weights and take the same decisions."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.core import launch
from saccade.core.errors import OtherRankError, SaccadeError, UserError

if TYPE_CHECKING:  # alone, nothing here needs torch, and a request can be refused before it is loaded
    from torch import Tensor, nn

HANG = datetime.timedelta(minutes=10)  # that a process may be waited for within a step
BUCKET = 25 << 20  # bytes of gradients that travel at once
POLL = 0.02
FAREWELL = 5.0  # seconds that the first process waits for the others to leave

T = TypeVar("T")


class LostRankError(SaccadeError):
    """Another process of the run has died or hangs."""


class Ranks:
    """This process among those of its run. Alone (world 1) nothing is ever sent."""

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None) -> None:
        self.rank, self.world = rank, world
        self._store, self._told = store, 0

    @classmethod
    @contextlib.contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """Meet the others that torchrun has started (Gloo between processors, NCCL between GPUs); alone without it."""
        if launch.world() == 1:
            yield cls()
            return
        import torch
        import torch.distributed as dist
        import torch.distributed.nn.functional  # imported later (timm does), its defaults keep the group, whose threads abort the exit
        from torch._C._distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        with reachable():
            meeting, rank, world = next(rendezvous("env://", timeout=HANG))
            store = PrefixStore(f"start {launch.restarts()}", meeting)  # what the dead have left there counts no longer
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=world, timeout=HANG)
        ranks = cls(rank, world, PrefixStore("saccade", store))
        try:
            yield ranks
        finally:
            dist.destroy_process_group()
            ranks._leave(wait=not isinstance(sys.exception(), LostRankError))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process, where the user asked for `name`: on a host with several GPUs each has its own."""
        if self.world == 1:
            return name
        import torch

        if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
            torch.cuda.set_device(launch.local_rank())
            return f"cuda:{launch.local_rank()}"
        return name

    def first(self, work: Callable[[], T]) -> T:
        """What the first process finds by `work` (plain JSON values), on all of them. Where it fails, the others raise OtherRankError."""
        if self.world == 1:
            return work()
        self._told += 1
        key = f"told {self._told}"
        if not self.is_first:
            return self._heard(key)
        told: dict[str, Any] = {"failed": True}
        try:
            value = work()
            told = {"value": value}
        finally:
            with reachable():
                self._store.set(key, json.dumps(told))
        return value

    def after_first(self, work: Callable[[], T]) -> T:
        """`work` on the first process, then on the others: whoever reads, checks or fetches finds it done."""
        made: list[T] = []
        if self.is_first:
            self.first(lambda: made.append(work()))
            return made[0]
        self.first(lambda: None)
        return work()

    def highest(self, values: Sequence[float]) -> list[float]:
        """The largest of all processes' values, place by place: how they agree on what depends on a clock or a signal."""
        if self.world == 1:
            return list(values)
        return self._together(values, "MAX")

    def fault(self, mine: str) -> str:
        """What keeps any of them from going on, "" where nothing does: its own, or that of the first process that has one."""
        if self.world == 1:
            return mine
        speaker = self.world - int(self.highest([self.world - self.rank if mine else 0])[0])
        if speaker == self.world:
            return ""
        self._told += 1
        key = f"told {self._told}"
        if self.rank == speaker:
            with reachable():
                self._store.set(key, json.dumps({"value": f"process {speaker}: {mine}"}))
        return mine or str(self._heard(key))

    def summed(self, values: Sequence[float]) -> list[float]:
        """The sum over all processes, place by place, in float64."""
        if self.world == 1:
            return list(values)
        return self._together(values, "SUM")

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; few large messages in place of many small ones."""
        if self.world == 1:
            return
        import torch

        for bucket in _buckets(gradients):
            flat = torch.cat([one.reshape(-1) for one in bucket])
            self._reduce(flat, "SUM")
            parts = flat.split([one.numel() for one in bucket])
            torch._foreach_copy_(list(bucket), [part.view(one.shape) for part, one in zip(parts, bucket, strict=True)])

    def same(self, model: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        from saccade.nn.weights import is_sharded

        with reachable(), torch.no_grad():
            for value in model.state_dict().values():
                if is_sharded(value):  # each has a part of its own
                    continue
                sent = value.contiguous()
                dist.broadcast(sent, 0)
                value.copy_(sent)

    def gathered(self, part: NDArray[Any]) -> NDArray[Any]:
        """The rows of all processes, in their order; each must have as many."""
        if self.world == 1:
            return part
        import torch
        import torch.distributed as dist

        mine = torch.from_numpy(np.ascontiguousarray(part))
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        with reachable():
            dist.all_gather(parts, mine)
        return torch.cat(parts).numpy()

    def _leave(self, wait: bool) -> None:
        """The first process may be the one that keeps the store: it goes last, so that the others can read what it said.

        At least one POLL: a group that FSDP keeps alive frees its last message by a thread of its own, which must not meet Python's end.
        """
        everyone = [f"left {rank}" for rank in range(self.world)]
        patience = time.monotonic() + (FAREWELL if wait and self.is_first else 0)
        with contextlib.suppress(RuntimeError):
            self._store.set(everyone[self.rank], "")
            time.sleep(POLL)
            while time.monotonic() < patience and not self._store.check(everyone):
                time.sleep(POLL)

    def _heard(self, key: str) -> Any:
        """Polls, so that a signal ends the wait."""
        with reachable():
            while not self._store.check([key]):
                time.sleep(POLL)
            told = json.loads(self._store.get(key))
        if "failed" in told:
            raise OtherRankError("the first process has failed")
        return told["value"]

    def _together(self, values: Sequence[float], how: str) -> list[float]:
        import torch

        together = torch.tensor(values, dtype=torch.float64)
        self._reduce(together, how)
        found: list[float] = together.tolist()
        return found

    def _reduce(self, value: Tensor, how: str) -> None:
        import torch.distributed as dist

        with reachable():
            dist.all_reduce(value, getattr(dist.ReduceOp, how))


def check_batch(batch: int, world: int) -> None:
    """Raise UserError where a batch cannot be shared out: each process takes as many whole pairs (mixup pairs neighbours)."""
    if world > 1 and batch % (2 * world):
        nearest = max(1, round(batch / (2 * world))) * 2 * world
        raise UserError(
            f"batch must be a multiple of {2 * world} for {world} processes, got {batch}", where="--batch", fix=f"--batch {nearest}"
        )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, up to BUCKET bytes together."""
    bucket: list[Tensor] = []
    size = 0
    for one in tensors:
        if bucket and (size + one.nbytes > BUCKET or (one.dtype, one.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.nbytes
    if bucket:
        yield bucket


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Raise LostRankError where another process cannot be reached any more: torch says so by errors of its own, Gloo by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, DistError) or "gloo" in str(error).lower():
            raise LostRankError(f"another process of this run has died or hangs: {error}") from error
        raise
