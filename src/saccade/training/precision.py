"""Devices and number formats: what `auto` means here, and the two things that mixed precision needs."""

from __future__ import annotations

from typing import cast

import torch

from saccade.core.errors import UserError
from saccade.training.budget import Number

WORTH_IT = 0.9  # of the time of fp32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` -> the device; raises UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UserError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}", where="--device")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}", where="--device") from None
    if not there or (kind == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"no {name} device on this machine", where="--device", fix="use --device auto or cpu")
    return chosen


def resolve(precision: str, on: torch.device) -> Number:
    """`auto` is bf16 on a CUDA device that has it, fp32 elsewhere, unless training finds that bf16 is faster (`open_to_bf16`)."""
    if precision == "auto":
        return "bf16" if on.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and on.type != "cuda":
        raise UserError(f"fp16 needs a CUDA device, got {on.type}", where="--precision", fix="use bf16 or fp32")
    return cast("Number", precision)


def open_to_bf16(precision: str, on: torch.device) -> bool:
    """Whether a run whose steps are timed takes bf16 where it is WORTH_IT: `auto` on a processor that has instructions for it. Whether it
    is depends on the network: wide convolutions are faster, depthwise ones are slower."""
    if precision != "auto" or on.type != "cpu":
        return False
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(precision: str, on: torch.device) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(on.type, DTYPES[precision] if precision != "fp32" else torch.bfloat16, enabled=precision != "fp32")


def scaler(precision: str) -> torch.amp.GradScaler:
    """Scales the loss for fp16; does nothing otherwise."""
    return torch.amp.GradScaler("cuda", enabled=precision == "fp16")
