"""Answers as a labelled set, in a format that trainers and tools for labelling read: to be looked at, corrected and learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from saccade.core import class_masks, encoding, images, results
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.layers import layered
from saccade.core.panoptic import Panoptic
from saccade.core.results import WITHIN, Detections, Instances
from saccade.core.segmentation import Segmentation
from saccade.data import converting
from saccade.data.annotations import Annotations, Item, Legend, Object
from saccade.data.tree import File, HeldTree

OBJECTS = ("coco", "yolo", "voc")  # a region of a class is an object there, of things and stuff a thing
FORMATS = (*OBJECTS, "masks")


def check(card: Card, format: str) -> None:
    """Raise UserError where a model's answers are no labels of a format."""
    task = card.task
    if format == "masks" and layered(card):
        raise UserError("holds one class for each pixel, and this model's overlap", where=f"--format {format}", fix="--format coco")
    if task not in WITHIN or (format == "masks" and task in results.OBJECTS):
        within = f"labels are for what is found in images, this model is for {task}"
        raise UserError("objects are no classes of pixels" if task in WITHIN else within, where=f"--format {format}")


def write(
    answers: Sequence[tuple[Any, Detections | Segmentation | Panoptic]], card: Card, out: Path, format: str, max_pixels: int
) -> list[str]:
    """Images, as `core.images.read` takes them, with what was found in them, as a set in the new folder `out`. Files keep their bytes, and
    their names where no other has it; all else is written as PNG. "coco" of things and stuff is COCO's panoptic format. Returns what the
    format cannot hold, a line each."""
    held: dict[str, str | bytes] = {}
    items = []
    for number, (content, answer) in enumerate(answers):
        name = PurePath(answer.source).name
        if isinstance(content, str | PurePath):
            path = f"{number}/{name}"
            held[path] = str(content)
        else:
            path = f"{number}/{PurePath(name).stem}.png"
            held[path] = encoding.png(images.shown(content, max_pixels=max_pixels).pixels)
        answer = answer.to_segmentation() if isinstance(answer, Panoptic) and format == "masks" else answer
        if isinstance(answer, Segmentation) and format == "masks":
            held[f"{path}: mask"] = class_masks.png(answer.mask)
            items.append(Item(File(path, 0, 0), mask=f"{path}: mask", size=answer.size))
            continue
        items.append(Item(File(path, 0, 0), objects=_objects(_found(answer, stuff=format == "coco")), size=answer.size))
    task, format = _as(card.task, format)
    legend = Legend({label: label for label in range(len(card.classes))})
    told = converting.write(
        Annotations("answers", task, card.classes, tuple(items), HeldTree("answers", held), legend=legend, ids=card.ids, stuff=card.stuff),
        out,
        format,
    )
    lost = [(row["what"], row["count"]) for row in told["lost"]]
    if task == "instances":
        regions = sum(not one.thing for _, answer in answers if isinstance(answer, Panoptic) for one in answer.segments)
        lost += [("regions of stuff", regions)] if regions else []
    return [f"{format} does not hold {what}: {count:,} left out" for what, count in lost]


def _as(task: str, format: str) -> tuple[str, str]:
    """For which task a set of a model's answers is written in a format, and that format's own name."""
    if task == "panoptic" and format == "coco":
        return task, "coco_panoptic"
    if task in ("segment", "panoptic"):
        return ("segment" if format == "masks" else "instances"), format
    return task, format


def _found(answer: Detections | Segmentation | Panoptic, *, stuff: bool) -> Detections:
    """What was told as objects; stuff: of a panoptic answer all segments are."""
    if isinstance(answer, Panoptic):
        return answer.to_instances(stuff=stuff)
    return answer.to_instances() if isinstance(answer, Segmentation) else answer


def _objects(answer: Detections) -> tuple[Object, ...]:
    shapes = answer.masks if isinstance(answer, Instances) else (None,) * len(answer)
    rows = zip(answer.labels.tolist(), answer.boxes.tolist(), shapes, answer.scores.tolist(), strict=True)
    return tuple(Object(label, (box[0], box[1], box[2], box[3]), shape, score=score) for label, box, shape, score in rows)
