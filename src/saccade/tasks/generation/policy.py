"""Differentiable augmentation of what the judge sees (Zhao et al. 2020, "DiffAugment"), and its adaptive strength (Karras et al. 2020).

Real images and fakes both pass through it, in the judge's and in the forge's phase. No flips: they do not preserve digits or letters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Columns of the draws: for each operation its gate, then its amounts.
BRIGHTNESS, SATURATION, CONTRAST, TRANSLATION, CUTOUT = 0, 2, 4, 6, 9
DRAWS = 12


def augment(images: Tensor, draws: Tensor, probability: float | Tensor) -> Tensor:
    """`images` `[B,C,H,W]`, float in -1..1, with each operation applied to each image with `probability`; differentiable in the images.

    draws: uniforms of [0, 1) `[B, DRAWS]`, the only randomness; probability: 0..1, a number or a scalar tensor (`Adaptive.probability`).
    Operations and amounts are those of Zhao et al. 2020: brightness +-0.5, saturation 0..2, contrast 0.5..1.5, translation
    by whole pixels up to 1/8 of each side, cutout of half of each side. What is moved or cut away leaves 0, the middle of the range; values
    may leave -1..1. Alpha (the last of 2 or 4 channels) is left out of colour; saturation needs 3 colours. At 0 the input, bit by bit.
    """
    gates = (draws < probability).view(*draws.shape, 1, 1, 1)
    amounts = draws.to(images.dtype).view(*draws.shape, 1, 1, 1)
    colours = images.shape[1] - (images.shape[1] in (2, 4))
    colour, alpha = images[:, :colours], images[:, colours:]
    colour = torch.where(gates[:, BRIGHTNESS], colour + (amounts[:, BRIGHTNESS + 1] - 0.5), colour)
    if colours >= 3:
        colour = torch.where(gates[:, SATURATION], _spread(colour, (1,), 2 * amounts[:, SATURATION + 1]), colour)
    colour = torch.where(gates[:, CONTRAST], _spread(colour, (1, 2, 3), amounts[:, CONTRAST + 1] + 0.5), colour)
    images = torch.cat([colour, alpha], 1)
    for axis in (2, 3):
        moved = _translated(images, draws[:, TRANSLATION + axis - 1], axis)
        images = torch.where(gates[:, TRANSLATION], moved, images)
    hole = _covered(images, draws[:, CUTOUT + 1], 2) & _covered(images, draws[:, CUTOUT + 2], 3)
    return torch.where(gates[:, CUTOUT] & hole, torch.zeros((), dtype=images.dtype, device=images.device), images)


class Adaptive(nn.Module):
    """The strength of `augment`, moved so that the judge stays right about `target` more often than not (Karras et al. 2020, section 3).

    The heuristic is r_t = E[sign(D(real))], eq. 1: 0 without overfitting, 1 when the judge knows all training images. `images`: how many
    move the probability from 0 to 1; `most`: where it stops, since augmentations applied nearly always leak into the fakes (section 2.2).
    The state is in buffers, so checkpoints carry it: `probability`, a float32 scalar, and `signs` `[2]`, the sum of signs noted since the
    last `settle` and their count. Ranks must add up `signs` before they settle.
    """

    probability: Tensor
    signs: Tensor

    def __init__(self, *, target: float = 0.6, images: int = 500_000, most: float = 0.8, start: float = 0.0) -> None:
        super().__init__()
        self.target, self.images, self.most = target, images, most
        self.register_buffer("probability", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("signs", torch.zeros(2))

    @torch.no_grad()
    def note(self, logits: Tensor) -> None:
        """Count the judge's logits `[B]` of real images as training saw them, augmented.

        A relativistic judge's logits mean something only as differences: give D(real) - D(fake), pair by pair.
        """
        signs = logits.float().sign()
        self.signs += torch.stack([signs.sum(), signs.new_tensor(signs.numel())])

    @torch.no_grad()
    def settle(self) -> None:
        """One step towards the target by what was noted since the last one (the paper: every 4 batches), without leaving the device."""
        total, count = self.signs
        direction = (total - self.target * count).sign()  # nothing noted: 0
        self.probability.add_(direction * count / self.images).clamp_(0, self.most)
        self.signs.zero_()

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"target={self.target}, images={self.images}, most={self.most}"


def _spread(images: Tensor, axes: tuple[int, ...], factor: Tensor) -> Tensor:
    """`images` with their distance to the mean over `axes` multiplied."""
    mean = images.mean(axes, keepdim=True)
    return (images - mean) * factor + mean


def _whole(draw: Tensor, count: int) -> Tensor:
    """Uniforms `[B]` -> whole numbers 0..count-1, int64; the product may round up to `count`."""
    return (draw.float() * count).long().clamp(max=count - 1)


def _translated(images: Tensor, draw: Tensor, axis: int) -> Tensor:
    """`images` moved along `axis` by a whole number of pixels up to 1/8 of the side, either way; 0 comes in."""
    side = images.shape[axis]
    most = (side + 4) // 8  # side / 8, rounded
    shape = [-1 if a == axis else 1 for a in range(4)]
    offset = (_whole(draw, 2 * most + 1) - most).view(-1, 1, 1, 1)
    source = torch.arange(side, device=images.device).view(shape) - offset
    # Indices go round, so that each pixel is read once: gather's backward then adds nothing up, in no order.
    moved = images.gather(axis, (source % side).expand_as(images))
    return torch.where((source >= 0) & (source < side), moved, torch.zeros((), dtype=images.dtype, device=images.device))


def _covered(images: Tensor, draw: Tensor, axis: int) -> Tensor:
    """Which places along `axis` lie in a stretch of half the side, its middle anywhere in the image; bool, `[B,1,H,1]` or `[B,1,1,W]`."""
    side = images.shape[axis]
    size = (side + 1) // 2
    first = _whole(draw, side + 1 - size % 2) - size // 2
    place = torch.arange(side, device=images.device).view([-1 if a == axis else 1 for a in range(4)]) - first.view(-1, 1, 1, 1)
    return (place >= 0) & (place < size)
