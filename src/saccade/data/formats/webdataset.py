"""WebDataset: tar shards in which files of one name but for the suffix are one sample (https://github.com/webdataset/webdataset).

`KEY.jpg` is the image, `KEY.cls` its class as a number or a name, `KEY.json` a record (`data.records`), `KEY.mask.png` (or `seg.png`) the
class of each pixel. Numbers are classes of `classes.txt` beside the shards, where there is one. Shards are read in place, any sample at
any time: order, resume and splits are those of every other set.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.core import class_masks
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.core.images import SUFFIXES
from saccade.data import legends, reading, records, shapes, tables
from saccade.data.annotations import Annotations, Item
from saccade.data.archives import ArchivesTree, open_archive
from saccade.data.findings import Finding
from saccade.data.pictures import SPLITS, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import File, Tree
from saccade.data.writing import Output, by_split, numbered

TASKS = ("detect", "instances", "classify", "segment", "generate")
HOLDS = frozenset({"labels", "several labels", "boxes", "polygons", "masks", "crowd", "difficult", "pixel classes", "splits"})
SHARD = ".tar"
SHARD_BYTES = 512 << 20
LOOKED_AT = 50  # samples, to tell what they are
_MASKS = ("mask.png", "seg.png", "segmentation.png", "labels.png")
_EXPECTED = "expected .tar shards with KEY.jpg and KEY.cls, KEY.json or KEY.mask.png"


@dataclass
class _Sample:
    """What belongs to one key: the image, and the other files by what follows the key's dot."""

    image: File | None = None
    others: dict[str, str] = field(default_factory=dict)


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks that the first shard can be read for."""
    inside = _opened(tree, most=1)
    if inside is None:
        return ()
    samples = [sample for sample in itertools.islice(_samples(inside).values(), LOOKED_AT) if sample.image]
    found = records.tasks(_looked_at(inside, samples))
    masked = ("segment",) if any(map(_mask, samples)) else ()
    return (*found, *masked, "generate") if samples and (found or masked or isinstance(inside, ArchivesTree)) else ()


def _opened(tree: Tree, *, most: int | None = None) -> Tree | None:
    """The set with what is in its shards (the first `most`), or a set that is a shard itself; None where it is neither."""
    if tree.root.suffix.lower() == SHARD:
        return tree
    places = {path: tree.image(path) for path in tables.sources(tree, SHARD)[:most]}
    if inside := next((path for path, place in places.items() if isinstance(place, bytes)), ""):
        raise UserError("is an archive inside of another", where=f"{tree.root}: {inside}", fix="unpack the outer one")
    shards = {path: open_archive(Path(place)) for path, place in places.items() if isinstance(place, str)}
    return ArchivesTree(tree, shards) if shards else None


def _samples(tree: Tree) -> dict[str, _Sample]:
    """All files by key, which ends at the first dot of a file's name."""
    found: dict[str, _Sample] = {}
    for file in tree.files("", deep=True):
        folder, name = posixpath.split(file.path)
        key, _, ending = name.partition(".")
        sample = found.setdefault(posixpath.join(folder, key), _Sample())
        if f".{ending.lower()}" in SUFFIXES and sample.image is None:
            sample.image = file
        else:
            sample.others[ending.lower()] = file.path
    return found


def _mask(sample: _Sample) -> str:
    return next((sample.others[ending] for ending in _MASKS if ending in sample.others), "")


def _looked_at(tree: Tree, samples: Iterable[_Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        with contextlib.suppress(Fault, UserError):
            yield _record(tree, sample)


def _record(tree: Tree, sample: _Sample) -> dict[str, Any]:
    """What is said of a sample; raises Fault."""
    row: dict[str, Any] = {}
    if path := sample.others.get("json"):
        try:
            row = parse_json(tree.read(path), where="")
        except UserError as error:
            raise Fault("bad-annotation", error.message) from None
        if not isinstance(row, dict):
            raise Fault("bad-annotation", f"must be a record, was {reading.shown(row)}")
    if (path := sample.others.get("cls")) and not any(key in row for key in records.LABEL):
        text = reading.decode(tree.read(path)).strip()
        row["label"] = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    return row


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there are no shards, or one is damaged."""
    inside = _opened(tree)
    if inside is None:
        raise UserError("holds no WebDataset shards", where=str(tree.root), fix=_EXPECTED)
    lines = legends.listed(tree)
    classes = tuple(dict.fromkeys(line for line in lines if line.strip()))
    keys = (*records.LABEL, *(f"objects.{key}" for key in records.CATEGORIES))
    found = records.Gathered(task, dict.fromkeys(keys, classes), inside)
    with reading.undisturbed():
        for sample in _samples(inside).values():
            if sample.image:
                _take(found, inside, sample, sample.image)
    template = Annotations("webdataset", task, classes, (), inside)
    if task == "segment":
        template = legends.declared(template, [item.mask for item in found.items.values() if item.mask])
    return found.annotations(template)


def _take(found: records.Gathered, tree: Tree, sample: _Sample, image: File) -> None:
    where = sample.others.get("json") or sample.others.get("cls") or image.path
    try:
        row = _record(tree, sample)
    except Fault as fault:
        found.problems.append(fault.at(where))
        return
    split = SPLITS.get(str(row.get("split", "")).lower(), "") or split_of(posixpath.dirname(image.path))
    mask = _mask(sample) if found.task == "segment" else ""
    if found.task == "segment" and not mask:
        found.problems.append(Finding("missing-mask", image.path, "has no mask"))
        return
    found.take(Item(image, split, mask=mask, size=reading.size(row.get("height"), row.get("width")), where=where), row)


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT-NNNNNN.tar` (`data-NNNNNN.tar` without a split) of half a gigabyte, and `classes.txt`; the same bytes for the same set."""
    if annotations.task == "segment":
        legends.check_writable(annotations)
    for split, items in by_split(annotations.items).items():
        keyed = zip(_keys(items, out), items, strict=True)
        for number, samples in numbered(_files(key, item, annotations, out) for key, item in keyed):
            _write_shard(out.place(f"{split or 'data'}-{number:06d}{SHARD}"), samples)
    if annotations.classes:
        legends.write_list(annotations.classes, out)


def _keys(items: Sequence[Item], out: Output) -> list[str]:
    """A name for each image that holds no dot, in which a key would end, and none twice."""
    keys: list[str] = []
    taken: set[str] = set()
    for item in items:
        plain = key = stem(out.name(item)).replace(".", "_")
        number = 1
        while key.lower() in taken:
            number += 1
            key = f"{plain}-{number}"
        taken.add(key.lower())
        keys.append(key)
    return keys


def _files(key: str, item: Item, annotations: Annotations, out: Output) -> list[tuple[str, bytes]]:
    """The files of a sample, its image first."""
    found = [(f"{key}{posixpath.splitext(out.name(item))[1].lower()}", out.picture(item))]
    if annotations.task == "segment":
        return [*found, (f"{key}.mask.png", class_masks.png(shapes.classes_of(item, annotations)))]
    if annotations.task in ("classify", "generate") and not annotations.multi:
        return [*found, *((f"{key}.cls", str(label).encode()) for label in item.labels[:1])]
    row = records.stated(item, annotations, out.size(item) if item.objects else (0, 0))
    return [*found, (f"{key}.json", json.dumps(row, allow_nan=False).encode())]


def _write_shard(path: Path, samples: Iterator[list[tuple[str, bytes]]]) -> None:
    """Samples until the shard is large enough."""
    written = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as shard:
        while written < SHARD_BYTES and (sample := next(samples, None)):
            for name, data in sample:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                shard.addfile(info, io.BytesIO(data))
                written += len(data)
