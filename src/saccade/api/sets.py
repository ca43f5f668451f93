"""Data sets made ready for the engines: checked, decoded once, in batches."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import InputSpec
from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.core.prepare import covered, prepare
from saccade.core.progress import Progress
from saccade.core.results import OBJECTS, WITHIN
from saccade.data import cache, doctor
from saccade.data.cache import BadFile, Preparation, Store
from saccade.data.dataset import Dataset
from saccade.data.findings import ERROR, KINDS, WARNING, Finding
from saccade.evaluation.evaluate import LabelledBatch
from saccade.prediction import tiling
from saccade.tasks import MAKING

MOST = 128  # images a batch of evaluation
PIXELS = 8 * 224 * 224  # and pixels, where a runtime suits few: more leave a processor's caches
NAMED = 20
FINDING = (*OBJECTS, "panoptic")  # tasks of objects
FEWEST = {"train": 50, "val": 8}  # images to make more of


@dataclass(frozen=True)
class Split:
    """The readable images of one split, prepared: store, targets (None where images have no class), names and, where the truth lies within
    the images, their original (height, width) are in the same order."""

    store: Store
    targets: list[Any]
    names: list[str]
    sizes: Sequence[tuple[int, int]] = ()

    def __len__(self) -> int:
        return len(self.store)

    def batches(self, least: int) -> Iterator[LabelledBatch]:
        """As evaluation takes them: uint8 `[B, C, H, W]`, truths, names, sizes; `least`: images a batch that suit the session. In order,
        but only images of one shape share a batch, so that no answer depends on its neighbours."""
        waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        for place in range(len(self)):
            image = self.store[place]
            group = waiting.setdefault(image.shape, [])
            group.append((place, image))
            area = image.shape[0] * image.shape[1]
            if len(group) == max(1, min(MOST, max(least, PIXELS // area), tiling.PIXELS // area)):
                yield self._batch(waiting.pop(image.shape))
        for group in waiting.values():
            yield self._batch(group)

    def _batch(self, group: list[tuple[int, NDArray[np.uint8]]]) -> LabelledBatch:
        images = np.stack([image for _, image in group]).transpose(0, 3, 1, 2)
        places = [place for place, _ in group]
        sizes = [self.sizes[place] for place in places] if self.sizes else [(images.shape[2], images.shape[3])] * len(places)
        return images, [self.targets[place] for place in places], [self.names[place] for place in places], sizes


def as_the_model_sees(spec: InputSpec) -> Preparation:
    """Every image as `core.prepare` makes it: what evaluation measures is what prediction does."""
    name = f"prepare {spec.channels} {spec.size} {spec.resize}"
    return Preparation(name, lambda pixels: prepare(pixels, spec).transpose(1, 2, 0), covered(spec))


def read_split(
    dataset: Dataset, name: str, preparation: Preparation, *, skip_bad: bool, progress: Progress, workers: int
) -> tuple[Split, list[BadFile]]:
    """Read every image of a split once; bad ones are all named and end it (UserError), or are left out with `skip_bad`."""
    indices = dataset.split(name)
    within = dataset.schema.task in WITHIN
    truths, unread = _truths(dataset, indices, workers) if within else ({}, [])
    readable = np.setdiff1d(indices, [file.index for file in unread])
    store, bad = cache.load(dataset, readable, preparation, progress=progress, workers=workers)
    bad = sorted([*bad, *unread], key=lambda file: file.index)
    if bad:
        for file in bad:
            progress.message(f"{file.path}: {file.reason}")
        if not skip_bad:
            raise refusal(dataset, bad)
    good = np.setdiff1d(indices, [file.index for file in bad])
    if not len(good):
        first = f"; the first, {bad[0].path}, {bad[0].reason}" if bad else ""
        raise UserError(f"none of the {len(indices)} images of {name} can be read{first}", where=str(dataset.root))
    names = [dataset.paths[i] for i in good]
    if within:
        found = [truths[index] for index in good.tolist()]
        return Split(store, [target for target, _ in found], names, [size for _, size in found]), bad
    targets = dataset.targets[good].tolist() if len(dataset.targets) else [None] * len(good)
    return Split(store, targets, names), bad


def _truths(dataset: Dataset, indices: NDArray[np.int64], workers: int) -> tuple[dict[int, tuple[Any, tuple[int, int]]], list[BadFile]]:
    """By index the truth of each image and its size, and those whose truth cannot be read; images that cannot are found when they are."""

    def one(index: int) -> tuple[Any, tuple[int, int]] | BadFile | None:
        try:
            size = dataset.size(index)
        except UserError:
            return None
        try:
            return dataset.target(index, size), size
        except UserError as error:
            return BadFile(index, dataset.paths[index], str(error))

    with ThreadPoolExecutor(workers) as pool:
        found = dict(zip(indices.tolist(), pool.map(one, indices.tolist()), strict=True))
    truths = {index: truth for index, truth in found.items() if isinstance(truth, tuple)}
    return truths, [file for file in found.values() if isinstance(file, BadFile)]


def refusal(dataset: Dataset, bad: Sequence[BadFile]) -> UserError:
    """The one line that names what cannot be read."""
    named = "; ".join(f"{file.path} ({file.reason})" for file in bad[:NAMED])
    rest = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    count = "1 image" if len(bad) == 1 else f"{len(bad)} images"
    fix = "repair or remove them, or leave them out with --skip-bad"
    findings = [Finding("unreadable-image", file.path, file.reason).to_dict() for file in bad]
    return UserError(f"{count} cannot be read: {named}{rest}", where=str(dataset.root), fix=fix, findings=findings)


def check_labels(dataset: Dataset, *, skip_bad: bool, progress: Progress) -> None:
    """Say how the set was understood, and run the quick part of the doctor, which decodes no image.

    Errors end it (UserError with all findings), or are left out and counted with `skip_bad`; warnings are counted, a line for each kind.
    """
    annotations = dataset.annotations
    for note in annotations.notes:
        progress.message(note)
    found = doctor.before_training(annotations, progress, os.cpu_count() or 1)
    wrong = [one for one in found if one.severity == ERROR]
    for problem in wrong[:NAMED]:
        progress.message(str(problem))
    names = f"saccade data check {shlex.quote(str(dataset.opened))} names them all"
    # Classes counted from 1 make every label another one's: nothing can be left out then, unless the reader has set it right.
    shifted = any(one.code == "ids-from-one" for one in wrong if one not in annotations.problems)
    if wrong and (shifted or not skip_bad):
        count = "1 label or image is" if len(wrong) == 1 else f"{len(wrong)} labels or images are"
        fix = f"{names}; {'--fix DST repairs them' if shifted else 'or leave them out with --skip-bad'}"
        all_of_it = [one.to_dict() for one in found]
        raise UserError(f"{count} not right, the first: {wrong[0]}", where=str(dataset.opened), fix=fix, findings=all_of_it)
    if wrong:
        progress.message(f"left out {len(wrong)} labels or images that are not right")
    lines = warnings([one for one in found if one.severity == WARNING])
    for line in [*lines, names] if lines else ():
        progress.message(line)


def warnings(found: Sequence[Finding]) -> list[str]:
    """A line for each code: how many there are, and the first; one that stands alone is told in full."""
    by_code: dict[str, list[Finding]] = {}
    for one in found:
        by_code.setdefault(one.code, []).append(one)
    return [
        f"{len(group):,} {code}: {KINDS[code].meaning} (first: {group[0].place})"
        if len(group) > 1
        else f"1 {code}: {group[0].place}: {group[0].message}"
        for code, group in by_code.items()
    ]


def check_trainable(dataset: Dataset) -> None:
    """Refuse what cannot be learned from: no training images, one class, a class with a single image, classes unseen in training."""
    schema = dataset.schema
    if dataset.annotations.multi and schema.task == "classify":
        raise UserError("has images with several labels or none, and training wants one each so far", where=str(dataset.opened))
    if schema.task in MAKING:
        _check_enough(dataset)
        return
    if schema.task in WITHIN:
        _check_within(dataset)
        return
    if "train" not in schema.counts:
        raise UserError("has no train/ folder", where=str(dataset.root), fix="training needs train/CLASS/*.jpg")
    counts = np.array(schema.counts["train"])
    if len(schema.classes) < 2:
        raise UserError(
            f"must hold at least two classes, but has one: {schema.classes[0]}",
            where=str(dataset.root),
            fix="add a folder for each further class",
        )
    missing = [name for name, n in zip(schema.classes, counts, strict=True) if n == 0]
    if missing:
        single = [name for name in missing if sum(c[schema.classes.index(name)] for c in schema.counts.values()) == 1]
        what = "one image only" if single else "no training image"
        raise UserError(
            f"class {(single or missing)[0]!r} has {what}", where=str(dataset.root), fix="add images to it, or remove the class"
        )
    held = np.array(schema.counts.get("val", ()))
    if not held.sum():
        raise UserError("has no images to validate on", where=str(dataset.root), fix="add images to every class")
    taken_from_train = not any(path.startswith(("val/", "valid/")) for path in dataset.paths)
    alone = [name for name, n, v in zip(schema.classes, counts, held, strict=True) if n == 1 and v == 0]
    if taken_from_train and alone:
        raise UserError(
            f"class {alone[0]!r} has one image only",
            where=str(dataset.root),
            fix="training and validation need one each: add images, or remove the class",
        )


def _check_within(dataset: Dataset) -> None:
    """Refuse a set without images to learn from or to validate on, or without any object or class to be learned."""
    schema = dataset.schema
    if schema.task == "segment" and len(schema.classes) < 2 - schema.multi:
        said = f"must hold at least two classes, but has {len(schema.classes)}: {', '.join(schema.classes)}"
        raise UserError(said, where=str(dataset.root), fix="what belongs to no class is one too: a background")
    for split, what in (("train", "learn from"), ("val", "validate on")):
        if not schema.images.get(split, 0):
            raise UserError(
                f"has no images to {what} ({split})", where=str(dataset.root), fix="add images, or split it with saccade data split"
            )
        check_found(dataset, split)


def check_found(dataset: Dataset, name: str, split: Split | None = None) -> None:
    """Raise UserError where there is no object to be found in a split: none is stated or, where its images have been read, all that are
    have turned out to be none, without area or outside; and where the pixels of all images that have been read are of one class."""
    if dataset.schema.task == "segment" and split is not None:
        return _check_pixels(dataset, name, split)
    if dataset.schema.task not in FINDING:
        return
    if split is None:
        items = [dataset.annotations.items[place] for place in dataset.split(name).tolist()]
        found = any(not (one.crowd or one.difficult) for item in items for one in item.objects)
    else:
        found = any((~(truth.crowd | truth.difficult)).any() for truth in split.targets)
    if not found:
        fix = "saccade data stats shows what it holds, saccade data check what is wrong with it"
        raise UserError(f"has no object to be found in any image of {name}", where=str(dataset.root), fix=fix)


def _check_pixels(dataset: Dataset, name: str, split: Split) -> None:
    multi, classes = dataset.schema.multi, dataset.schema.classes
    seen = np.zeros(IGNORED + 1, bool)
    for truth in split.targets:
        for band in truth.bands():
            seen |= np.bincount(band.ravel(), minlength=len(seen)) > 0
        if np.count_nonzero(seen[int(multi) : IGNORED]) > (not multi):
            return
    only = [classes[label] for label in np.flatnonzero(seen[:IGNORED]) if not multi]
    said = f"but {only[0]} in any image of {name}" if only else f"in any image of {name}"
    fix = "saccade data check says which values of masks stand for no class; a legend (classes.txt) says which stands for which"
    raise UserError(f"has no pixel of any class {said}", where=str(dataset.root), fix=fix)


def _check_enough(dataset: Dataset) -> None:
    """Refuse a set that nothing could be made like: distances between sets need some tens of images on either side."""
    images = dataset.schema.images
    for split, what in (("train", "learn from"), ("val", "compare to")):
        if images.get(split, 0) < FEWEST[split]:
            count = sum(images.values())
            raise UserError(
                f"has {images.get(split, 0)} images to {what} ({split}), and at least {FEWEST[split]} are needed",
                where=str(dataset.root),
                fix=f"add images: it holds {count}, and good ones come from some thousands" if count < 1000 else f"add images to {split}/",
            )


def relabelled(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The data set with its targets in the order of a model's classes; raises UserError for a class that the model does not know."""
    unknown = [name for name in dataset.schema.classes if name not in classes]
    if unknown:
        raise UserError(
            f"the model has no class {unknown[0]!r}", where=str(dataset.root), fix=f"its classes are {', '.join(list(classes)[:10])}"
        )
    return dataset.relabelled(tuple(classes))
