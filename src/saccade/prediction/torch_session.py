"""A session around a torch module. The only file of this folder that knows torch; who hands in a module has it loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.core.card import Card
from saccade.prediction.session import BATCH

_LOCK = threading.Lock()
_SHARED = {"calls": 0, "threads": 0}  # calls of all sessions that compute on a share of the threads, and the number to set back

Decode = Callable[[Tensor, tuple[int, int]], dict[str, Tensor]]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_GPU = 64
# Parameters from which twice the batch is faster on a processor: two streams of ResNet-50 give 29 images/s by 8 and 35 by 16, of ResNet-101
# 16 and 22; of ResNet-18 112 and 98.
LARGE = 16_000_000


@contextmanager
def _share(streams: int) -> Iterator[None]:
    """This thread computes on its share of the threads. torch's number is also that of threads that start later, so it is set back."""
    with _LOCK:
        if not _SHARED["calls"]:
            _SHARED["threads"] = torch.get_num_threads()
        _SHARED["calls"] += 1
        torch.set_num_threads(max(1, _SHARED["threads"] // streams))
    try:
        yield
    finally:
        with _LOCK:
            _SHARED["calls"] -= 1
            torch.set_num_threads(_SHARED["threads"])


class TorchSession:
    """Runs `module`, then the room's `decode`, on a device: uint8 `[B, C, H, W]` in, named arrays out.

    With several `streams` on a processor each call computes on its share of the threads, so that no call waits for another's.
    On other devices calls take turns.
    """

    def __init__(
        self, module: nn.Module, card: Card, decode: Decode, *, device: str = "cpu", precision: str = "fp32", streams: int = 1
    ) -> None:
        self.card = card
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        large = sum(parameter.numel() for parameter in module.parameters()) >= LARGE
        self.streams, self.batch = (streams, BATCH * (1 + large)) if on_cpu else (1, BATCH_GPU)
        self.module = module.to(self.device)
        if not module.training:  # one in training keeps its strides: those of its optimizer's moments are the same
            self.module.to(memory_format=torch.channels_last)
        self._decode = decode
        self._half = HALF.get(precision)
        self._turn = threading.Lock()

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Leaves the module in evaluation mode."""
        self.module.eval()
        if self.streams == 1:
            with self._turn:
                return self._run(images)
        with _share(self.streams):
            return self._run(images)

    @torch.inference_mode()
    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._half or torch.bfloat16, enabled=self._half is not None):
            outputs = self._decode(self.module(pixels), self.card.input.size)
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}
