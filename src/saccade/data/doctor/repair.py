"""Repairs of what `findings.KINDS` names one for. Nothing is changed on the disk: what comes out is written as a new set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from saccade.core import images, masks
from saccade.core.errors import UserError
from saccade.data import shapes
from saccade.data.annotations import Annotations, Box, Item, Object
from saccade.data.doctor import boxes
from saccade.data.doctor.flat import Flat, Size
from saccade.data.findings import KINDS, Finding

ROUNDS = 4  # a repair may bring another fault about: a box cut at the edge may be of no area
_DROPPED = frozenset(("not-finite", "box-outside", "empty-box", "tiny-box", "duplicate-object", "missing-mask", "mask-size"))
_IMAGE_DROPPED = frozenset(("unreadable-image", "too-large-image", "missing-mask", "mask-size"))
_CUT = frozenset(("box-over-edge", "inverted-box"))
Place = tuple[str, int, int | None]  # path, line, object: what a finding says of where it is


def fix(annotations: Annotations, findings: Iterable[Finding]) -> tuple[Annotations, dict[str, int]]:
    """The set with all repaired that can be, and how many findings of each code that were.

    What the reader left out stays out, and is counted as repaired.
    """
    wanted = [found for found in findings if _can_be(found)]
    counts = Counter(found.code for found in wanted)
    annotations = _classes(_images(annotations, wanted), wanted)
    for _ in range(ROUNDS):
        by_place: dict[Place, set[str]] = {}
        for found in wanted:
            by_place.setdefault((found.path, found.line, found.object), set()).add(found.code)
        items = tuple(_objects(item, by_place, annotations) for item in annotations.items)
        annotations = replace(annotations, items=items)
        wanted = [found for found in boxes.check(Flat(annotations)) if KINDS[found.code].repair]
        if not wanted:
            break
    left = tuple(found for found in annotations.problems if not KINDS[found.code].repair)
    return replace(annotations, problems=left), dict(counts)


def _can_be(found: Finding) -> bool:
    """Whether a finding has a repair; a mask of classes that is all ignored has none."""
    return bool(KINDS[found.code].repair) and (found.code != "empty-mask" or found.object is not None)


def _images(annotations: Annotations, wanted: Sequence[Finding]) -> Annotations:
    """Without images that cannot be used, each in one split, of their true size."""
    gone = {(found.path, found.line) for found in wanted if found.object is None and found.code in _IMAGE_DROPPED}
    sizes = {(found.path, found.line) for found in wanted if found.code == "stated-size"}
    seen: set[str] = set()
    items = []
    for item in annotations.items:
        place = _place(item)
        if place in gone or (item.mask, 0) in gone or item.path in seen:
            continue
        seen.add(item.path)
        items.append(replace(item, size=_size(annotations, item)) if place in sizes else item)
    return replace(annotations, items=tuple(items))


def _place(item: Item) -> tuple[str, int]:
    return (item.where, item.line) if item.line else (item.path, 0)


def _size(annotations: Annotations, item: Item) -> Size | None:
    try:
        return images.probe(annotations.tree.image(item.path)).size
    except UserError:
        return item.size


def _classes(annotations: Annotations, wanted: Sequence[Finding]) -> Annotations:
    """Ids that start at 1 shifted; values of masks that stand for no class ignored."""
    strange = {found.path for found in wanted if found.code == "mask-value"}
    if strange:
        legend = annotations.legend
        values = {int(value) for path in strange for value in set(_values(annotations, path)) - legend.values.keys()}
        annotations = replace(annotations, legend=replace(legend, ignored=legend.ignored | values))
    if not any(found.code == "ids-from-one" for found in wanted):
        return annotations
    items = [
        replace(
            item,
            labels=tuple(max(0, label - 1) for label in item.labels),
            objects=tuple(replace(one, label=max(0, one.label - 1)) for one in item.objects),
        )
        for item in annotations.items
    ]
    return replace(annotations, items=tuple(items))


def _values(annotations: Annotations, path: str) -> list[int]:
    values: list[int] = masks.read(annotations.tree.image(path), colours=annotations.legend.colours).reshape(-1).tolist()
    return values


def _objects(item: Item, by_place: dict[Place, set[str]], annotations: Annotations) -> Item:
    """The image with its objects repaired, and its true size where boxes are cut at it."""
    codes = [by_place.get((item.where, one.line, place) if one.line else (item.path, 0, place)) for place, one in enumerate(item.objects)]
    if not any(codes):
        return item
    size = _size(annotations, item)
    repaired = [
        _object(one, found, size, annotations.task == "instances") if found else one for one, found in zip(item.objects, codes, strict=True)
    ]
    return replace(item, objects=tuple(one for one in repaired if one), size=size)


def _object(one: Object, codes: set[str], size: Size | None, needs_shape: bool) -> Object | None:
    """One object, None where it is left out. Crossing outlines stay as they are."""
    if codes & _DROPPED or "empty-mask" in codes:
        return None
    shape = one.shape
    if isinstance(shape, tuple):
        if codes & _CUT and size:
            shape = tuple(shapes.clipped(ring, size) for ring in shape)
        shape = tuple(ring for ring in shape if len(ring) >= 6) or None
    if shape is None and (one.box is None or (needs_shape and one.shape is not None)):
        return None
    return replace(one, box=_box(one.box, size) if one.box and codes & _CUT else one.box, shape=shape)


def _box(box: Box, size: Size | None) -> Box:
    """With its edges in order, cut at the image's."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    if size is None:
        return left, top, right, bottom
    height, width = size
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
