"""How a set's classes and splits are filled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from saccade.data.annotations import Annotations
from saccade.data.doctor.flat import Flat, Integers, of_item
from saccade.data.findings import Finding
from saccade.data.reading import listed, shown

RATIO = 20  # between the most frequent class and the rarest one
FEW = 5  # images of a class
NAMES = 8  # classes that a message names


def check(annotations: Annotations, flat: Flat) -> Iterator[Finding]:
    """Findings on the set as a whole, one of each kind; nothing on classes where labels are pixels."""
    yield from _unlabelled(annotations)
    yield from _in_two_splits(annotations)
    if annotations.task == "segment" or not annotations.items:
        return
    where = annotations.opened.name or annotations.format
    splits = sorted({item.split for item in annotations.items})
    images = _images(annotations, flat, splits)
    held = images.sum(1)
    unused, used = np.flatnonzero(held == 0), np.flatnonzero(held)
    shifted = _from_one(annotations, held)
    if shifted:
        yield Finding("ids-from-one", where, shifted)
    elif len(unused) and len(used):
        yield Finding("unused-class", where, f"{len(unused)} of {len(held)} classes are never used: {named(annotations, unused)}")
    amounts = np.bincount(flat.label, minlength=len(held)) if len(flat.objects) else held
    few = used[held[used] < FEW]
    if len(few):
        yield Finding("rare-class", where, f"{len(few)} classes have fewer than {FEW} images: {named(annotations, few)}")
    common = used[held[used] >= FEW]  # rarer ones are named already
    if len(common) > 1 and amounts[common].max() > RATIO * amounts[common].min():
        yield Finding("imbalanced-classes", where, _imbalance(annotations, common, amounts))
    for number, split in enumerate(splits):
        lacking = common[images[common, number] == 0]
        if len(lacking):
            yield Finding("missing-class", where, f"{split or 'no split'} has no image of {len(lacking)}: {named(annotations, lacking)}")


def _images(annotations: Annotations, flat: Flat, splits: list[str]) -> Integers:
    """How many images of each split hold each class: int64 `[K, S]`."""
    items = annotations.items
    pairs = [(i, label) for i, item in enumerate(items) for label in item.labels]
    own = np.array(pairs, np.int64).reshape(-1, 2)
    found = np.concatenate([own, np.stack([flat.item, flat.label], axis=1)])
    k = len(annotations.classes)
    once = np.unique(found[:, 0] * k + found[:, 1])
    place = {split: number for number, split in enumerate(splits)}
    split_of = np.array([place[item.split] for item in items], np.int64)
    counts = np.bincount(once % k * len(splits) + split_of[once // k], minlength=k * len(splits)) if k else np.zeros(0, np.int64)
    return counts.reshape(k, len(splits))


def _from_one(annotations: Annotations, held: Integers) -> str:
    """Ids that start at 1 leave the first class without use, and name one class more than there are."""
    strange = sum(problem.code == "unknown-class" for problem in annotations.problems)
    told = any(problem.code == "ids-from-one" for problem in annotations.problems)
    if told or not strange or len(held) < 2 or held[0] or not held[1:].all():
        return ""
    return f"class {shown(annotations.classes[0])} is never used, and {strange} labels lie beyond the last class"


def _imbalance(annotations: Annotations, used: Integers, amounts: Integers) -> str:
    most, least = used[amounts[used].argmax()], used[amounts[used].argmin()]
    names = shown(annotations.classes[most]), shown(annotations.classes[least])
    return f"{names[0]} is there {amounts[most]:,} times, {names[1]} {amounts[least]:,} times"


def named(annotations: Annotations, labels: Integers) -> str:
    """Classes as they are called in a message, of many the first few."""
    return listed([shown(annotations.classes[label]) for label in labels.tolist()], NAMES)


def _unlabelled(annotations: Annotations) -> Iterator[Finding]:
    if annotations.task == "generate" and not annotations.classes:
        return  # images alone are all there need be
    bare = [item for item in annotations.items if not (item.labels or item.objects or item.mask)]
    if bare:
        yield of_item("unlabelled-image", bare[0], f"{len(bare):,} of {len(annotations.items):,} images have no label, this is the first")


def _in_two_splits(annotations: Annotations) -> Iterator[Finding]:
    """Items stand by path, so that those of one image stand beside each other."""
    first: dict[str, str] = {}
    for item in annotations.items:
        split = first.setdefault(item.path, item.split)
        if split != item.split:
            yield of_item("image-in-two-splits", item, f"is in {item.split or 'no split'}, and in {split or 'no split'} too")
