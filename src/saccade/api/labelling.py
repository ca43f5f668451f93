"""Answers as a labelled set, in a format that trainers and tools for labelling read: to be looked at, corrected and learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from saccade.core import encoding, images
from saccade.core.card import Card
from saccade.core.results import Detections, Instances
from saccade.data import converting
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.tree import File, HeldTree

FORMATS = ("coco", "yolo", "voc")


def write(answers: Sequence[tuple[Any, Detections]], card: Card, out: Path, format: str, max_pixels: int) -> list[str]:
    """Images, as `core.images.read` takes them, with what was found in them, as a set in the new folder `out`. Files keep their bytes, and
    their names where no other has it; all else is written as PNG. Returns what the format cannot hold, a line each."""
    held: dict[str, str | bytes] = {}
    items = []
    for number, (content, answer) in enumerate(answers):
        name = PurePath(answer.source).name
        if isinstance(content, str | PurePath):
            path = f"{number}/{name}"
            held[path] = str(content)
        else:
            path = f"{number}/{PurePath(name).stem}.png"
            held[path] = encoding.png(images.read(content, max_pixels=max_pixels).pixels)
        items.append(Item(File(path, 0, 0), objects=_objects(answer), size=answer.size))
    told = converting.write(Annotations("answers", card.task, card.classes, tuple(items), HeldTree("answers", held)), out, format)
    return [f"{format} does not hold {row['what']}: {row['count']:,} left out" for row in told["lost"]]


def _objects(answer: Detections) -> tuple[Object, ...]:
    shapes = answer.masks if isinstance(answer, Instances) else (None,) * len(answer)
    rows = zip(answer.labels.tolist(), answer.boxes.tolist(), shapes, strict=True)
    return tuple(Object(label, (box[0], box[1], box[2], box[3]), shape) for label, box, shape in rows)
