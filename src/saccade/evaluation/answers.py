"""Anybody's answers for images whose truth lies within them, from a file, scored like a model's own: boxes, masks, classes of pixels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.core import layers
from saccade.core.errors import UserError
from saccade.core.files import parse_json, read_all, to_plain
from saccade.core.results import KINDS, Detections
from saccade.core.segmentation import MASKS
from saccade.data.dataset import Dataset
from saccade.evaluation.evaluate import summarise
from saccade.evaluation.result import Evaluation, Row
from saccade.task import Metric


def read(path: Path) -> list[Row]:
    """The rows of a file of JSON lines, or of the JSON object that `predict` writes, each an object with `source`. Raises UserError naming
    the line."""
    text = read_all(path)
    if text.lstrip()[:1] == b"{" and b'"results"' in text[:200]:
        whole = parse_json(text, where=str(path))
        rows = whole.get("results") if isinstance(whole, dict) else None
        if isinstance(rows, list):
            return [_row(row, f"{path}: result {number}", path.parent) for number, row in enumerate(rows, 1)]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [_row(parse_json(line, where=f"{path}:{number}"), f"{path}:{number}", path.parent) for number, line in lines]


def _row(raw: Any, place: str, folder: Path) -> Row:
    """A row, its mask found beside the file where it is not where it was written."""
    if not isinstance(raw, dict) or not isinstance(raw.get("source"), str) or not raw["source"]:
        raise UserError("must be an object with source, the path of an image", where=place)
    mask = raw.get("mask")
    beside = folder / MASKS / Path(mask).name if isinstance(mask, str) else None
    return raw | {"mask": str(beside)} if beside is not None and not Path(str(mask)).is_file() and beside.is_file() else raw


def task_of(rows: Sequence[Row]) -> str | None:
    """What the rows answer, by what they hold; None where it is a class for each image."""
    first: Mapping[str, Any] = rows[0] if rows else {}
    if "segments" in first:
        return "panoptic"
    if "boxes" in first:
        return "instances" if "masks" in first else "detect"
    return "segment" if {"mask", "layers"} & set(first) or isinstance(first.get("masks"), Mapping) else None


def score(rows: Sequence[Row], dataset: Dataset, split: str, metric: Metric, *, seed: int = 0, where: str = "predictions") -> Evaluation:
    """Measure rows against a split: exactly one for each of its images, by its path relative to the data, or in full. Raises UserError
    naming the first row at fault."""
    began = time.perf_counter()
    schema = dataset.schema
    kind: Any = layers.Layers if schema.multi else KINDS[schema.task]
    classes = schema.classes
    by_source = _by_source(rows, dataset, where)
    made = []
    for place in dataset.split(split).tolist():
        source = dataset.paths[place]
        row, size = by_source.pop(to_plain(source), None), dataset.size(place)
        if row is None:
            raise UserError(f"predictions must be one for each image: {source!r} of {split} is missing", where=where)
        said = row.get("size", list(size))
        if said != list(size):
            raise UserError(f"must be for an image of {size[0]}x{size[1]} (height x width), was {said}", where=f"{where}: {source}")
        plain = {**row, "source": source, "size": list(size)}
        result: Any = kind.from_dict(plain, classes, schema.ids) if issubclass(kind, Detections) else kind.from_dict(plain, classes)
        if result.size != size:
            raise UserError(f"masks must be of {size[0]}x{size[1]} (height x width), was {result.size}", where=f"{where}: {source}")
        truth = dataset.target(place, size)
        metric.update([result], [truth])
        made.append(metric.row(result, truth))
    if by_source:
        first = next(iter(by_source))
        said = f"predictions must be for images of {split}: {first!r} is none of them"
        raise UserError(f"{said} (and {len(by_source) - 1} more)" if len(by_source) > 1 else said, where=where)
    return summarise(metric, made, task=dataset.schema.task, split=split, seconds=time.perf_counter() - began, seed=seed)


def _by_source(rows: Sequence[Row], dataset: Dataset, where: str) -> dict[str, Row]:
    """Rows by the path relative to the data, as text."""
    known, root = {to_plain(path) for path in dataset.paths}, dataset.root.resolve()
    named = []
    for row in rows:
        source = str(row["source"])
        whole = Path(source).resolve()
        inside = source not in known and whole.is_relative_to(root)
        named.append((whole.relative_to(root).as_posix() if inside else source, row))
    twice = [source for source, count in Counter(source for source, _ in named).items() if count > 1]
    if twice:
        raise UserError(f"predictions must be one for each image: {twice[0]!r} has several", where=where)
    return dict(named)
