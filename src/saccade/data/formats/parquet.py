"""Parquet with images inside, as Hugging Face's hub has them; or with paths of images beside it.

An image is a column of bytes, or of records of bytes and path; a mask of classes (segment) too. The other columns are a record of the image
(`saccade.data.records`); numbers are classes by the names that Hugging Face keeps in the file's own metadata. Splits are told by the files'
names. A row group is read as a whole: groups of about a hundred images serve best.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.core import class_masks, images
from saccade.core.errors import UserError
from saccade.core.files import parse_json
from saccade.core.images import SUFFIXES
from saccade.data import legends, reading, records, shapes, tables
from saccade.data.annotations import Annotations, Item
from saccade.data.parquet import SUFFIX, ParquetTree, checked, image_columns, mask_place, open_file, place
from saccade.data.pictures import SPLITS, Pictures, split_of, stem
from saccade.data.reading import Fault
from saccade.data.tree import Tree
from saccade.data.writing import Output, by_split, numbered

TASKS = ("detect", "instances", "classify", "segment", "generate")
HOLDS = frozenset({"labels", "several labels", "boxes", "polygons", "masks", "crowd", "difficult", "pixel classes", "splits"})
LOOKED_AT = 50
GROUP_IMAGES, GROUP_BYTES, FILE_BYTES = 100, 32 << 20, 512 << 20
_IMAGE = ("image", "img", "jpg", "png", "picture", "pixel_values", "file_name", "image_path", "path", "filename")
_MASK = ("mask", "annotation", "segmentation_mask", "label", "labels")
_EXPECTED = "expected Parquet files with a column image (bytes, or paths of images beside them), and label, objects or mask"


@dataclass
class _Source:
    """A file: its columns of images and masks, and names by key of what is a number in it."""

    path: str
    file: Any
    image: str
    mask: str
    embedded: bool
    names: dict[str, Sequence[str]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Records without their pictures, of which the path alone is read."""
        columns = [f"{self.image}.path" if self.embedded and image_columns(self.file)[self.image] else "" if self.embedded else self.image]
        others = [
            name for name in self.file.schema_arrow.names if name not in (self.image, self.mask) and name not in image_columns(self.file)
        ]
        for batch in self.file.iter_batches(batch_size=1000, columns=[*filter(None, columns), *others]):
            rows: list[dict[str, Any]] = batch.to_pylist() if batch.num_columns else [{} for _ in range(batch.num_rows)]
            yield from rows


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks that a Parquet file with images can be read for."""
    for path in tables.sources(tree, SUFFIX):
        try:
            source = _source(tree, path)
        except UserError as error:
            if "pyarrow" in error.message:
                raise
            continue
        if source:
            with checked(f"{tree.root}: {path}"):
                rows = [row for row, _ in zip(source.rows(), range(LOOKED_AT), strict=False)]
            found = records.tasks(rows)
            return (*found, *(("segment",) if source.mask else ()), "generate")
    return ()


def _source(tree: Tree, path: str) -> _Source | None:
    """What a file holds; None where it has no images."""
    file = open_file(tree, path)
    with checked(f"{tree.root}: {path}"):
        pictures = image_columns(file)
        columns = file.schema_arrow.names
        image = next((name for name in (*_IMAGE, *pictures) if name in columns), "")
        if not image:
            return None
        mask = next((name for name in _MASK if name in pictures and name != image), "")
        source = _Source(path, file, image, mask, image in pictures)
        metadata = file.schema_arrow.metadata or {}
    source.names, source.classes = _names(metadata)
    return source


def _names(metadata: Mapping[bytes, bytes]) -> tuple[dict[str, Sequence[str]], tuple[str, ...]]:
    """Names by key of a record, from Hugging Face's description of the columns; and the classes of the set as this toolkit notes them."""
    names: dict[str, Sequence[str]] = {}
    try:
        described = parse_json(metadata.get(b"huggingface", b"{}"), where="")
        own = parse_json(metadata.get(b"saccade", b"{}"), where="")
        features = described["info"]["features"] if described else {}
        for key, feature in features.items():
            names |= dict(_classes_in(key, feature))
        classes = tuple(map(reading.name, own["classes"] if own else ()))
    except (UserError, Fault, KeyError, TypeError, AttributeError):
        return {}, ()
    return names, classes


def _classes_in(key: str, feature: Any) -> Iterator[tuple[str, Sequence[str]]]:
    """Class names anywhere in the description of a column, whose lists are written in three ways."""
    if isinstance(feature, list) and feature:
        yield from _classes_in(key, feature[0])
    elif isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        yield key, [reading.name(name) for name in feature["names"]]
    elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict | list):
        yield from _classes_in(key, feature["feature"])
    elif isinstance(feature, dict) and "_type" not in feature:
        for inner, found in feature.items():
            yield from _classes_in(f"{key}.{inner}", found)


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no Parquet file with images is there, or one is damaged."""
    sources = [source for path in tables.sources(tree, SUFFIX) if (source := _source(tree, path))]
    if not sources:
        raise UserError("holds no Parquet with images", where=str(tree.root), fix=_EXPECTED)
    inside = ParquetTree(tree, {source.path: (source.image, source.mask) for source in sources if source.embedded})
    names: dict[str, Sequence[str]] = {}
    for source in sources:
        names |= source.names
    found, pictures = records.Gathered(task, names, inside), Pictures(tree)
    with reading.undisturbed():
        for source in sources:
            with checked(f"{tree.root}: {source.path}"):
                _take(found, source, inside, pictures)
    declared = next((source.classes for source in sources if source.classes), ()) or tuple(_used(names, task))
    template = Annotations("parquet", task, declared, (), inside)
    if task == "segment":
        template = legends.declared(template, [item.mask for item in found.items.values() if item.mask])
    return found.annotations(template)


def _take(found: records.Gathered, source: _Source, inside: ParquetTree, pictures: Pictures) -> None:
    """All rows of a file."""
    itself = inside.find(source.path)
    suffix = ""
    for number, row in enumerate(source.rows()):
        name, word = row.get(source.image), str(next((row[key] for key in tables.SPLIT if isinstance(row.get(key), str)), ""))
        if itself and source.embedded:
            name = posixpath.basename(str((name or {}).get("path") or "")) if isinstance(name, dict | None) else ""
            if os.path.splitext(name)[1].lower() not in SUFFIXES:
                suffix = suffix or _suffix(inside, place(source.path, number, "image"))
                name = f"{name or number}{suffix}"
            path = place(source.path, number, name)
            file, split = inside.row(itself, path, source.file.metadata.num_rows), SPLITS.get(word.lower(), "") or split_of(source.path)
        else:
            listed, split = tables.picture(pictures, source.path, str(name or ""), word)
            if listed is None:
                found.problems.append(Fault("missing-image", f"{reading.shown(name)} is not there").at(source.path, what=f"row {number}"))
                continue
            file = listed
        mask = mask_place(source.path, number) if found.task == "segment" and source.mask else ""
        size = reading.size(row.get("height"), row.get("width"))
        found.take(Item(file, split, mask=mask, size=size, where=source.path), row)


def _suffix(tree: ParquetTree, path: str) -> str:
    """Of an image that has no name, by its content."""
    try:
        with images.opened(tree.read(path)) as (image, _):
            suffix = f".{(image.format or 'png').lower()}"
    except UserError:
        return ".png"  # named as unreadable when the images are read
    return suffix if suffix in SUFFIXES else ".png"


def _used(names: Mapping[str, Sequence[str]], task: str) -> Sequence[str]:
    """The names that the files declare for what this task learns."""
    keys = [f"objects.{key}" for key in records.CATEGORIES] if task in ("detect", "instances") else records.LABEL
    return next((names[key] for key in keys if key in names), ())


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT-NNNNN.parquet` (`data-NNNNN.parquet` without a split) of about half a gigabyte, as Hugging Face's `datasets` opens them."""
    if annotations.task == "segment":
        legends.check_writable(annotations)
    for split, items in by_split(annotations.items).items():
        for number, rows in numbered(_row(item, annotations, out) for item in items):
            _write_file(out.place(f"{split or 'data'}-{number:05d}.parquet"), rows, annotations)


def _write_file(path: Path, rows: Iterator[dict[str, Any]], annotations: Annotations) -> None:
    """Rows until the file is large enough."""
    import pyarrow.parquet as pq

    schema = _schema(annotations)
    written = 0
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
        while written < FILE_BYTES and (group := _group(rows)):
            writer.write_table(_table(group, schema))
            written += sum(len(row["image"]["bytes"]) for row in group)


def _group(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The next rows that are read together."""
    group: list[dict[str, Any]] = []
    size = 0
    while len(group) < GROUP_IMAGES and size < GROUP_BYTES and (row := next(rows, None)):
        group.append(row)
        size += len(row["image"]["bytes"])
    return group


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


def _row(item: Item, annotations: Annotations, out: Output) -> dict[str, Any]:
    name = out.name(item).encode("utf-8", "replace").decode()
    row: dict[str, Any] = {"image": {"bytes": out.picture(item), "path": name}}
    if annotations.task == "segment":
        return row | {"mask": {"bytes": class_masks.png(shapes.classes_of(item, annotations)), "path": f"{stem(name)}.png"}}
    if annotations.task in ("classify", "generate"):
        return row | ({"labels": list(item.labels)} if annotations.multi else {"label": next(iter(item.labels), None)})
    objects = records.stated(item, annotations, out.size(item) if item.objects else (0, 0))["objects"]
    objects["category"] = [one.label for one in item.objects]
    objects["segmentation"] = [json.dumps(shape) for shape in objects.get("segmentation", ())]
    return row | {"objects": objects}


def _schema(annotations: Annotations) -> Any:
    """Columns, with the description by which Hugging Face's `datasets` shows pictures and class names."""
    import pyarrow as pa

    classes = {"_type": "ClassLabel", "names": list(annotations.classes)}
    number, text = {"_type": "Value", "dtype": "int64"}, {"_type": "Value", "dtype": "string"}
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {"image": picture}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if annotations.task == "segment":
        columns["mask"], features["mask"] = picture, {"_type": "Image"}
    elif annotations.task in ("classify", "generate"):
        several = annotations.multi
        columns["labels" if several else "label"] = pa.list_(pa.int64()) if several else pa.int64()
        features["labels" if several else "label"] = _listed(classes) if several else classes
    else:
        integers = pa.list_(pa.int64())
        kinds = {"bbox": pa.list_(pa.list_(pa.float64())), "category": integers, "iscrowd": integers, "difficult": integers}
        columns["objects"] = pa.struct([*kinds.items(), ("segmentation", pa.list_(pa.string()))])
        box = _listed(_listed({"_type": "Value", "dtype": "float64"}))
        marks = {"iscrowd": _listed(number), "difficult": _listed(number), "segmentation": _listed(text)}
        features["objects"] = {"bbox": box, "category": _listed(classes), **marks}
    described = json.dumps({"info": {"features": features}})
    own = json.dumps({"classes": list(annotations.classes)})
    return pa.schema(list(columns.items()), metadata={"huggingface": described, "saccade": own})


def _listed(feature: dict[str, Any]) -> dict[str, Any]:
    return {"_type": "Sequence", "feature": feature}
