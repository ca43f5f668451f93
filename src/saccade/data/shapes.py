"""What covers an object, in its three forms: outlines (rings of points), COCO run lengths, and pixels; and its box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import images, masks, run_lengths
from saccade.core.class_masks import BAND, IGNORED
from saccade.core.errors import UserError
from saccade.core.run_lengths import Rle
from saccade.data.annotations import Annotations, Box, Item, Legend, Object, Picture, Ring
from saccade.data.tree import Tree

LOSSY = (".jpg", ".jpeg")
FAR = 1e12  # pixels; beyond it the arithmetic of cutting would overflow


def rle(obj: Object, size: tuple[int, int], tree: Tree) -> Rle:
    """The object's run lengths in an image of `size` (height, width): those of its shape, else of its box.

    Outlines are filled as pycocotools fills them. Raises UserError where a mask's picture cannot be read.
    """
    from faster_coco_eval import mask as coco

    if isinstance(obj.shape, Rle):
        return obj.shape
    if isinstance(obj.shape, Picture):
        return run_lengths.from_mask(picture(obj.shape, tree))
    stated = obj.shape or ((corners(obj.box),) if obj.box else ())
    rings = [near for ring in stated if len(near := _near(ring, size)) >= 6]  # of four numbers the library would make a box
    if not rings:
        return run_lengths.from_mask(np.zeros(size, bool))
    merged: dict[str, Any] = coco.merge(coco.frPyObjects([list(ring) for ring in rings], *size))
    return Rle(size, merged["counts"])


def outlines(mask: NDArray[np.bool_]) -> tuple[tuple[Ring, ...], int]:
    """The outer rings of a mask's pieces, and how many holes they cover up: filled by the middle of each pixel they give the mask back.

    Points lie halfway between the middles of neighbouring pixels (marching squares at 0.5, by contourpy).
    """
    import contourpy

    padded = np.pad(mask, 1).astype(np.float32)
    generator = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset)
    found: Any = generator.filled(0.5, 2.0)
    points, offsets = found
    rings = [part[: offset[1]][:-1] - 0.5 for part, offset in zip(points, offsets, strict=True)]  # the padding off, and half a pixel on
    holes = sum(len(offset) - 2 for offset in offsets)
    return tuple(tuple(float(v) for v in ring.reshape(-1)) for ring in rings), holes


def pieces(obj: Object, size: tuple[int, int], tree: Tree) -> tuple[Ring, ...]:
    """The outlines of an object's shape as stated, or those of its mask without the holes; () where it has no shape, or covers nothing."""
    if obj.shape is None or isinstance(obj.shape, tuple):
        return obj.shape or ()
    return outlines(run_lengths.to_mask(rle(obj, size, tree)))[0]


def area(ring: Ring) -> float:
    """Of a polygon that does not cross itself (the shoelace formula)."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True))) / 2


def turned(box: Box, degrees: float, about: tuple[float, float]) -> Ring:
    """The corners of a box that is turned clockwise about a point."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = [(x - about[0], y - about[1]) for x, y in zip(corners(box)[::2], corners(box)[1::2], strict=True)]
    return tuple(value for x, y in points for value in (about[0] + x * cos - y * sin, about[1] + x * sin + y * cos))


def corners(box: Box) -> Ring:
    """A box as an outline."""
    left, top, right, bottom = box
    return left, top, right, top, right, bottom, left, bottom


def box(obj: Object, size: tuple[int, int], tree: Tree) -> Box:
    """The object's box as stated, else the smallest one around its shape; zeros where it covers nothing."""
    if obj.box is not None:
        return obj.box
    if isinstance(obj.shape, tuple):
        x, y = [value for ring in obj.shape for value in ring[::2]], [value for ring in obj.shape for value in ring[1::2]]
        return min(x), min(y), max(x), max(y)
    mask = run_lengths.to_mask(rle(obj, size, tree))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def boxed(obj: Object, size: tuple[int, int], tree: Tree) -> Object:
    """The object with nothing but its box, that of its shape where it has none of its own."""
    return obj if obj.shape is None else replace(obj, box=box(obj, size, tree), shape=None)


def picture(shape: Picture, tree: Tree) -> NDArray[np.bool_]:
    """The pixels of a mask that lies in a file: bool `[H, W]`."""
    return marked(shape, masks.read(tree.image(shape.path), colours=shape.colours, max_pixels=tree.max_pixels))


def marked(shape: Picture, values: masks.Values) -> NDArray[np.bool_]:
    """The pixels of a mask among the values of its file: bool `[H, W]`. JPEG leaves tones about an edge: there what is light counts."""
    if shape.value is not None:
        return values == shape.value
    return values > (values.max(initial=0) // 2 if shape.path.lower().endswith(LOSSY) else 0)


def unfolded(objects: Sequence[Object], tree: Tree) -> list[Object]:
    """The objects with run lengths in place of pictures, each of which is read once, though it holds the masks of many. Raises UserError
    where one cannot be read."""
    read: dict[str, masks.Values] = {}
    found = []
    for one in objects:
        if isinstance(one.shape, Picture):
            if one.shape.path not in read:
                read[one.shape.path] = masks.read(tree.image(one.shape.path), colours=one.shape.colours, max_pixels=tree.max_pixels)
            one = replace(one, shape=run_lengths.from_mask(marked(one.shape, read[one.shape.path])))
        found.append(one)
    return found


def classes_of(item: Item, annotations: Annotations) -> NDArray[np.uint8]:
    """The class of each pixel of an image by its mask, or by the shapes of its objects, of which none lies over another: uint8 `[H, W]`,
    IGNORED where none counts. Raises UserError as `masks.read`."""
    return named(values_of(item, annotations), annotations.legend) if item.mask else _painted(item, annotations.tree)


def values_of(item: Item, annotations: Annotations) -> masks.Values:
    """The values of the mask of an image, `[H, W]`. Raises UserError as `masks.read`."""
    tree = annotations.tree
    return masks.read(tree.image(item.mask), colours=annotations.legend.colours, max_pixels=tree.max_pixels)


def named(values: masks.Values, legend: Legend) -> NDArray[np.uint8]:
    """The classes that the values of a mask stand for, IGNORED where they stand for none: uint8 `[H, W]`."""
    found = np.full(values.shape, IGNORED, np.uint8)
    known = np.array(sorted(legend.values), np.int32)
    if not len(known):
        return found
    labels = np.array([legend.values[int(value)] for value in known], np.uint8)
    rows = max(1, BAND // values.shape[1])
    for top in range(0, len(values), rows):
        band = values[top : top + rows]
        place = np.searchsorted(known, band).clip(0, len(known) - 1)
        found[top : top + rows] = np.where(known[place] == band, labels[place], IGNORED)
    return found


def _painted(item: Item, tree: Tree) -> NDArray[np.uint8]:
    covers = [(one, rle(one, item.size or (0, 0), tree)) for one in unfolded(item.objects, tree)]
    size = covers[0][1].size if covers else item.size or images.probe(tree.image(item.path)).size
    found = np.full(size, IGNORED, np.uint8)
    for one, cover in covers:
        found[run_lengths.to_mask(cover)] = one.label
    return found


def layers_of(item: Item, size: tuple[int, int], tree: Tree) -> NDArray[np.uint8]:
    """The classes that cover each pixel of an image of `size` (height, width), bit k for class k: uint8 `[H, W]`. Raises UserError where a
    mask cannot be read, or is of another size."""
    found = np.zeros(size, np.uint8)
    for one in item.objects:
        mask = picture(one.shape, tree) if isinstance(one.shape, Picture) else run_lengths.to_mask(rle(one, size, tree))
        if mask.shape != size:
            where = one.shape.path if isinstance(one.shape, Picture) else item.where
            said = f"{mask.shape[0]}x{mask.shape[1]}"
            raise UserError(f"must have the size of its image, {size[0]}x{size[1]} (height x width), was {said}", where=where)
        found |= mask.astype(np.uint8) << np.uint8(one.label)
    return found


def clipped(ring: Ring, size: tuple[int, int]) -> Ring:
    """The part of an outline that lies in an image of `size` (height, width); () where none does."""
    return _within(ring, ((0, 0.0, 1.0), (0, float(size[1]), -1.0), (1, 0.0, 1.0), (1, float(size[0]), -1.0)))


def _near(ring: Ring, size: tuple[int, int]) -> Ring:
    """A ring cut at a frame around the image where it reaches far beyond it: filling takes time and memory by its length in pixels."""
    most = float(max(size))
    if all(-8 * most <= value <= 8 * most for value in ring):
        return ring
    return _within(ring, ((0, -most, 1.0), (0, 2 * most, -1.0), (1, -most, 1.0), (1, 2 * most, -1.0)))


def _within(ring: Ring, limits: Sequence[tuple[int, float, float]]) -> Ring:
    """The part of a ring inside of limits: axis, place, and 1 for what lies beyond it, -1 for what lies before."""
    ring = tuple(max(-FAR, min(FAR, value)) for value in ring)
    points: list[Ring] = list(zip(ring[::2], ring[1::2], strict=False))
    for axis, limit, sign in limits:
        points = _cut(points, axis, limit, sign)
    return tuple(value for point in points for value in point)


def _cut(points: list[Ring], axis: int, limit: float, sign: float) -> list[Ring]:
    """The part of a polygon on one side of a line (Sutherland and Hodgman 1974)."""
    kept: list[Ring] = []
    for start, end in zip(points, points[1:] + points[:1], strict=True):
        inside = (start[axis] - limit) * sign >= 0
        if inside:
            kept.append(start)
        if inside != ((end[axis] - limit) * sign >= 0):
            share = (limit - start[axis]) / (end[axis] - start[axis])
            crossing = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
            crossing[axis] = limit
            kept.append(tuple(crossing))
    return kept
