"""A session around a torch module. The only file of this folder that knows torch; who hands in a module has it loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.core.card import Card

Decode = Callable[[Tensor, tuple[int, int]], dict[str, Tensor]]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchSession:
    """Runs `module`, then the room's `decode`, on a device: uint8 `[B, C, H, W]` in, named arrays out."""

    def __init__(self, module: nn.Module, card: Card, decode: Decode, *, device: str = "cpu", precision: str = "fp32") -> None:
        self.card = card
        self.device = torch.device(device)
        self.module = module.to(self.device)
        if not module.training:  # one in training keeps its strides: those of its optimizer's moments are the same
            self.module.to(memory_format=torch.channels_last)
        self._decode = decode
        self._half = HALF.get(precision)

    @torch.inference_mode()
    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Leaves the module in evaluation mode."""
        self.module.eval()
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._half or torch.bfloat16, enabled=self._half is not None):
            outputs = self._decode(self.module(pixels), self.card.input.size)
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}
