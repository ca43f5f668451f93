"""What the looks at all images amount to: sizes that differ, kinds that mix, pictures that stand there twice, masks that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from saccade.core import masks, run_lengths
from saccade.core.errors import UserError
from saccade.core.panoptic import VOID
from saccade.core.progress import Progress
from saccade.core.run_lengths import Rle
from saccade.data import shapes
from saccade.data.annotations import Annotations, Item, Picture
from saccade.data.doctor import likeness
from saccade.data.doctor.classes import named
from saccade.data.doctor.flat import Size, of_item, of_object
from saccade.data.doctor.headers import has_masks, unequal
from saccade.data.doctor.look import Look
from saccade.data.findings import Finding


def check(annotations: Annotations, looks: Sequence[Look]) -> Iterator[Finding]:
    """Findings on images; masks are another matter."""
    for item, look in zip(annotations.items, looks, strict=True):
        yield from look.findings
        yield from _size(item, look)
        if look.pixels and look.pixels.blank:
            yield of_item("blank-image", item, "all its pixels have the same colour")
    yield from _of_the_set(annotations, looks)
    same = likeness.exact(annotations, looks)
    yield from (_twins(annotations, group) for group in same)
    yield from (_resembling(annotations, group) for group in likeness.near(looks, same))
    for index in likeness.unlike(looks):
        yield of_item("unlike-others", annotations.items[index], "its colours and their places are unlike those of all other images")


def _size(item: Item, look: Look) -> Iterator[Finding]:
    if item.size is None or look.size is None or look.lying is None or item.size == look.size:
        return
    stated, true = (f"{size[0]}x{size[1]}" for size in (item.size, look.size))
    if look.turned and item.size == look.lying:
        yield of_item("stated-size-unturned", item, f"stated as {stated} (height x width), but EXIF turns it to {true}")
    else:
        yield of_item("stated-size", item, f"stated as {stated} (height x width), but is {true}")


def _of_the_set(annotations: Annotations, looks: Sequence[Look]) -> Iterator[Finding]:
    """One finding each on images that EXIF turns, and on kinds of pixels."""
    turned = [item for item, look in zip(annotations.items, looks, strict=True) if look.turned]
    if turned:
        yield of_item("turned-image", turned[0], f"EXIF data turn {len(turned):,} of {len(looks):,} images, this is the first")
    kinds = Counter(look.kind for look in looks if look.kind)
    if len(kinds) > 1:
        rarest = kinds.most_common()[-1][0]
        item = next(item for item, look in zip(annotations.items, looks, strict=True) if look.kind == rarest)
        counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        yield of_item("mixed-modes", item, f"images are of several kinds: {counts}; this is the first of the rarest")


def _twins(annotations: Annotations, group: Sequence[int]) -> Finding:
    """Exactly the same pixels: of different labels, in several splits, or simply twice."""
    items = [annotations.items[index] for index in group]
    other = next((item for item in items if _said(item) != _said(items[0])), None)
    if other is not None:
        said = " and ".join(_words(annotations, item) for item in (other, items[0]))
        return of_item("conflicting-labels", other, f"has the pixels of {items[0].path}, but other labels: {said}{_further(items)}")
    leaked = next((item for item in items if item.split != items[0].split), None)
    if leaked is not None:
        return of_item("leak", leaked, f"has the pixels of {items[0].path}, which is in {_split(items[0])}{_further(items)}")
    return of_item("duplicate-image", items[1], f"has the pixels of {items[0].path}{_further(items)}")


def _resembling(annotations: Annotations, group: Sequence[int]) -> Finding:
    items = [annotations.items[index] for index in group]
    leaked = next((item for item in items if item.split != items[0].split), None)
    if leaked is not None:
        return of_item("leak", leaked, f"nearly shows what {items[0].path} does, which is in {_split(items[0])}{_further(items)}")
    return of_item("near-duplicate", items[1], f"nearly shows what {items[0].path} does{_further(items)}")


def _further(items: Sequence[Item]) -> str:
    return f"; with {len(items) - 2:,} more" if len(items) > 2 else ""


def _split(item: Item) -> str:
    return item.split or "no split"


def _said(item: Item) -> tuple[int, ...]:
    """The labels of an image, of all its objects too; where they lie does not count: two people never draw the same box."""
    return tuple(sorted([*item.labels, *(one.label for one in item.objects)]))


def _words(annotations: Annotations, item: Item) -> str:
    counts = Counter(_said(item))
    return ", ".join(f"{annotations.classes[label]}{f' x{n}' if n > 1 else ''}" for label, n in counts.most_common(3)) or "none"


# Masks


def check_masks(annotations: Annotations, sizes: Sequence[Size | None], progress: Progress, workers: int) -> Iterator[Finding]:
    """Findings on masks of classes and of objects, each image's in turn, and on classes of which no mask has a pixel."""
    pairs = [pair for pair in zip(annotations.items, sizes, strict=True) if has_masks(pair[0])]
    if not pairs:
        return
    progress.start("looking at masks", len(pairs), "images")
    seen: set[int] = set()
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda pair: list(_masks(annotations, pair[0], pair[1], seen)), pairs):
            progress.advance()
            yield from found
    progress.finish()
    unused = np.array([label for label in range(len(annotations.classes)) if label not in seen], np.int64)
    if seen and len(unused):
        said = f"{len(unused)} of {len(annotations.classes)} classes have no pixel in any mask: {named(annotations, unused)}"
        yield Finding("unused-class", annotations.opened.name or annotations.format, said)


def _masks(annotations: Annotations, item: Item, size: Size | None, seen: set[int]) -> Iterator[Finding]:
    """seen: takes up the classes that have pixels."""
    if item.mask:
        yield from _classes(annotations, item, size, seen)
    read: dict[str, masks.Values | str] = {}  # several objects often lie in one picture
    for place, one in enumerate(item.objects):
        found = None
        if isinstance(one.shape, Rle):
            found = _runs(one.shape, size)
        elif isinstance(one.shape, Picture):
            if one.shape.path not in read:
                read[one.shape.path] = _read(annotations, one.shape.path, colours=one.shape.colours)
            found = _picture(one.shape, read[one.shape.path], size)
        if found:
            yield of_object(found[0], item, one, place, found[1])
    if annotations.task == "panoptic":
        yield from _segments(item, read)


def _segments(item: Item, read: Mapping[str, masks.Values | str]) -> Iterator[Finding]:
    """Pixels of ids that no segment of the image has."""
    known = {VOID, *(one.shape.value for one in item.objects if isinstance(one.shape, Picture))}
    for path, values in read.items():
        found, counts = np.unique(values, return_counts=True) if not isinstance(values, str) else ((), ())
        strange = {value: count for value, count in zip(np.asarray(found).tolist(), counts) if value not in known}
        if strange:
            named = ", ".join(f"#{value:06x}" for value in list(strange)[:5])
            yield Finding("mask-value", path, f"{sum(strange.values()):,} pixels are of no segment that is listed: {named}")


def _classes(annotations: Annotations, item: Item, size: Size | None, seen: set[int]) -> Iterator[Finding]:
    """The mask of an image: that it is there, fits, and holds classes that there are, which `seen` takes up."""
    legend = annotations.legend
    values = _read(annotations, item.mask, colours=legend.colours)
    if isinstance(values, str):
        yield Finding("missing-mask", item.mask, values)
        return
    if size and values.shape != size:
        yield Finding("mask-size", item.mask, unequal(values.shape, size))
        return
    found, counts = np.unique(values, return_counts=True)
    present = dict(zip(found.tolist(), counts.tolist(), strict=True))
    seen.update(legend.values[value] for value in present.keys() & legend.values.keys())
    strange = legend.unnamed(present)
    if strange and legend.values:
        message = f"{sum(present[value] for value in strange):,} pixels have values that stand for no class: {legend.written(strange)}"
        yield Finding("mask-value", item.mask, message)
    elif not present.keys() - legend.ignored:
        yield Finding("empty-mask", item.mask, "all its pixels are ignored")


def _read(annotations: Annotations, path: str, *, colours: bool) -> masks.Values | str:
    """The values of a mask picture, or why there are none."""
    try:
        if annotations.tree.find(path) is None:
            return "the mask is not there"
        return masks.read(annotations.tree.image(path), colours=colours)
    except UserError as error:
        return f"the mask cannot be read: {error.message}"


def _runs(shape: Rle, size: Size | None) -> tuple[str, str] | None:
    if size and shape.size != size:
        return "mask-size", unequal(shape.size, size)
    return None if run_lengths.covered(shape) else ("empty-mask", "the mask has no pixels")


def _picture(shape: Picture, values: masks.Values | str, size: Size | None) -> tuple[str, str] | None:
    if isinstance(values, str):
        return "missing-mask", f"{shape.path}: {values}"
    if size and values.shape != size:
        return "mask-size", f"{shape.path}: {unequal(values.shape, size)}"
    return None if shapes.marked(shape, values).any() else ("empty-mask", f"{shape.path}: the mask has no pixels")
