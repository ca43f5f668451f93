"""Attribution maps: where in the image the score of a class comes from.

B images, C channels, H and W pixels; h and w cells of the layer's map, N tokens of a vision transformer, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core import geometry
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import covering, margin, padded
from saccade.nn.features import channels_last, evaluating

Score = Callable[[Tensor, Tensor], Tensor]


def gradcam(model: nn.Module, layer: nn.Module, images: Tensor, score: Score, targets: Sequence[int] | Tensor) -> NDArray[np.float32]:
    """Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) through captum: float32 [B, H, W] in 0..1.

    layer: a part of `model` whose output is [B, F, h, w]; for [B, h, w, F] and for tokens [B, N, F] the gradient is
    not averaged over places (HiResCAM, Draelos & Carin 2020), as tokens share no filter. images: what the model takes,
    uint8 [B, C, H, W]. score(outputs, targets [B]) -> [B] is the room's door.

    Negative evidence is cut off, each map is scaled by its own maximum (one without evidence stays zero) and enlarged
    bilinearly. The model works in evaluation mode and gets its modes back; no gradient is left in its parameters.
    """
    if len(images) != len(targets):
        raise ValueError(f"images and targets must be as many, got {len(images)} and {len(targets)}")
    if not len(images):
        return np.zeros((0, *images.shape[-2:]), np.float32)
    device = next((p.device for p in model.parameters()), images.device)
    wanted = torch.as_tensor(targets, dtype=torch.int64, device=device)

    def scores(batch: Tensor) -> Tensor:
        # The door reads a probability or a logit; half precision would cut small gradients to zero.
        return score(model(batch), wanted).float()

    with evaluating(model), torch.enable_grad(), torch.inference_mode(False):
        maps = _attribute(scores, layer, images.to(device), channels_last(model))
    height, width = int(images.shape[-2]), int(images.shape[-1])
    large = F.interpolate(maps.detach().float().relu()[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    peaks = large.amax((1, 2), keepdim=True)
    scaled: NDArray[np.float32] = torch.where(peaks > 0, large / peaks.clamp_min(torch.finfo(torch.float32).tiny), 0.0).cpu().numpy()
    return scaled


def to_original(values: NDArray[np.float32], size: tuple[int, int], spec: InputSpec) -> NDArray[np.float32]:
    """A map [h, w] in the model's input, put back on the original image: float32 [H, W] for `size` (H, W).

    The inverse of `core.prepare`'s scaling, and centre crop or padding. What a crop cut away is NaN: the model never saw it, which is
    not the same as finding nothing there. Raises UserError for a map that is none of such an input.
    """
    if spec.resize in ("fit", "native"):
        scaled = geometry.scaled(size, spec.size, spec.resize)
        if values.shape != padded(scaled):
            raise UserError(
                f"a map of {list(values.shape)} is none of an image of {list(size)} by resize {spec.resize!r} to {list(spec.size)}"
            )
        y, x = (np.clip((np.arange(size[axis]) + 0.5) * scaled[axis] / size[axis] - 0.5, 0, scaled[axis] - 1) for axis in (0, 1))
        return _between(_between(values.astype(np.float32), y).T, x).T
    if spec.resize != "crop" or values.shape != tuple(spec.size):
        raise UserError(f"a map of {list(values.shape)} is none of an input of {list(spec.size)} by resize {spec.resize!r}")
    scaled = covering(size, spec.size)
    y, x = (_places(size[axis], scaled[axis], spec.size[axis]) for axis in (0, 1))
    rows = _between(values.astype(np.float32), y)
    return _between(rows.T, x).T


def _places(length: int, scaled: int, kept: int) -> NDArray[np.float64]:
    """Where the centres of a side's `length` pixels lie on the `kept` middle of the `scaled` ones, in its indices; NaN where not seen.

    A pixel is seen where at least half of it is kept, or half of all that is kept lies in it.
    """
    pixel = scaled / length
    begin = np.arange(length) * pixel - margin(scaled, kept)
    overlap = np.minimum(begin + pixel, kept) - np.maximum(begin, 0)
    return np.where(overlap >= min(pixel, kept) / 2 - 1e-9, begin + pixel / 2 - 0.5, np.nan)


def _between(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of `values` [h, w] at `places` [H], linearly between them; the first and last reach to the edge; NaN rows at NaN."""
    clipped = np.clip(np.nan_to_num(places), 0, len(values) - 1)
    low = np.floor(clipped).astype(np.int64)
    high, share = np.minimum(low + 1, len(values) - 1), (clipped - low)[:, None]
    mixed = values[low] * (1 - share) + values[high] * share
    return np.where(np.isnan(places)[:, None], np.nan, mixed).astype(np.float32)


def _attribute(scores: Callable[[Tensor], Tensor], layer: nn.Module, images: Tensor, last: bool) -> Tensor:
    """The map of each image, [B, h, w], through captum."""
    from captum.attr import LayerGradCam, LayerGradientXActivation

    height, width = int(images.shape[-2]), int(images.shape[-1])
    shape: list[int] = []
    handle = layer.register_forward_hook(lambda _, __, outputs: shape.extend(outputs.shape))
    try:
        with torch.no_grad():
            scores(images)
    finally:
        handle.remove()
    if len(shape) == 4 and not last:
        return _tensor(LayerGradCam(scores, layer).attribute(images))[:, 0]
    if len(shape) not in (3, 4):
        raise ValueError(f"the layer must give a map or tokens, gives {shape}")
    products = _tensor(LayerGradientXActivation(scores, layer).attribute(images)).sum(-1)
    return products if products.ndim == 3 else _grid(products, height / width)


def _tensor(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    return found if isinstance(found, Tensor) else found[0]


def _grid(tokens: Tensor, aspect: float) -> Tensor:
    """[B, N] -> [B, h, w]: the last h * w tokens, where h / w is nearest to `aspect`; the few before them are class and register tokens."""
    count = tokens.shape[1]
    best = (math.inf, 1, 1)
    for extra in range(min(6, count)):
        places = count - extra
        for height in (h for h in range(1, places + 1) if places % h == 0):
            width = places // height
            # How far the shape is from the picture's, then how many tokens are left out.
            best = min(best, (round(abs(math.log(height / width / aspect)), 2) + 0.01 * extra, height, width))
    _, height, width = best
    return tokens[:, count - height * width :].unflatten(1, (height, width))
