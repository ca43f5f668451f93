"""A labelled set made ready to learn from: splits, targets as NumPy, images decoded on demand."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import images
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.errors import UserError, unknown
from saccade.data import archives, shapes, splitting
from saccade.data.annotations import SHOWN, Annotations, Item
from saccade.data.sample import Objects, Sample, Schema
from saccade.data.tree import Tree

PROBED = 256
LOOKED_AT = 64  # masks of classes whose pixels are counted
MEASURED = 16  # images whose objects are measured: masks that are pictures have to be read for that


@dataclass(frozen=True)
class Dataset:
    """Images with labels and splits, in the order of their relative POSIX paths.

    targets: int64 `[N]`, the class of each image, or bool `[N, K]` where an image may have several; empty for tasks whose truth lies
    within the images, and where images to make more of have no classes. splits: indices int64 by split name, sorted.
    """

    annotations: Annotations
    schema: Schema
    targets: NDArray[Any]
    splits: Mapping[str, NDArray[np.int64]]

    @classmethod
    def of(cls, annotations: Annotations) -> Dataset:
        """Validation is held out of the training images where the set brings none."""
        annotations = _with_classes_of_all(annotations)
        items, classes = annotations.items, annotations.classes
        targets = _targets(annotations)
        named = np.array([item.split or "train" for item in items])
        splits = {name: np.flatnonzero(named == name) for name in ("train", "val", "test") if (named == name).any()}
        if "train" in splits and "val" not in splits:
            train = splits["train"]
            held = splitting.hold_out([items[i].path for i in train], splitting.strata(annotations)[train])
            splits = {"train": train[~held], "val": train[held], **{k: v for k, v in splits.items() if k == "test"}}
        size, uniform, channels = _look(annotations)
        present = _present(annotations, targets)
        extent = _extent(annotations)
        counts, totals = _counts(present, splits), _totals(splits)
        schema = Schema(
            annotations.task,
            classes,
            counts,
            channels,
            size,
            uniform,
            totals,
            extent,
            multi=annotations.multi,
            ids=annotations.ids,
            stuff=annotations.stuff,
        )
        return cls(annotations, schema, targets, splits)

    @property
    def opened(self) -> Path:
        """What stands for the set: its root, or a list of splits."""
        return self.annotations.opened

    @property
    def name(self) -> str:
        """What to call it: the file's or folder's name without what says of which kind it is."""
        name = self.opened.name
        endings = (splitting.SUFFIX, *archives.SUFFIXES)
        return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), name)

    @property
    def root(self) -> Path:
        """The folder or archive."""
        return self.tree.root

    @property
    def tree(self) -> Tree:
        """Where the images lie."""
        return self.annotations.tree

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Of the images, relative to the root."""
        return tuple(item.path for item in self.annotations.items)

    def __len__(self) -> int:
        return len(self.annotations.items)

    def __getitem__(self, index: int) -> Sample:
        """Decode one image and its truth; raises UserError when it cannot be read."""
        pixels = self.decode(index)
        target = self.target(index, pixels.shape[:2])
        target = target.values if isinstance(target, Packed) else target
        return Sample(pixels, target, index, self.annotations.items[index].path)

    def decode(self, index: int, covering: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """One image, uint8 `[H, W, C]`; a large JPEG at a reduced size where no more than (height, width) `covering` is needed."""
        path = self.annotations.items[index].path
        source = self.tree.image(path)
        try:
            return images.read(source, channels=self.schema.channels, max_pixels=self.tree.max_pixels, covering=covering).pixels
        except UserError as error:
            if isinstance(source, bytes):
                raise UserError(error.message, where=f"{self.root}: {path}", fix=error.fix) from None
            raise

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of one image as it is decoded, from its header; raises UserError when it cannot be read."""
        return images.probe(self.tree.image(self.annotations.items[index].path)).size

    def target(self, index: int, size: tuple[int, int]) -> Any:
        """What there is to learn of an image of `size` (height, width).

        classify: int, or bool `[K]`; detect, instances: Objects; panoptic: Objects, one for each segment; segment: Packed classes, or sets
        of them where they overlap (`core.layers`), `class_masks.IGNORED` where none counts; generate: the class, or None where images have
        none.
        """
        item = self.annotations.items[index]
        if len(self.targets):
            target = self.targets[index]
            return int(target) if self.targets.ndim == 1 else target
        if self.schema.task == "segment" and self.annotations.multi:
            return Packed.of(shapes.layers_of(item, size, self.tree))
        if self.schema.task == "segment":
            return Packed.of(self._mask(item, size))
        if self.schema.task in ("detect", "instances"):
            return Objects.of(item, size, self.tree, with_masks=self.schema.task == "instances")
        if self.schema.task == "panoptic":  # boxes are those of the pixels, whatever is stated
            return Objects.of(
                replace(item, objects=tuple(replace(one, box=None) for one in item.objects)), size, self.tree, with_masks=True
            )
        return None

    def shares(self) -> tuple[float, ...]:
        """The share of each class in the pixels that count of some masks of training images; () where there are none."""
        known = self._looked_at[0][: len(self.schema.classes)]
        return tuple((known / known.sum()).tolist()) if known.sum() else ()

    def unnamed(self) -> str:
        """What is to be told of values in the same masks that stand for no class; empty where all do."""
        return self._looked_at[1]

    @cached_property
    def _looked_at(self) -> tuple[NDArray[np.int64], str]:
        """Pixels by class, `[256]`, and what is to be told of values, of up to LOOKED_AT masks spread evenly over the training images."""
        places = [place for place in self.splits.get("train", np.empty(0, np.int64)).tolist() if _masked(self.annotations.items[place])]
        counts, legend, strange = np.zeros(256, np.int64), self.annotations.legend, list[list[int]]()
        for number in np.unique(np.linspace(0, len(places) - 1, LOOKED_AT).astype(int)).tolist() if places else ():
            item = self.annotations.items[places[number]]
            try:
                if not item.mask:
                    classes = shapes.classes_of(item, self.annotations)
                else:
                    values = shapes.values_of(item, self.annotations)
                    classes = shapes.named(values, legend)
                    strange.append(legend.unnamed(np.unique(values[classes == IGNORED]).tolist()) if legend.values else [])
            except UserError:
                continue  # named with all the other bad files when the images are read
            counts += np.bincount(classes.ravel(), minlength=256)
        if not any(strange):
            return counts, ""
        said = f"{sum(map(bool, strange))} of {len(strange)} masks looked at hold values of no class, which count in nothing: "
        first = legend.written(sorted({value for values in strange for value in values[:SHOWN]}))
        return counts, f"{said}{first}; saccade data check lists them"

    def split(self, name: str) -> NDArray[np.int64]:
        """The indices of a split; raises UserError naming those there are."""
        if name not in self.splits:
            raise unknown("split", name, self.splits, where=str(self.root))
        return self.splits[name]

    def without(self, bad: NDArray[np.int64]) -> Dataset:
        """The same set with these indices left out of every split (`--skip-bad`)."""
        splits = {name: np.setdiff1d(indices, bad) for name, indices in self.splits.items()}
        counts = _counts(_present(self.annotations, self.targets), splits)
        return replace(self, splits=splits, schema=replace(self.schema, counts=counts, totals=_totals(splits)))

    def relabelled(self, classes: tuple[str, ...]) -> Dataset:
        """The same set with its classes in another order, among more of them; each of its own must be there."""
        place = [classes.index(name) for name in self.schema.classes]
        items = tuple(
            replace(
                item,
                labels=tuple(place[label] for label in item.labels),
                objects=tuple(replace(one, label=place[one.label]) for one in item.objects),
            )
            for item in self.annotations.items
        )
        legend = self.annotations.legend
        legend = replace(legend, values={value: place[label] for value, label in legend.values.items()})
        ids = tuple(self.schema.ids[place.index(label)] for label in range(len(classes)) if label in place) if self.schema.ids else ()
        ids = ids if len(ids) == len(classes) else ()  # more classes than the set knows
        stuff = tuple(place[label] for label in self.schema.stuff)
        annotations = replace(self.annotations, items=items, classes=classes, legend=legend, ids=ids, stuff=stuff)
        targets = _targets(annotations)
        schema = replace(self.schema, classes=classes, ids=ids, stuff=stuff, counts=_counts(_present(annotations, targets), self.splits))
        return replace(self, annotations=annotations, schema=schema, targets=targets)

    def seen(self, split: str) -> tuple[int, ...]:
        """In how many images of a split each class is; 0 where there is no such split."""
        places = self.splits.get(split, np.empty(0, np.int64))
        return tuple((_present(self.annotations, self.targets)[places] > 0).sum(0).tolist())

    def fingerprint(self) -> str:
        """A hash over sorted (path, size, label): the same images and labels have the same."""
        digest = hashlib.sha256()
        for item in self.annotations.items:
            digest.update(f"{item.path}\0{item.image.bytes}\0{self._said(item)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _said(self, item: Item) -> str:
        """All that is said of an image, as text."""
        classes = self.schema.classes
        labels = "\0".join(classes[label] for label in item.labels)
        if not (item.objects or item.mask):
            return labels
        objects = [(classes[one.label], one.box, one.shape, one.crowd) for one in item.objects]
        return f"{labels}\0{objects}\0{item.mask}\0{self.tree.state(item.mask)[0] if item.mask else 0}"

    def _mask(self, item: Item, size: tuple[int, int]) -> NDArray[np.uint8]:
        found = shapes.classes_of(item, self.annotations)
        if found.shape != size:
            said, where = f"{found.shape[0]}x{found.shape[1]}", item.mask or item.where
            raise UserError(f"must have the size of its image, {size[0]}x{size[1]} (height x width), was {said}", where=where)
        return found


def _masked(item: Item) -> bool:
    """Whether there are classes of its pixels, by a mask or by objects."""
    return bool(item.mask or item.objects)


def _with_classes_of_all(annotations: Annotations) -> Annotations:
    """Images to make more of have classes where each has one; where only some do, it is said, and none counts."""
    labelled = sum(bool(item.labels) for item in annotations.items)
    if annotations.task != "generate" or not annotations.classes or labelled == len(annotations.items):
        return annotations
    note = f"{labelled:,} of {len(annotations.items):,} images have a class: classes are passed over"
    items = tuple(replace(item, labels=(), objects=()) for item in annotations.items)
    return replace(annotations, classes=(), ids=(), items=items, multi=False, notes=(*annotations.notes, *[note] * bool(labelled)))


def _targets(annotations: Annotations) -> NDArray[Any]:
    items = annotations.items
    if annotations.task != "classify" and not (annotations.task == "generate" and all(item.labels for item in items)):
        return np.empty(0, np.int64)
    if not annotations.multi:
        return np.array([item.labels[0] for item in items], np.int64)
    targets = np.zeros((len(items), len(annotations.classes)), bool)
    for row, item in zip(targets, items, strict=True):
        row[list(item.labels)] = True
    return targets


def _present(annotations: Annotations, targets: NDArray[Any]) -> NDArray[np.int64]:
    """How often each class stands in each image: int64 `[N, K]`, sparse sets of many classes included."""
    found = np.zeros((len(annotations.items), len(annotations.classes)), np.int64)
    if len(targets) and targets.ndim == 1:
        found[np.arange(len(targets)), targets] = 1
        return found
    for row, item in zip(found, annotations.items, strict=True):
        for label in (*item.labels, *(one.label for one in item.objects)):
            row[label] += 1
    return found


def _counts(present: NDArray[np.int64], splits: Mapping[str, NDArray[np.int64]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(present[indices].sum(0).tolist()) for name, indices in splits.items()}


def _totals(splits: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    return {name: len(indices) for name, indices in splits.items()}


def _look(annotations: Annotations) -> tuple[tuple[int, int], bool, int]:
    """Median size, whether all have it, and channels, from the headers of up to PROBED images spread evenly over the set; where they differ
    in their bands, those that most have: the others are named when the images are read."""
    seen = []
    for i in np.unique(np.linspace(0, len(annotations.items) - 1, PROBED).astype(int)) if annotations.items else ():
        try:
            seen.append(images.probe(annotations.tree.image(annotations.items[i].path)))
        except UserError:
            continue  # named with all the other bad files when the images are read
    if not seen:
        return (224, 224), False, 3
    height, width = np.median([header.size for header in seen], axis=0).astype(int).tolist()
    bands = Counter(header.bands for header in seen).most_common(1)[0][0]
    channels = bands or (1 if all(header.grey for header in seen if not header.bands) else 3)
    if not bands and annotations.task == "generate" and any(header.alpha for header in seen):
        channels = 4
    return (height, width), len({header.size for header in seen}) == 1, channels


def _extent(annotations: Annotations) -> float | None:
    """The median side of the objects in up to MEASURED images spread evenly over those that have some."""
    items = [item for item in annotations.items if item.objects]
    found: list[float] = []
    for place in np.unique(np.linspace(0, len(items) - 1, MEASURED).astype(int)) if items else ():
        item = items[place]
        try:
            size = item.size or images.probe(annotations.tree.image(item.path)).size
            objects = Objects.of(item, size, annotations.tree, with_masks=False)
        except UserError:
            continue  # named with all the other bad files when the images are read
        boxes = objects.boxes[~np.isin(objects.labels, annotations.stuff)]
        found += np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)).tolist()
    return float(np.median(found)) if found else None
