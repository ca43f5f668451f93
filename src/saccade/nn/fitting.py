"""Weights made to fit a network of the same kind whose images have other channels or another size.

O outputs of a first layer, C channels there, N here. A grey image, copied into all channels, has the same answer whatever their number:
over the channels the filters sum up to what they did.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

OPAQUE, ALPHA_STD = 1.0, 0.5  # alpha's mean and standard deviation: an opaque image has nothing but zeros there
ALPHA = 4  # channels where the last is alpha: a filter of zeros at first, so that an opaque image has the same answer as its colours


def colours(channels: int) -> int:
    """Those of an image's channels that are no alpha."""
    return ALPHA - 1 if channels == ALPHA else channels


def channels(weight: Tensor, there: int, here: int) -> Tensor:
    """The filters of a first layer `[O, k C, ...]`, C the fastest, for other channels `[O, k N, ...]`.

    Fewer channels: the filters of those that are left out are shared out among the others, so that one takes the sum of all. More: the
    filters come again in turn, each divided by how often. Alpha of four gets zeros.
    """
    if there == here:
        return weight
    parts = weight.reshape(len(weight), -1, there, *weight.shape[2:])
    if here == ALPHA and there < ALPHA:
        colours = channels(weight, there, ALPHA - 1).reshape(len(weight), -1, ALPHA - 1, *weight.shape[2:])
        made = torch.cat([colours, torch.zeros_like(colours[:, :, :1])], 2)
    elif here < there:
        made = parts[:, :, :here] + parts[:, :, here:].sum(2, keepdim=True) / here
    else:
        turns = [place % there for place in range(here)]
        often = torch.tensor([turns.count(turn) for turn in turns], dtype=weight.dtype, device=weight.device)
        made = parts[:, :, turns] / often.view(1, 1, -1, *[1] * (weight.ndim - 2))
    return made.reshape(len(weight), -1, *weight.shape[2:])


def spread(values: Sequence[float], count: int, alpha: float) -> tuple[float, ...]:
    """What is subtracted or divided by for each channel, for another number of them, as `channels` deals out filters; fewer have the mean
    of all."""
    if count == len(values):
        return tuple(values)
    if count == ALPHA and len(values) < ALPHA:
        return (*spread(values, ALPHA - 1, alpha), alpha)
    if count < len(values):
        return (round(sum(values) / len(values), 6),) * count
    return tuple(values[place % len(values)] for place in range(count))


def carry(source: nn.Module, target: nn.Module, there: int, here: int) -> None:
    """Copy all of a network for images of `there` channels into the same network for `here`. Raises ValueError where they differ in more
    than what sees the channels."""
    state, found = source.state_dict(), {}
    for name, value in target.state_dict().items():
        other = state[name]
        if other.shape != value.shape and sees(value.shape, other.shape, here) == there:
            other = channels(other, there, here)
        if other.shape != value.shape:
            raise ValueError(f"{name} is {list(value.shape)} for {here} channels, {list(other.shape)} for {there}")
        found[name] = other
    target.load_state_dict(found)


def sees(shape: Sequence[int], other: Sequence[int], count: int) -> int:
    """The channels of which `other` is made, where `shape` is of `count` and both are the same first layer's; 0 where they are not."""
    same = len(shape) == len(other) >= 2 and shape[0] == other[0] and tuple(shape[2:]) == tuple(other[2:])
    if not same or shape[1] % count or other[1] % (shape[1] // count):
        return 0
    return int(other[1] // (shape[1] // count))


def resampled(module: nn.Module, tensors: Mapping[str, Tensor], size: tuple[int, int] | None) -> dict[str, Tensor]:
    """Tensors by their names in `module` as timm makes them fit a network of its own: positions and patches resampled, names of older code
    turned into its own. size: (height, width) of the images that they learned from, None where it is that of published weights.

    Nothing is done to networks of others, nor where timm cannot make sense of the tensors.
    """
    network, prefix = innermost(module)
    translate = next((one for kind in type(network).__mro__ if (one := _filter(kind)) is not None), None)
    if translate is None:
        return {}
    plain = {name.removeprefix(prefix): value for name, value in tensors.items()}
    try:
        with _learned_at(network, size):
            found = translate(plain, network)
    except Exception:  # whatever stands in a file: then it is matched as it is, and what does not fit is told
        return {}
    return {prefix + name: value for name, value in found.items() if isinstance(value, Tensor)}


def innermost(module: nn.Module) -> tuple[nn.Module, str]:
    """The library's network inside of what was put around it, and what stands before the names of its tensors."""
    prefix = ""
    while isinstance(inner := getattr(module, "network", None), nn.Module):
        module, prefix = inner, f"{prefix}network."
    return module, prefix


def _filter(kind: type) -> Any:
    return getattr(sys.modules[kind.__module__], "checkpoint_filter_fn", None) if kind.__module__.startswith("timm.models.") else None


@contextmanager
def _learned_at(network: Any, size: tuple[int, int] | None) -> Iterator[None]:
    """timm reads the shape of the grid of positions from what is published of a network."""
    before = network.pretrained_cfg
    if size is not None:
        network.pretrained_cfg = {**dict(before), "input_size": (3, *size)}
    try:
        yield
    finally:
        network.pretrained_cfg = before
