"""From one format to another, with a count of what the other cannot say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.data import formats, shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.opening import open_annotations
from saccade.data.writing import Output, new_folder


def convert(
    source: str | Path, out: str | Path, *, to: str, task: str | None = None, format: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Read a set and write it as another format into a new folder `out`; `task` and `format` where those found are not meant.

    Returns `{"path", "format", "task", "written": {"images", "objects", "classes"}, "lost": [{"what", "count"}]}`.
    Raises UserError where the set cannot be read, or holds nothing that the format could.
    """
    formats.find(to)
    return write(open_annotations(source, task=task, format=format), Path(out), to, progress)


def write(annotations: Annotations, out: Path, to: str, progress: Progress | None = None) -> dict[str, Any]:
    """Write a set as a format into a new folder `out`; returns and raises as `convert` does."""
    writer = formats.find(to)
    lost = Counter({"annotations that cannot be right (data check names them)": len(annotations.problems)})
    annotations, reduced = _for_task(annotations, to, tuple(writer.TASKS))
    lost.update(reduced)
    painted = annotations.task == "segment" and not annotations.multi  # objects are what pixels are named by, and nothing else
    for item in annotations.items:
        lost.update(_lost(replace(item, objects=()) if painted else item, writer.HOLDS))
    if progress:
        progress.start(f"writing {to}", len(annotations.items), "images")
    with new_folder(out) as folder:
        writer.write(annotations, Output(folder, annotations, progress))
    if progress:
        progress.finish()
    objects = sum(len(item.objects) for item in annotations.items)
    written = {"images": len(annotations.items), "objects": objects, "classes": len(annotations.classes)}
    rows = [{"what": what, "count": count} for what, count in sorted(lost.items()) if count]
    return {"path": str(out), "format": to, "task": annotations.task, "written": written, "lost": rows}


def _for_task(annotations: Annotations, to: str, tasks: tuple[str, ...]) -> tuple[Annotations, dict[str, int]]:
    """The set for a task that the format knows: outlines can become boxes, nothing else can become anything; and what that loses."""
    if annotations.task == "segment" and annotations.multi and to != "layers":
        raise UserError(f"{to} holds one class for each pixel, and these overlap", where="--to", fix="layers")
    if annotations.task in tasks:
        return annotations, {}
    if annotations.task == "instances" and "detect" in tasks:
        items = tuple(
            replace(item, objects=tuple(shapes.boxed(one, (0, 0), annotations.tree) for one in item.objects)) for item in annotations.items
        )
        shaped = sum(one.shape is not None for item in annotations.items for one in item.objects)
        return replace(annotations, task="detect", items=items), {"outlines and masks of objects": shaped}
    able = [name for name in formats.NAMES if annotations.task in formats.find(name).TASKS]
    raise UserError(f"{to} holds sets for {' and '.join(tasks)}, this one is for {annotations.task}", where="--to", fix=", ".join(able))


def _lost(item: Item, holds: frozenset[str]) -> Iterator[str]:
    """What of an image a format that holds no more than this cannot say, a line for each time."""
    if item.split not in ("", "train") and "splits" not in holds:
        yield "splits of images"
    if len(item.labels) > 1 and "several labels" not in holds:
        yield "further labels of an image"
    if not (item.labels or item.objects or item.mask) and "labels" in holds and "several labels" not in holds:
        yield "images without a label"
    if item.pair and "pairs" not in holds:
        yield "what an image becomes"
    for one in item.objects:
        if one.crowd and "crowd" not in holds:
            yield "marks of a crowd"
        if one.difficult and "difficult" not in holds:
            yield "marks of a difficult object"
        if one.shape is not None and "masks" not in holds:
            yield from _lost_shape(one, holds)


def _lost_shape(one: Object, holds: frozenset[str]) -> Iterator[str]:
    if "polygons" not in holds:
        yield "outlines and masks of objects"
    elif not isinstance(one.shape, tuple):
        yield "masks of objects, which become outlines: pixels at their edges and holes"
    elif len(one.shape) > 1 and "pieces" not in holds:
        yield "further pieces of an object"
