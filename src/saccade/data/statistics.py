"""A set in figures: sizes, colours, classes, objects, and what stands beside what; as JSON values, and as one page of plots."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import files, images
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.data import shapes
from saccade.data.annotations import Annotations, Item

Numbers = NDArray[np.float64]
COLOUR_FROM = 2000  # images, spread evenly, whose pixels are looked at
SIDE = 64  # pixels they are reduced to where that saves time
TOGETHER = 40  # classes of the table of what stands beside what, the most frequent ones
COMMON = 12  # sizes that are named
BINS = 24
SMALL, MEDIUM = 32.0**2, 96.0**2  # pixels of area: COCO's bounds of small, medium and large objects


def measure(annotations: Annotations, out: Path | None, progress: Progress, workers: int = 2) -> dict[str, Any]:
    """Look at every image's header and every label, and at the pixels of COLOUR_FROM images.

    `out`: an HTML file to write the plots to. Returns JSON values: what `_facts` gathers. Raises UserError where `out` cannot be written.
    """
    items = annotations.items
    progress.start("measuring", len(items), "images")
    with ThreadPoolExecutor(workers) as pool:
        sizes = [_advanced(size, progress) for size in pool.map(lambda item: _size(item, annotations), items, chunksize=64)]
        chosen: list[int] = np.unique(np.linspace(0, len(items) - 1, COLOUR_FROM).astype(int)).tolist() if items else []
        colours = [row for row in pool.map(lambda i: _colour(items[i], annotations), chosen) if row is not None]
    progress.finish()
    facts = _facts(annotations, sizes, np.array(colours, np.float64).reshape(-1, 6))
    if out is None:
        return facts
    page = _asset("statistics.html").replace("/*FACTS*/", json.dumps(facts, ensure_ascii=True, allow_nan=False).replace("</", "<\\/"))
    files.write_bytes(out, page.encode("utf-8", "backslashreplace"))
    return {**facts, "page": str(out)}


def _advanced(size: tuple[int, int] | None, progress: Progress) -> tuple[int, int] | None:
    progress.advance()
    return size


def _asset(name: str) -> str:
    from importlib import resources

    return resources.files("saccade.data").joinpath("pages").joinpath(name).read_text("utf-8")


def _size(item: Item, annotations: Annotations) -> tuple[int, int] | None:
    try:
        return images.probe(annotations.tree.image(item.path)).size
    except UserError:
        return None


def _colour(item: Item, annotations: Annotations) -> Numbers | None:
    """Mean and mean square of red, green and blue, 0..1: float64 `[6]`."""
    try:
        pixels = images.shown(annotations.tree.image(item.path), covering=(SIDE, SIDE)).pixels.reshape(-1, 3) / 255
    except UserError:
        return None
    found: Numbers = np.concatenate([pixels.mean(0), np.square(pixels).mean(0)])
    return found


def _facts(annotations: Annotations, sizes: Sequence[tuple[int, int] | None], colours: Numbers) -> dict[str, Any]:
    known = np.array([size for size in sizes if size], np.float64).reshape(-1, 2)
    mean = colours[:, :3].mean(0) if len(colours) else np.zeros(3)
    deviation = np.sqrt(np.maximum(colours[:, 3:].mean(0) - mean**2, 0)) if len(colours) else np.zeros(3)
    common = Counter(size for size in sizes if size).most_common(COMMON)
    return {
        "name": annotations.opened.name.encode("utf-8", "backslashreplace").decode(),
        "format": annotations.format,
        "task": annotations.task,
        "images": len(annotations.items),
        "unreadable": sum(size is None for size in sizes),
        "bytes": sum(item.image.bytes for item in annotations.items),
        "splits": dict(Counter(item.split or "none" for item in annotations.items)),
        "sizes": {
            "height": _spread(known[:, 0]),
            "width": _spread(known[:, 1]),
            "aspect": _spread(known[:, 1] / known[:, 0]),
            "common": [{"size": f"{height}x{width}", "images": count} for (height, width), count in common],
        },
        "colour": {"images": len(colours), "mean": _rounded(mean), "deviation": _rounded(deviation)},
        "classes": _classes(annotations),
        "objects": _objects(annotations, sizes),
        "together": _together(annotations),
    }


def _rounded(values: Numbers) -> list[float]:
    found: list[float] = np.round(values, 4).tolist()
    return found


def _spread(values: Numbers) -> dict[str, Any]:
    """Least, quartiles, most, and a histogram: counts between `edges`."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"quantiles": [], "counts": [], "edges": []}
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, min(BINS, max(1, len(np.unique(values)))), (low, high if high > low else low + 1))
    return {"quantiles": _rounded(np.quantile(values, [0, 0.25, 0.5, 0.75, 1])), "counts": counts.tolist(), "edges": _rounded(edges)}


def _labels(item: Item) -> list[int]:
    return [*item.labels, *(one.label for one in item.objects)]


def _classes(annotations: Annotations) -> list[dict[str, Any]]:
    """By class: images that hold it, overall and by split, and objects of it."""
    objects = Counter(one.label for item in annotations.items for one in item.objects)
    images_of = Counter(label for item in annotations.items for label in set(_labels(item)))
    by_split = Counter((label, item.split or "none") for item in annotations.items for label in set(_labels(item)))
    splits = sorted({item.split or "none" for item in annotations.items})
    rows = []
    for label, name in enumerate(annotations.classes):
        row = {"class": name.encode("utf-8", "backslashreplace").decode(), "images": images_of[label]}
        rows.append({**row, "objects": objects[label], "splits": {split: by_split[label, split] for split in splits}})
    return rows


def _objects(annotations: Annotations, sizes: Sequence[tuple[int, int] | None]) -> dict[str, Any]:
    """How many an image, how large (the root of the box's area, in pixels and as a share of the image's), of what aspect."""
    boxes, of = [], []
    for item, size in zip(annotations.items, sizes, strict=True):
        if size:
            boxes += [shapes.box(one, size, annotations.tree) for one in item.objects]
            of += [size[0] * size[1]] * len(item.objects)
    found = np.array(boxes, np.float64).reshape(-1, 4)
    wide, tall = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    good = (wide > 0) & (tall > 0)
    area = wide[good] * tall[good]
    return {
        "count": sum(len(item.objects) for item in annotations.items),
        "by_image": _spread(np.array([len(item.objects) for item in annotations.items], np.float64)),
        "side": _spread(np.sqrt(area)),
        "share": _spread(np.sqrt(area / np.array(of, np.float64)[good])),
        "aspect": _spread(wide[good] / tall[good]),
        "small": int((area < SMALL).sum()),
        "medium": int(((area >= SMALL) & (area < MEDIUM)).sum()),
        "large": int((area >= MEDIUM).sum()),
    }


def _together(annotations: Annotations) -> dict[str, Any]:
    """In how many images two classes stand beside each other, for the TOGETHER most frequent ones: counts `[K][K]`."""
    said = [sorted(set(_labels(item))) for item in annotations.items]
    if not any(len(labels) > 1 for labels in said):
        return {"classes": [], "counts": []}
    kept = [label for label, _ in Counter(label for labels in said for label in labels).most_common(TOGETHER)]
    place = {label: i for i, label in enumerate(kept)}
    counts = np.zeros((len(kept), len(kept)), np.int64)
    for labels in said:
        here = [place[label] for label in labels if label in place]
        counts[np.ix_(here, here)] += 1
    return {"classes": [annotations.classes[label] for label in kept], "counts": counts.tolist()}
