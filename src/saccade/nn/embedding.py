"""A classifier as a function from images to vectors: what its last layer is given, or what any layer gives, averaged over places.

B images, D numbers an image; C channels, h and w cells of a map, N tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from saccade.core.errors import UserError, unknown
from saccade.nn.features import channels_last


class Embedder(nn.Module):
    """uint8 `[B, C, H, W]` -> float32 `[B, D]`. It has its own modules, but the weights of `model`, which stays as it is.

    layer: the name of a module in the innermost network ("layer3", "stages.2", "blocks.5"), of which the first output in a forward pass
    counts; "": what is left of a network of timm without its classifier, as `num_classes=0` leaves it, and of others what
    `last(model)` gives. Maps and tokens are averaged over their places; tokens without a place (class, registers) are left out.
    Raises UserError for a name that is not there.
    """

    def __init__(self, model: nn.Module, layer: str, last: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.layer = layer
        self.model = copy.deepcopy(model, {id(value): value for value in (*model.parameters(), *model.buffers())})
        self.network = self.model
        while isinstance(inner := getattr(self.network, "network", None), nn.Module):
            self.network = inner
        without = getattr(self.network, "reset_classifier", None)
        if not layer and without is not None:
            without(0)
        else:
            chosen = self._named(layer) if layer else last(self.model)
            chosen.register_forward_hook(_stop)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, D]`; raises UserError where the layer is not asked, or gives no such output."""
        try:
            outputs = self.model(images)
            if self.layer:
                raise UserError(f"the network does not use its layer {self.layer!r}", where="layer")
        except _ReachedError as reached:
            outputs = reached.outputs
        if not isinstance(outputs, Tensor) or outputs.ndim not in (2, 3, 4) or len(outputs) != len(images):
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            problem = f"must give a map, tokens or numbers for each of {len(images)} images, gives {shape}"
            raise UserError(problem, where=f"layer {self.layer}", fix="name a layer around it")
        return self._pooled(outputs.float(), (images.shape[2], images.shape[3]))

    def _named(self, name: str) -> nn.Module:
        modules = {path: module for path, module in self.network.named_modules() if path}
        if name not in modules:
            raise unknown("layer", name, modules, where="layer")
        return modules[name]

    def _pooled(self, outputs: Tensor, size: tuple[int, int]) -> Tensor:
        if outputs.ndim == 4:
            last = _last_axis(outputs.shape, size, channels_last(self.network))
            return outputs.mean((1, 2) if last else (2, 3))
        return self._of_tokens(outputs) if outputs.ndim == 3 else outputs

    def _of_tokens(self, outputs: Tensor) -> Tensor:
        """`[B, N, C]`, or `[B, C, N]` inside of mixers; how many places there are, the network's patches tell."""
        places: Any = next((count for part in self.network.modules() if (count := getattr(part, "num_patches", 0))), 0)
        extra: Any = getattr(self.network, "num_prefix_tokens", 0)
        counts = (places, places + extra)
        if outputs.shape[1] not in counts and outputs.shape[2] in counts:
            outputs = outputs.transpose(1, 2)
        return outputs[:, extra if outputs.shape[1] == places + extra else 0 :].mean(1)


class _ReachedError(Exception):
    """The layer has given its output: the rest of the network need not run."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs


def _stop(module: nn.Module, inputs: Any, outputs: Any) -> None:
    raise _ReachedError(outputs)


def _last_axis(shape: tuple[int, ...], size: tuple[int, int], otherwise: bool) -> bool:
    """Whether a map is `[B, h, w, C]`, not `[B, C, h, w]`: its places have the shape of the image, (height, width). `otherwise`: where both
    would fit."""

    def off(height: int, width: int) -> float:
        return abs(math.log(height * size[1] / (width * size[0])))

    first, last = off(shape[2], shape[3]), off(shape[1], shape[2])
    return otherwise if math.isclose(first, last, abs_tol=1e-9) else last < first
