"""An image looked at several times, in tiles, mirrored and at other sizes, and one answer made of it: for models that find objects.

Tiles share a quarter of their side. Each tells what does not come near its inner edges, the whole image what is longer than tiles share: so
each object is seen uncut at least once, and one that is small and lies in one tile only has the very answer that the tile alone would have.
Of what several views have found of one object the surest stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import finish, run_lengths
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.images import Picture
from saccade.core.nms import OVERLAP, across
from saccade.core.prepare import prepare
from saccade.core.results import OBJECTS, Detections, Instances
from saccade.core.run_lengths import Patch, Rle
from saccade.prediction import flips
from saccade.prediction.session import Session
from saccade.prediction.tiling import most

LEAST_TILE = 64  # pixels
SHARED = 4  # the part of a tile's side that neighbours share at least
NEAR = 8  # the part of what they share that counts as near the edge
SCALES = (1.0, 1.25, 0.8)  # of the model's input, at which an image is looked at


@dataclass(frozen=True)
class Looks:
    """How an image is looked at. tile: side of the tiles in pixels of the image, 0 for none; tta: mirrored and at SCALES too."""

    tile: int = 0
    tta: bool = False

    def __bool__(self) -> bool:
        return bool(self.tile) or self.tta

    def check(self, card: Card) -> None:
        """Raise UserError where a model cannot look so, or nobody can."""
        if self.tile and card.task not in OBJECTS:
            raise UserError(f"is for models that find objects, this one is for {card.task}", where="tile", fix="leave it out")
        if self.tta and card.task not in OBJECTS:
            flips.check(card)
        if self.tile and self.tile < LEAST_TILE:
            raise UserError(f"must have a side of {LEAST_TILE} pixels at least, got {self.tile}", where="tile")


NO_LOOKS = Looks()


def asked(session: Session, looks: Looks) -> Session:
    """What answers where it is asked several times: of pixels the mean over mirrored views; objects are looked for `alone`."""
    return flips.Flipped(session) if looks.tta and session.card.task not in OBJECTS else session


def alone(looks: Looks, card: Card, *, complete: bool = False) -> Callable[[Session, Picture, str], Detections] | None:
    """What answers for a single image that is looked at several times; None where images go through together."""
    return partial(found, looks=looks, complete=complete) if looks and card.task in OBJECTS else None


@dataclass(frozen=True, slots=True)
class _View:
    """A part of an image (rows top to bottom, columns left to right), mirrored or not, at a scale of the model's input; inner: of left,
    top, right and bottom those that are no edges of the image."""

    top: int
    left: int
    bottom: int
    right: int
    inner: tuple[bool, bool, bool, bool]
    mirrored: bool = False
    scale: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def prepared(self, pixels: NDArray[np.uint8], card: Card) -> NDArray[np.uint8]:
        part = pixels[self.top : self.bottom, self.left : self.right]
        return prepare(np.ascontiguousarray(part[:, ::-1]) if self.mirrored else part, card.input)


def found(session: Session, picture: Picture, source: str, looks: Looks, *, complete: bool = False) -> Detections:
    """What the model finds in an image as it was read, uint8 `[H, W, C]`; complete: also what is too unsure to be told. Raises UserError
    where the outputs are not those of its card."""
    card = session.card
    least = finish.LEAST if complete else finish.told_from(card)
    views = list(_views(picture.size, looks))
    parts = [_back(view, answer.above(least), picture.size, looks.tile) for view, answer in _answered(session, picture.pixels, views)]
    kind = parts[0]
    boxes, scores, labels = (np.concatenate([getattr(one, name) for one in parts]) for name in ("boxes", "scores", "labels"))
    numbers = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    classes = np.zeros_like(labels) if finish.way_of(card) == "agnostic" else labels
    kept = across(boxes, scores, classes, numbers, OVERLAP)
    chosen: dict[str, Any] = {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
    if isinstance(kind, Instances):
        masks = list(itertools.chain.from_iterable(one.masks for one in parts if isinstance(one, Instances)))
        chosen["masks"] = tuple(masks[place] for place in kept.tolist())
    return replace(kind, **chosen, source=source, notes=picture.notes)


def _views(size: tuple[int, int], looks: Looks) -> Iterator[_View]:
    """The whole image, then its tiles, from the top; each as it is first."""
    height, width = size
    parts = [_View(0, 0, height, width, (False,) * 4)]
    if looks.tile and max(size) > looks.tile:
        for top, bottom in _sides(height, looks.tile):
            for left, right in _sides(width, looks.tile):
                parts.append(_View(top, left, bottom, right, (left > 0, top > 0, right < width, bottom < height)))
    for part in parts:
        yield part
        if looks.tta:
            yield replace(part, mirrored=True)
            yield from (replace(part, mirrored=mirrored, scale=scale) for scale in SCALES[1:] for mirrored in (False, True))


def _sides(side: int, tile: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along a side, evenly spaced."""
    if side <= tile:
        return [(0, side)]
    shared = tile // SHARED
    count = -(-(side - shared) // (tile - shared))
    return [(begin, begin + tile) for number in range(count) for begin in [number * (side - tile) // (count - 1)]]


def _answered(session: Session, pixels: NDArray[np.uint8], views: Sequence[_View]) -> Iterator[tuple[_View, Detections]]:
    """Each view and all that is found in it, in its own pixels; views of one shape go through the model together."""
    groups: dict[tuple[float, tuple[int, ...]], list[tuple[_View, NDArray[np.uint8]]]] = {}
    for view in views:
        image = view.prepared(pixels, _scaled(session.card, view.scale))
        group = groups.setdefault((view.scale, image.shape), [])
        group.append((view, image))
        if len(group) == most(session, image.shape[1:]):
            yield from _run(session, groups.pop((view.scale, image.shape)))
    for group in groups.values():
        yield from _run(session, group)


def _run(session: Session, group: Sequence[tuple[_View, NDArray[np.uint8]]]) -> Iterator[tuple[_View, Detections]]:
    views = [view for view, _ in group]
    outputs = session.run(np.stack([image for _, image in group]))
    sizes, sources = [view.size for view in views], [""] * len(views)
    answers: Sequence[Any] = finish.results(outputs, _scaled(session.card, views[0].scale), sizes, sources, complete=True)
    return zip(views, answers, strict=True)


def _scaled(card: Card, scale: float) -> Card:
    if scale == 1:
        return card
    height, width = (max(1, round(side * scale)) for side in card.input.size)
    return replace(card, input=replace(card.input, size=(height, width)))


def _back(view: _View, answer: Detections, size: tuple[int, int], tile: int) -> Detections:
    """What a view may tell, in pixels of the image of `size` (height, width)."""
    height, width = view.size
    boxes = answer.boxes.astype(np.float64)
    if view.mirrored:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    shared = tile // SHARED
    near = shared // NEAR
    told: NDArray[np.bool_] = np.ones(len(boxes), bool)
    if any(view.inner):
        room = np.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]], axis=1)
        told = np.asarray((room >= near)[:, list(view.inner)].all(1))
    elif tile and max(size) > tile:
        told = np.asarray((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) > shared - 2 * near)
    moved = (boxes + np.tile([view.left, view.top], 2)).astype(np.float32)
    if not isinstance(answer, Instances):
        return replace(answer, boxes=moved, size=size).chosen(told)
    masks = tuple(_moved(mask, view, size) for mask in answer.masks)
    return replace(answer, boxes=moved, size=size, masks=masks).chosen(told)


def _moved(mask: Rle, view: _View, size: tuple[int, int]) -> Rle:
    part = run_lengths.patch(mask)
    pixels, left = part.pixels, part.left
    if view.mirrored:
        pixels, left = pixels[:, ::-1], view.size[1] - left - pixels.shape[1]
    return run_lengths.from_patch(Patch(pixels, part.top + view.top, left + view.left), size)
