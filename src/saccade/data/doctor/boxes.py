"""Boxes and outlines that cannot be right: no pixels are needed, but the images' sizes help."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from saccade.data.doctor.flat import Flags, Flat, Floats, Integers, neighbours
from saccade.data.findings import Finding

OVER = 1.0  # pixels that a box may reach over the edge: tools round, and some count pixels from 1
TINY = 1.0  # pixels of both sides of a box that nobody drew on purpose
SAME = 0.5  # pixels between the edges of what counts as the same box
STEPS = 64  # objects beside it, by their left edge, that one is compared with
FAR = 1e100  # pixels; coordinates beyond are taken for this, so that no product overflows
LONGEST = 2000  # points of a polygon that is looked at for crossings
_EDGES = ("left", "top", "right", "bottom")


def check(flat: Flat) -> Iterator[Finding]:
    """Every object's box, and its outlines one by one; an object is named once by the worst that is wrong with its box."""
    n = len(flat.objects)
    bounds = flat.rings.bounds(n)
    shaped = np.zeros(n, bool)
    shaped[flat.rings.owner] = True
    broken = (flat.stated & ~np.isfinite(flat.box).all(1)) | (shaped & _not_finite(flat))
    short = flat.rings.length < 3
    left_out = broken.copy()
    left_out[flat.rings.owner[short]] = True
    yield from (flat.finding("not-finite", i, "has a coordinate that is no finite number") for i in _each(broken))
    for ring in _each(short & ~broken[flat.rings.owner]):
        count = flat.rings.length[ring]
        yield flat.finding("short-polygon", int(flat.rings.owner[ring]), f"an outline of {count} points, at least 3 are needed")
    box = np.clip(np.where(flat.stated[:, None], flat.box, bounds), -FAR, FAR)
    whole = np.where(shaped[:, None] & flat.stated[:, None], _around(box, np.clip(bounds, -FAR, FAR)), box)
    inverted = ((box[:, 2] < box[:, 0]) | (box[:, 3] < box[:, 1])) & ~left_out
    empty = ((box[:, 2] == box[:, 0]) | (box[:, 3] == box[:, 1])) & ~left_out & ~inverted
    tiny = ((box[:, 2:] - box[:, :2]) <= TINY).all(1) & ~left_out & ~inverted & ~empty
    fine = ~left_out & ~inverted & ~empty & ~tiny
    yield from (flat.finding("inverted-box", i, f"{_written(box[i])} has its edges the wrong way round") for i in _each(inverted))
    yield from (flat.finding("empty-box", i, f"{_written(box[i])} has no area") for i in _each(empty))
    yield from (flat.finding("tiny-box", i, f"{_written(box[i])} is no larger than a pixel") for i in _each(tiny))
    yield from _edges(flat, box, whole, fine)
    yield from _duplicates(flat, box, fine)


def _not_finite(flat: Flat) -> Flags:
    """Objects with a point of an outline that is no finite number: bool `[N]`."""
    found = np.zeros(len(flat.objects), bool)
    bad = np.flatnonzero(~np.isfinite(flat.rings.points).all(1))
    found[flat.rings.owner[np.searchsorted(flat.rings.start, bad, side="right") - 1]] = True
    return found


def _each(chosen: Flags) -> list[int]:
    found: list[int] = np.flatnonzero(chosen).tolist()
    return found


def _around(box: Floats, other: Floats) -> Floats:
    """The box around both."""
    return np.concatenate([np.minimum(box[:, :2], other[:, :2]), np.maximum(box[:, 2:], other[:, 2:])], axis=1)


def _edges(flat: Flat, box: Floats, whole: Floats, fine: Flags) -> Iterator[Finding]:
    """Boxes outside of their image, and those that reach over its edge, of images whose size is known."""
    height, width = flat.size[:, 0], flat.size[:, 1]
    outside = fine & ((box[:, 0] >= width) | (box[:, 1] >= height) | (box[:, 2] <= 0) | (box[:, 3] <= 0))
    beyond = np.stack([-whole[:, 0], -whole[:, 1], whole[:, 2] - width, whole[:, 3] - height], axis=1)
    over = fine & ~outside & (beyond > OVER).any(1)
    for i in _each(outside):
        yield flat.finding("box-outside", i, f"{_written(box[i])} lies outside of the image ({_size(flat, i)})")
    for i in _each(over):
        edge = int(beyond[i].argmax())
        said = "its outline" if whole[i, edge] != box[i, edge] else _written(box[i])
        message = f"{said} reaches {beyond[i, edge]:.4g} px over the {_EDGES[edge]} edge of the image ({_size(flat, i)})"
        yield flat.finding("box-over-edge", i, message)


def _duplicates(flat: Flat, box: Floats, fine: Flags) -> Iterator[Finding]:
    """Objects of the same class, box and shape as an earlier one of the same image."""
    kept = np.flatnonzero(fine & np.isfinite(box).all(1))
    group = flat.item[kept] * (int(flat.label.max(initial=0)) + 1) + flat.label[kept]
    first: dict[int, int] = {}
    for i, j in neighbours(group, box[kept, 0], box[kept, 0] + SAME, STEPS):
        same = (np.abs(box[kept[i]] - box[kept[j]]) <= SAME).all(1)
        for a, b in zip(kept[i[same]].tolist(), kept[j[same]].tolist(), strict=True):
            one, other = min(a, b), max(a, b)
            if flat.objects[one].shape == flat.objects[other].shape and flat.objects[one].crowd == flat.objects[other].crowd:
                first[other] = min(one, first.get(other, one))
    for index in sorted(first):
        place = int(flat.place[first[index]])
        yield flat.finding("duplicate-object", index, f"{_written(box[index])} stands there already, as object {place + 1}")


def crossings(flat: Flat) -> Iterator[Finding]:
    """Polygons whose edges cross, one finding an object; edges that only touch or lie on each other do not count."""
    rings = flat.rings
    chosen = (rings.length >= 4) & (rings.length <= LONGEST)
    starts, ends, of = _segments(flat, chosen)
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    crossing: set[int] = set()
    for i, j in neighbours(of, low[:, 0], high[:, 0], LONGEST):
        near = (low[i, 1] <= high[j, 1]) & (low[j, 1] <= high[i, 1])
        i, j = i[near], j[near]
        met = _cross(starts[i], ends[i], starts[j], ends[j])
        crossing.update(rings.owner[of[i[met]]].tolist())
    yield from (flat.finding("crossing-polygon", index, "its outline crosses itself") for index in sorted(crossing))


def _segments(flat: Flat, chosen: Flags) -> tuple[Floats, Floats, Integers]:
    """Edges of the chosen rings: start and end `[E, 2]`, ring `[E]`."""
    rings = flat.rings
    of = np.repeat(np.arange(len(rings.length)), rings.length)
    after = np.arange(len(of)) + 1
    last = rings.start[1:][rings.length > 0] - 1
    after[last] = rings.start[:-1][rings.length > 0]
    kept = chosen[of] & np.isfinite(rings.points).all(1)
    kept &= kept[after]
    points = np.clip(rings.points, -FAR, FAR)
    return points[kept], points[after[kept]], of[kept]


def _cross(a: Floats, b: Floats, c: Floats, d: Floats) -> Flags:
    """Whether the segments ab and cd cross in their inside: each has its ends clearly on both sides of the other."""
    return (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)


def _side(a: Floats, b: Floats, p: Floats) -> Floats:
    """On which side of the line ab p lies, -1, 0 or 1; 0 too where rounding could say either."""
    one, other = (b[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1]), (b[:, 1] - a[:, 1]) * (p[:, 0] - a[:, 0])
    found = one - other
    return np.where(np.abs(found) > 1e-9 * (np.abs(one) + np.abs(other)), np.sign(found), 0.0)


def _written(box: Floats) -> str:
    return "a box from (" + ", ".join(f"{v:.6g}" for v in box[:2]) + ") to (" + ", ".join(f"{v:.6g}" for v in box[2:]) + ")"


def _size(flat: Flat, index: int) -> str:
    return f"height {flat.size[index, 0]:.0f}, width {flat.size[index, 1]:.0f}"
