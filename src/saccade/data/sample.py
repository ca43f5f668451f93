"""One labelled image, and what a whole set of them looks like. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.run_lengths import Rle
from saccade.data import shapes
from saccade.data.annotations import Item, Object
from saccade.data.tree import Tree


@dataclass(frozen=True, slots=True)
class Objects:
    """What is in one image, fit to learn from: boxes cut at its edges, none empty, none twice, nothing that `data check` calls an error.

    boxes: float64 `[N, 4]` x1, y1, x2, y2 in pixels; labels: int64 `[N]`; crowd, difficult: bool `[N]`; masks: run lengths by object
    (instances), else empty.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    masks: tuple[Rle, ...] = ()

    @classmethod
    def of(cls, item: Item, size: tuple[int, int], tree: Tree, *, with_masks: bool) -> Objects:
        """Of an image of `size` (height, width). Raises UserError where a mask cannot be read."""
        objects = [one for one in item.objects if _whole(one, size)]
        covers: list[Rle] = []
        if with_masks:  # a picture may be of another size than its image; run lengths that are have been left out already
            both = [(one, shapes.rle(one, size, tree)) for one in shapes.unfolded(objects, tree)]
            both = [(one, cover) for one, cover in both if cover.size == size and run_lengths.covered(cover)]
            objects, covers = [one for one, _ in both], [cover for _, cover in both]
            bounds = [one.box or run_lengths.patch(cover).box for one, cover in both]
        else:
            bounds = [shapes.box(one, size, tree) for one in objects]
        boxes = np.array(bounds, np.float64).reshape(-1, 4).clip(0, [size[1], size[0], size[1], size[0]])
        labels = np.array([one.label for one in objects], np.int64)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not with_masks:  # two objects of one box may be of different shape
            _, first = np.unique(np.column_stack([boxes, labels]), axis=0, return_index=True)
            kept &= np.isin(np.arange(len(boxes)), first)
        places = np.flatnonzero(kept).tolist()
        crowd, difficult = (np.array([getattr(objects[place], mark) for place in places], bool) for mark in ("crowd", "difficult"))
        return cls(boxes[kept], labels[kept], crowd, difficult, tuple(covers[place] for place in places if covers))

    def scaled(self, source: tuple[int, int], size: tuple[int, int]) -> Objects:
        """The same objects where their image of `source` (height, width) has become one of `size`."""
        if source == size:
            return self
        factors = np.tile([size[1] / source[1], size[0] / source[0]], 2)
        patches = [run_lengths.patch(mask).resized(source, size) for mask in self.masks]
        masks = tuple(run_lengths.from_patch(part, size) for part in patches)
        return replace(self, boxes=self.boxes * factors, masks=masks)


def _whole(one: Object, size: tuple[int, int]) -> bool:
    """Whether all numbers of an object are finite, its outlines have three points, and its run lengths are of the image's size."""
    if isinstance(one.shape, Rle) and one.shape.size != size:
        return False
    rings = one.shape if isinstance(one.shape, tuple) else ()
    return all(map(isfinite, one.box or ())) and all(len(ring) >= 6 and all(map(isfinite, ring)) for ring in rings)


@dataclass(frozen=True, slots=True)
class Sample:
    """image: uint8 `[H, W, C]`; target: what the task learns (classification: the class index); index: place in the data set."""

    image: NDArray[np.uint8]
    target: Any
    index: int
    source: str


@dataclass(frozen=True)
class Schema:
    """What can be known of a data set before training; the recipe reads nothing else.

    counts: images (or objects in them) of each split by class, `{split: [n_class_0, ...]}`; size: the median (height, width) of the images
    looked at, uniform: whether all those had the same size; channels: 1 where all are grey, 4 where images to make more of have alpha
    (`core.alpha`), where they hold bands (`core.bands`) as many, else 3; totals: images by split, where classes do not count them
    (`images`); extent: the median side of objects in pixels, the root of their boxes' area, in some of the images, None where there is
    none; shares: how much of the pixels each class covers in some of the training masks, () where that was not looked for; ids: the set's
    own numbers of the classes, () where it has none; multi: whether the classes of pixels overlap; stuff: places of the classes that
    cannot be counted (panoptic).
    """

    task: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    channels: int
    size: tuple[int, int]
    uniform: bool
    totals: Mapping[str, int] | None = None
    extent: float | None = None
    shares: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()
    multi: bool = False
    stuff: tuple[int, ...] = ()

    @property
    def images(self) -> Mapping[str, int]:
        """Images by split: `totals`, or, where an image has one class, the sum over `counts`."""
        return self.totals if self.totals is not None else {split: sum(counts) for split, counts in self.counts.items()}
