"""The model's own first step: pixels of any dtype to standardised floats, so that exports carry it along."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from saccade.core.card import InputSpec
from saccade.core.errors import UserError


class Normalize(nn.Module):
    """uint8 or float 0..255 `[B, C, H, W]` -> float32 `(x / 255 - mean) / std`, per channel. Not part of the state: the card has it.

    Raises UserError where the card does not give each channel a mean and a std above 0.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        if not len(spec.mean) == len(spec.std) == spec.channels or not all(0 < std < math.inf for std in spec.std):
            got = f"mean {list(spec.mean)}, std {list(spec.std)}"
            raise UserError(f"the input must have a mean and a std above 0 for each of {spec.channels} channels, got {got}", where="card")
        mean, std = torch.tensor(spec.mean).view(1, -1, 1, 1), torch.tensor(spec.std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` -> the same shape, float32."""
        return images.float() * self.scale + self.shift


def standardise(model: nn.Module, spec: InputSpec) -> None:
    """Give the model another mean and standard deviation of its input."""
    for name, part in list(model.named_modules()):
        if isinstance(part, Normalize):
            model.set_submodule(name, Normalize(spec))
