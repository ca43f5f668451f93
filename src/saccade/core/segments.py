"""What networks tell of things and stuff -> the segment of each pixel of the original image. NumPy and Pillow.

Of those whose queries answer (Cheng et al. 2022, "Masked-attention mask transformer for universal image segmentation", section 4.1, as
MaskFormer's paper has it in section 3.4, "general inference"): a query that is sure enough of its class claims pixels: each goes to the one
whose class, by its mask there, is the most probable, if that mask covers it at all. A query that keeps too little of its mask is left out,
and what it took stays void. Queries of one class of stuff are one segment.

Of those that find things as objects with masks, and tell the class of each pixel beside them (Kirillov et al. 2019, "Panoptic feature
pyramid networks", section 3.2, "panoptic inference"): surer things take their pixels first, and one of which they leave too little is left
out; a pixel of no thing is of its likeliest class, if that is stuff. A stuff that covers too little of the image is left out, and void.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import geometry, run_lengths
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.geometry import CELL
from saccade.core.panoptic import VOID, Panoptic, Segment
from saccade.core.pixel_classes import BROKEN, ROOM, between, numbers
from saccade.core.results import Instances

NEEDED = ("classes", "masks")
FAR = 60.0  # logit beyond which a probability is 0 in 32 bit, about
SURE = 0.5  # probability of its class from which a query tells anything, as transformers has it; the authors' 0.8 is for long training
KEPT = 0.8  # share of its mask's pixels that a query must keep, as the authors of Mask2Former and EoMT have it
LEFT = 0.5  # share of a thing's pixels that surer ones must leave, as the authors of Panoptic FPN have it
LEAST = 0.01  # share of an image that a stuff must cover; theirs is 4,096 pixels of photographs of COCO


def panoptics(
    outputs: Mapping[str, Any],
    card: Card,
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]],
) -> list[Panoptic]:
    """One for each image. outputs: "classes" `[B, Q, K + 1]`, probabilities of each query's classes, the last of which is nothing, and
    "masks" `[B, Q, h, w]`, logits at the cells of the input. Raises UserError for outputs that are not the card's, or not finite."""
    classes, masks = (numbers(outputs[name], name) for name in NEEDED)
    wanted = (len(sources), *classes.shape[1:2], len(card.classes) + 1)
    if classes.shape != wanted or masks.ndim != 4 or masks.shape[:2] != classes.shape[:2]:
        told = f"[{len(sources)}, Q, {len(card.classes) + 1}] and masks [{len(sources)}, Q, h, w]"
        raise UserError(f"the model must give classes {told}, got {list(classes.shape)} and {list(masks.shape)}")
    found = []
    for rows, maps, size, source, remarks in zip(classes, masks, sizes, sources, notes, strict=True):
        if not (np.isfinite(rows).all() and np.isfinite(maps).all()):
            raise UserError("classes and masks must be finite", where=source, fix=BROKEN)
        found.append(_merged(rows, maps, _extent("masks", maps, card, size, source), size, card, (source, tuple(remarks))))
    return found


def _extent(name: str, maps: NDArray[np.float32], card: Card, size: tuple[int, int], source: str) -> tuple[float, float]:
    """How much of maps `[N, h, w]` an image of `size` fills, (height, width) in cells; raises UserError where they are smaller."""
    height, width = (side / CELL for side in geometry.scaled(size, card.input.size, card.input.resize))
    if maps.shape[1] < height or maps.shape[2] < width:
        said = f"{height:g}x{width:g} cells at least, got {maps.shape[1]}x{maps.shape[2]}"
        raise UserError(f"the model must give {name} of {said}", where=source)
    return height, width


def _merged(
    rows: NDArray[np.float32],
    maps: NDArray[np.float32],
    extent: tuple[float, float],
    size: tuple[int, int],
    card: Card,
    called: tuple[str, tuple[str, ...]],
) -> Panoptic:
    """Of probabilities `[Q, K + 1]` and logits `[Q, h, w]`, of which the image fills `extent` (height, width)."""
    labels, scores = rows.argmax(1), rows.max(1)
    sure = np.flatnonzero((labels < len(card.classes)) & (scores >= SURE))
    order = sure[np.argsort(-scores[sure], kind="stable")]
    labels, scores = labels[order], scores[order]
    taken, claimed, kept = _claimed(maps[order], scores, extent, size)
    segments: dict[tuple[int, int], Segment] = {}
    numbers_of = np.full(len(order) + 1, VOID, np.int32)
    for place, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        if not kept[place] or claimed[place, 0] < KEPT * claimed[place, 1]:
            continue
        thing = label not in card.stuff
        one = segments.setdefault((label, place if thing else -1), Segment(len(segments) + 1, label, score, thing=thing))
        numbers_of[place + 1] = one.id
    return Panoptic.of(numbers_of[taken], list(segments.values()), card.classes, *called)


def _claimed(
    maps: NDArray[np.float32], scores: NDArray[np.float32], extent: tuple[float, float], size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """Which of N queries has each pixel, from 1 on, 0 where the likeliest one's mask does not cover it: uint16 `[H, W]`; of each how many
    pixels it is the likeliest for, and how many its mask covers, `[N, 2]`; and for how many both are so, `[N]`."""
    count = len(maps)
    taken = np.zeros(size, np.uint16)
    claimed, kept = np.zeros((count, 2), np.int64), np.zeros(count + 1, np.int64)
    step = max(1, ROOM // max(1, count * size[1]))
    for top in range(0, size[0] if count else 0, step):
        logits = between(maps, extent, size, top, min(size[0], top + step))
        covered = logits >= 0
        claimed[:, 1] += covered.sum((1, 2))
        likeliest = (scores[:, None, None] / (1 + np.exp(-logits.clip(-FAR)))).argmax(0)
        claimed[:, 0] += np.bincount(likeliest.ravel(), minlength=count)
        own = np.take_along_axis(covered, likeliest[None], 0)[0]
        band = np.where(own, likeliest + 1, 0).astype(np.uint16)
        taken[top : top + len(band)] = band
        kept += np.bincount(band.ravel(), minlength=count + 1)
    return taken, claimed, kept[1:]


def filled(things: Sequence[Instances], pixels: NDArray[np.float32], card: Card) -> list[Panoptic]:
    """Of the things found in each image and the logits of the classes at the cells of the input, `[B, K, h, w]`. What was found of a class
    of stuff is passed over. Raises UserError for logits that are not the card's, or not finite."""
    if pixels.ndim != 4 or pixels.shape[:2] != (len(things), len(card.classes)):
        raise UserError(f"the model must give pixels [{len(things)}, {len(card.classes)}, h, w], got {list(pixels.shape)}")
    found = []
    for answer, maps in zip(things, pixels, strict=True):
        if not np.isfinite(maps).all():
            raise UserError("pixels must be finite", where=answer.source, fix=BROKEN)
        extent = _extent("pixels", maps, card, answer.size, answer.source)
        whole, segments = _things(answer, card)
        for number, label, score in _stuff(maps, extent, whole, card):
            segments.append(Segment(number, label, score, thing=False))
        found.append(Panoptic.of(whole, segments, card.classes, answer.source, answer.notes))
    return found


def _things(answer: Instances, card: Card) -> tuple[NDArray[np.int32], list[Segment]]:
    """The map `[H, W]` with the things in it, the surest first, and what they are."""
    whole, segments = np.zeros(answer.size, np.int32), list[Segment]()
    for label, score, mask in zip(answer.labels.tolist(), answer.scores.tolist(), answer.masks, strict=True):
        part = run_lengths.patch(mask)
        rows, columns = part.pixels.shape
        window = whole[part.top : part.top + rows, part.left : part.left + columns]
        free = part.pixels & (window == VOID)
        if label not in card.stuff and free.sum() >= LEFT * part.pixels.sum():
            segments.append(Segment(len(segments) + 1, label, score))
            window[free] = len(segments)
    return whole, segments


def _stuff(
    maps: NDArray[np.float32], extent: tuple[float, float], whole: NDArray[np.int32], card: Card
) -> Iterator[tuple[int, int, float]]:
    """Put each stuff that covers enough into `whole`; gives its number there, its class, and the mean probability of that where it is."""
    kinds = len(card.classes)
    likeliest = np.zeros(whole.shape, np.int32)
    counts, sums = np.zeros(kinds, np.int64), np.zeros(kinds)
    step = max(1, ROOM // (kinds * whole.shape[1]))
    for top in range(0, len(whole), step):
        logits = between(maps, extent, (whole.shape[0], whole.shape[1]), top, min(len(whole), top + step))
        band = logits.argmax(0)
        free = whole[top : top + len(band)] == VOID
        sure = 1 / np.exp(logits - logits.max(0)).sum(0)
        counts += np.bincount(band[free], minlength=kinds)
        sums += np.bincount(band[free], sure[free], minlength=kinds)
        likeliest[top : top + len(band)] = band
    empty, number = whole == VOID, int(whole.max(initial=0))
    for label in card.stuff:
        if counts[label] >= max(1.0, LEAST * whole.size):
            number += 1
            whole[empty & (likeliest == label)] = number
            yield number, label, float(sums[label] / counts[label])
