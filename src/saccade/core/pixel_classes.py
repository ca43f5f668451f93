"""Logits of each pixel of a model's input -> the class of each pixel of the original image. NumPy and Pillow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saccade.core import geometry, layers
from saccade.core.card import Card
from saccade.core.class_masks import Packer
from saccade.core.errors import UserError
from saccade.core.segmentation import Segmentation

Block: TypeAlias = tuple[int, int, NDArray[np.float32]]  # first row, first column, logits [K, rows, columns]: from the left, then the top
ROOM = 1 << 24  # values at work at once
BROKEN = "try --precision fp32; if that gives the same, the weights are broken"


def numbers(values: Any, name: str) -> NDArray[np.float32]:
    """An output as float32; raises UserError where it is none."""
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's {name} must be numbers: {error}") from None


def segmentations(
    logits: NDArray[np.float32],
    card: Card,
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]],
    *,
    doubts: bool,
) -> list[Segmentation]:
    """The class of the largest of logits `[B, K, h, w]` at each pixel of the original images, linearly between the input's pixels.

    doubts: whether to tell how unsure each is. Raises UserError for logits that are not the card's, or not finite.
    """
    if logits.ndim != 4 or logits.shape[:2] != (len(sources), len(card.classes)):
        wanted = f"[{len(sources)}, {len(card.classes)}, h, w]"
        raise UserError(f"the model must give logits {wanted} (images, classes of its card), got {list(logits.shape)}")
    found = []
    for maps, size, source, remarks in zip(logits, sizes, sources, notes, strict=True):
        height, width = geometry.scaled(size, card.input.size, card.input.resize)
        if maps.shape[1] < height or maps.shape[2] < width:
            raise UserError(f"the model must give logits of {height}x{width} at least, got {maps.shape[1]}x{maps.shape[2]}", where=source)
        if not np.isfinite(maps).all():
            raise UserError("logits must be finite", where=source, fix=BROKEN)
        blocks = _bands(np.ascontiguousarray(maps[:, :height, :width]), size)
        found.append(_answer(blocks, card, size, source, tuple(remarks), doubts=doubts))
    return found


def from_blocks(
    blocks: Iterable[Block],
    card: Card,
    size: tuple[int, int],
    source: str,
    notes: tuple[str, ...],
    *,
    doubts: bool,
) -> Segmentation:  # a sixth argument: whose logits, of what, and how much of it is asked
    """The same of an image whose logits come in blocks, at its own pixels or at those of the input, which goes on beyond its own. Raises
    UserError as that does."""
    return _answer(_finite(blocks, source), card, size, source, notes, doubts=doubts)


def _finite(blocks: Iterable[Block], source: str) -> Iterator[Block]:
    for top, left, values in blocks:
        if not np.isfinite(values).all():
            raise UserError("logits must be finite", where=source, fix=BROKEN)
        yield top, left, values


def _answer(
    blocks: Iterable[Block], card: Card, size: tuple[int, int], source: str, notes: tuple[str, ...], *, doubts: bool
) -> Segmentation:
    """Classes, or sets of them where they overlap, and entropy in 255ths of the largest; held of them are the rows of a block."""
    multi = layers.layered(card)
    if multi:
        layers.check(card.classes, source)
    told, entropy = (_sets, _doubt_of_sets) if multi else (_largest, _doubt)
    mask, doubt = Packer(size), Packer(size) if doubts else None
    for _, beside in itertools.groupby(blocks, lambda block: block[0]):
        said, unsure = [], []
        for top, left, values in beside:
            values = values[:, : max(0, size[0] - top), : max(0, size[1] - left)]
            said.append(told(values))
            if doubt is not None:
                unsure.append(np.rint(255 * entropy(values)).astype(np.uint8))
        mask.add(np.concatenate(said, 1))
        if doubt is not None:
            doubt.add(np.concatenate(unsure, 1))
    return layers.kind(multi=multi)(mask.packed(), card.classes, source, None if doubt is None else doubt.packed(), "", notes)


def _largest(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    largest: NDArray[np.uint8] = values.argmax(0).astype(np.uint8)
    return largest


def _sets(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bit k where class k is as likely as not."""
    found = np.zeros(values.shape[1:], np.uint8)
    for label, layer in enumerate(values):
        found |= (layer > 0).astype(np.uint8) << np.uint8(label)
    return found


def _doubt(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The entropy of each pixel's classes, by the largest possible."""
    return _entropy(values) / np.float32(np.log(len(values))) if len(values) > 1 else np.zeros(values.shape[1:], np.float32)


def _doubt_of_sets(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over classes of the entropy of whether a pixel is of it."""
    each = [_doubt(np.stack([layer, np.zeros_like(layer)])) for layer in values]
    found: NDArray[np.float32] = np.mean(each, 0, dtype=np.float32)
    return found


def _bands(maps: NDArray[np.float32], size: tuple[int, int]) -> Iterator[Block]:
    """Logits `[K, h, w]` of a whole image at the pixels of one of `size`."""
    rows = max(1, ROOM // (len(maps) * size[1]))
    for top in range(0, size[0], rows):
        yield top, 0, between(maps, (maps.shape[1], maps.shape[2]), size, top, min(size[0], top + rows))


def between(maps: NDArray[np.float32], extent: tuple[float, float], size: tuple[int, int], top: int, bottom: int) -> NDArray[np.float32]:
    """Rows of maps `[K, h, w]`, of which an image fills `extent` (height, width), as they would be at its `size`, linearly between their
    places, antialiased where it is smaller: `[K, bottom - top, W]`."""
    from PIL import Image

    height, width = extent
    if maps.shape[1:] == size and extent == (float(size[0]), float(size[1])):
        return maps[:, top:bottom]
    box = (0, top * height / size[0], width, bottom * height / size[0])
    shape = (size[1], bottom - top)
    return np.stack([np.asarray(Image.fromarray(one).resize(shape, Image.Resampling.BILINEAR, box=box)) for one in maps])


def _entropy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the softmax over the first axis, in nats."""
    shifted = logits - logits.max(0)
    weights = np.exp(shifted)
    total = weights.sum(0)
    entropy: NDArray[np.float32] = np.log(total) - (weights * shifted).sum(0) / total
    return entropy.clip(0)
