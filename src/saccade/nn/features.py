"""The layer that an attribution map reads: the last one that still knows where things are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.nn.stems import VISION_TRANSFORMERS, is_a

TOKENS = (*VISION_TRANSFORMERS, "models.cait.Cait", "models.xcit.Xcit", "models.mlp_mixer.MlpMixer")
EARLY = ("stem", "patch_embed")  # edges and colours: where they are says nothing about the class
ENOUGH = 2  # cells along each side: a later layer with fewer says next to nothing about the place
STAGE, DEEPEST = 2, 1 << 10  # dots and one more in a layer's name: parts of a block see only a branch of what there is


def feature_layer(module: nn.Module, example: Tensor | None = None) -> nn.Module:
    """The last layer inside `module` whose output is a map [B, C, h, w] or, for a vision transformer, its tokens.

    A map of at least 2x2 cells is preferred to a later one of fewer. example: what the module takes, one image at the
    size it is used with ([1, C, H, W]), since which layer is the last with a map depends on it; without it, random
    values at the size that `backbones` built for are tried (64x64 for others). The modules' modes are left as they
    were. Raises UserError where no layer has a map.
    """
    for network in module.modules():
        if is_a(network, *TOKENS):
            # The class token alone reaches the head after the last attention, so the tokens are read before it.
            return [part for part in network.get_submodule("blocks").modules() if hasattr(part, "norm1")][-1].get_submodule("norm1")
        if (seen := getattr(network, "tokens", None)) is not None:  # of a library that does not say it by its class
            return seen
        if is_a(network, "models.vgg.VGG"):
            # Its classifier is made of convolutions, whose map is no map of the picture.
            return network.get_submodule("features")
    found = _maps(module, _example(module) if example is None else example)
    for least, depth in ((ENOUGH, STAGE), (ENOUGH, DEEPEST), (1, STAGE), (1, DEEPEST)):
        fitting = [layer for layer, shape, level in found if min(shape) >= least and level <= depth]
        if fitting:
            return fitting[-1]
    raise UserError(
        f"{type(module).__name__} has no layer with a map of its input",
        where="explain",
        fix="attribution works with convolutional networks, Swin and plain vision transformers",
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of `module` in evaluation mode, and each back in its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _maps(module: nn.Module, example: Tensor) -> list[tuple[nn.Module, torch.Size, int]]:
    """The layers that give a 4-D output, in the order in which they finish, with the (height, width) of their maps and
    the level at which they stand in the innermost network."""
    found: list[tuple[nn.Module, torch.Size, int]] = []
    last = channels_last(module)

    def note(level: int, part: nn.Module, inputs: object, outputs: object) -> None:
        if isinstance(outputs, Tensor) and outputs.ndim == 4:
            found.append((part, outputs.shape[1:3] if last else outputs.shape[2:4], level))

    network = module
    while isinstance(inner := getattr(network, "network", None), nn.Module):
        network = inner
    handles = []
    for name, part in network.named_modules():
        if name and not name.startswith(EARLY) and not isinstance(part, nn.Identity | nn.Dropout):
            handles.append(part.register_forward_hook(partial(note, name.count(".") + 1)))
    try:
        with evaluating(module), torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def channels_last(module: nn.Module) -> bool:
    """Whether the maps inside are [B, h, w, C], as in Swin (not torch's memory format, which shapes do not show)."""
    return any(str(getattr(part, "output_fmt", "")).endswith("NHWC") for part in module.modules())


def _example(module: nn.Module) -> Tensor:
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    weight = next(module.parameters(), torch.empty(0))
    sizes = (getattr(part, "example_size", None) for part in module.modules())
    height, width = next((size for size in sizes if size), (64, 64))
    return torch.rand(1, first.in_channels if first else 3, height, width, dtype=weight.dtype, device=weight.device)
