"""COCO's panoptic format: JSON with the segments of each image, and a PNG whose pixels are their ids, red + 256 green + 65536 blue, 0
where there is none (https://cocodataset.org/#format-data, "Panoptic Segmentation").

Read from `annotations/panoptic_SPLIT.json` with its PNGs in the folder of that name, or any JSON near the root with theirs in a folder
beside it. Categories that are no things (`isthing` 0) are stuff.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.core.panoptic import MOST, Panoptic, Segment
from saccade.data import reading, records, shapes
from saccade.data.annotations import Annotations, Item, Object, Picture
from saccade.data.formats import coco
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output, by_split

TASKS = ("panoptic",)
HOLDS = frozenset({"boxes", "polygons", "masks", "crowd", "splits"})
SPREAD = 0x5F356D  # odd: the multiples of it modulo MOST are all different, and neighbours are of colours that people can tell apart
_EXPECTED = "expected annotations/panoptic_*.json with segments_info, and a folder of PNGs named as each"


def fits(tree: Tree) -> tuple[str, ...]:
    """Panoptic; things alone are instances, and the classes of all segments those of pixels."""
    return ("panoptic", "instances", "segment") if next(coco.sources(tree, panoptic=True), None) else ()


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no JSON of the kind is there, or one is no strict JSON."""
    with reading.undisturbed():
        found = list(coco.sources(tree, panoptic=True))
        reader = _Reader(tree, task, Pictures(tree, apart=[stem(path) for path, _ in found]), every=Pictures(tree))
        for path, data in found:
            reader.take(path, parse_json(data, where=f"{tree.root}: {path}"))
    if not reader.sources:
        raise UserError("holds no panoptic annotations of COCO's", where=str(tree.root), fix=_EXPECTED)
    return reader.annotations()


@dataclass
class _Reader(coco.Reader):
    """every: all pictures, masks among them; things: names of the classes that some category says can be counted; told: paths of the
    images whose segments were taken."""

    every: Pictures = field(kw_only=True)
    things: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    def _take_categories(self, path: str, rows: list[Any], annotations: list[Any]) -> dict[int | str, int]:
        segments = [one for row in annotations if isinstance(row, dict) for one in _listed(row.get("segments_info"))]
        labels = super()._take_categories(path, rows, segments)
        for row in rows:
            with suppress(Fault):  # said of the category
                if isinstance(row, dict) and row.get("isthing", 1):
                    self.things.add(reading.name(row.get("name")))
        return labels

    def _take_annotation(self, row: Any, path: str, known: Mapping[int | str, coco.Image | None], labels: Mapping[int | str, int]) -> None:
        image = self._image_of(row, known)
        if image is None:
            return  # said of the image
        name, segments = row.get("file_name"), row.get("segments_info")
        if not isinstance(name, str) or not isinstance(segments, list):
            raise Fault("bad-annotation", "must have a file_name and segments_info, a list")
        mask = self.every.find(name, [stem(path), posixpath.dirname(path)], split_of(path))
        if mask is None or mask.path == image.item.path:
            raise Fault("missing-mask", f"{reading.shown(name)} is not there")
        if image.item.path in self.told:
            raise Fault("duplicate-id", f"the segments of {reading.shown(image.item.path)} stand twice")
        self.told.add(image.item.path)
        seen: set[int] = set()
        for one in segments:
            try:
                found = _segment(one, labels, mask.path, seen)
            except Fault as fault:
                self.problems.append(fault.at(path, what=f"a segment of {reading.shown(name)}"))
            else:
                image.objects.append(found)

    def annotations(self) -> Annotations:
        """What was read, for the task that was asked for; raises UserError for more classes than a mask of them can hold."""
        found = super().annotations()
        if self.task == "segment" and len(found.classes) > IGNORED:
            fix = "read it for panoptic, or for instances"
            raise UserError(f"a mask holds at most {IGNORED} classes, these are {len(found.classes)}", where=str(self.tree.root), fix=fix)
        stuff = tuple(label for label, name in enumerate(found.classes) if name not in self.things)
        found = replace(found, format="coco_panoptic", stuff=stuff)
        return _things(found) if self.task == "instances" else found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _segment(row: Any, labels: Mapping[int | str, int], mask: str, seen: set[int]) -> Object:
    """A segment as an object whose pixels lie in the file `mask`; raises Fault."""
    identity, category = coco.key(row, "id"), coco.key(row, "category_id")
    if not isinstance(identity, int) or not 0 < identity < MOST:
        raise Fault("bad-annotation", f"an id must be 1 to {MOST - 1}, was {reading.shown(identity)}")
    if identity in seen:
        raise Fault("duplicate-id", f"the id {identity} stands twice")
    seen.add(identity)
    if category not in labels:
        raise Fault("unknown-class", f"no category has the id {reading.shown(category)}")
    colour = (identity & 255) << 16 | identity & 0xFF00 | identity >> 16
    crowd = row.get("iscrowd") in (1, True)
    return Object(labels[category], records.box(row.get("bbox")), Picture(mask, colour, colours=True), crowd)


def _things(annotations: Annotations) -> Annotations:
    """Without what cannot be counted."""
    kept = [label for label in range(len(annotations.classes)) if label not in annotations.stuff]
    place = {label: number for number, label in enumerate(kept)}
    items = tuple(
        replace(item, objects=tuple(replace(one, label=place[one.label]) for one in item.objects if one.label in place))
        for item in annotations.items
    )
    ids = tuple(annotations.ids[label] for label in kept) if annotations.ids else ()
    classes = tuple(annotations.classes[label] for label in kept)
    return replace(annotations, classes=classes, items=items, ids=ids, stuff=())


def write(annotations: Annotations, out: Output) -> None:
    """`annotations/panoptic_SPLIT.json`, `annotations/panoptic_SPLIT/STEM.png` and `SPLIT/NAME`; without a split `annotations/panoptic`
    and `images/NAME`. Classes keep their ids, or have those from 1 on. What an object covers of an earlier one is no longer that one's."""
    ids = annotations.ids or tuple(range(1, len(annotations.classes) + 1))
    categories = [
        {"id": identity, "name": name, "isthing": int(label not in annotations.stuff)}
        for label, (identity, name) in enumerate(zip(ids, annotations.classes, strict=True))
    ]
    for split, items in by_split(annotations.items).items() or {"": []}.items():
        name = f"annotations/panoptic{'_' if split else ''}{split}"
        for item in items:
            out.image(item, f"{split or 'images'}/{out.name(item)}")
        images, rows = _rows(items, annotations, ids, (out, name))
        content = {"images": images, "annotations": rows, "categories": categories}
        out.text(f"{name}.json", json.dumps(content, allow_nan=False))


def _rows(
    items: Iterable[Item], annotations: Annotations, ids: Sequence[int], to: tuple[Output, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    (out, folder), images, rows = to, [], []
    for number, item in enumerate(items, 1):
        height, width = out.size(item)
        own = out.name(item)
        images.append({"id": number, "file_name": own, "height": height, "width": width})
        objects = shapes.unfolded(item.objects, annotations.tree)
        covers = [shapes.rle(one, (height, width), annotations.tree) for one in objects]
        segments = [Segment(place * SPREAD % MOST, one.label, crowd=one.crowd) for place, one in enumerate(objects, 1)]
        drawn = Panoptic.drawn(covers, segments, (height, width), annotations.classes)
        out.data(f"{folder}/{stem(own)}.png", drawn.png())
        scores = {segment.id: one.score for segment, one in zip(segments, objects, strict=True)}
        told = [_stated(drawn, place, ids, scores) for place in range(len(drawn.segments))]
        rows.append({"image_id": number, "file_name": f"{stem(own)}.png", "segments_info": told})
    return images, rows


def _stated(drawn: Panoptic, place: int, ids: Sequence[int], scores: Mapping[int, float | None]) -> dict[str, Any]:
    one, (left, top, right, bottom) = drawn.segments[place], drawn.boxes[place].tolist()
    facts = {"id": one.id, "category_id": ids[one.label], "iscrowd": int(one.crowd), "area": int(drawn.areas[place])}
    sure = {} if scores[one.id] is None else {"score": scores[one.id]}
    return facts | {"bbox": [left, top, right - left, bottom - top]} | sure
