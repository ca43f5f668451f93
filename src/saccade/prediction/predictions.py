"""What `predict` returns, and the file of JSON lines that grows while it works."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.growing import Growing
from saccade.core.panoptic import Panoptic
from saccade.core.regions import Region
from saccade.core.results import Detections, Result
from saccade.core.segmentation import Segmentation


@dataclass(frozen=True)
class Predictions(Sequence[Result]):
    """Results in the order of the inputs; `failed` names those that could not be read: [{"source", "reason"}]."""

    results: tuple[Result, ...]
    failed: tuple[Mapping[str, str], ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self.results[index]

    @property
    def images_per_second(self) -> float:
        """From the first byte read to the last result."""
        return len(self.results) / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "results": [result.to_dict() for result in self.results],
            "failed": [dict(row) for row in self.failed],
            "images_per_second": self.images_per_second,
        }

    def to_csv(self) -> str:
        """One line an image: source, label, score, then the probability of each class; of detections a line a box: source, label, score,
        x1, y1, x2, y2, and category_id where the data set numbers its classes; of classes of pixels a line a region; of things and stuff a
        line a segment. Cells that begin like formulas are defused."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        first = self.results[0] if self.results else None
        if isinstance(first, Detections):
            writer.writerow(["source", "label", "score", "x1", "y1", "x2", "y2", *["category_id"] * bool(first.class_ids)])
        elif isinstance(first, Segmentation):
            writer.writerow(["source", "label", "area", "perimeter", "x", "y", "x1", "y1", "x2", "y2"])
        elif isinstance(first, Panoptic):
            writer.writerow(["source", "label", "score", "thing", "area", "x1", "y1", "x2", "y2"])
        else:
            writer.writerow(["source", "label", "score", *map(_defused, first.classes if first else ())])
        for result in self.results:
            writer.writerows([_defused(cell) for cell in row] for row in _cells(result))
        return text.getvalue()

    def save(self, path: str | Path, format: str = "json") -> Path:
        """Write them as "json" (the whole object), "jsonl" (a line a result) or "csv"."""
        if format == "json":
            return files.write_json(Path(path), self.to_dict())
        if format == "jsonl":
            return files.write_bytes(Path(path), "".join(line(result) for result in self.results).encode())
        if format == "csv":  # file names need not be Unicode: what is not is spelled out, as in JSON
            return files.write_bytes(Path(path), self.to_csv().encode("utf-8", "backslashreplace"))
        raise UserError(f"format must be json, jsonl or csv, got {format!r}", where="--format")

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _short(one))}</tr>" for one in self.results[:50])
        rest = f"<p>and {len(self.results) - 50} more</p>" if len(self.results) > 50 else ""
        failed = "".join(f"<li>{html.escape(row['source'])}: {html.escape(row['reason'])}</li>" for row in self.failed[:20])
        return f"<table><tr><th>source</th><th>label</th><th>score</th></tr>{rows}</table>{rest}" + (f"<ul>{failed}</ul>" if failed else "")


def _cells(result: Result) -> list[list[str]]:
    """The lines of a table for one image."""
    if isinstance(result, Detections):
        ids = result.category_ids
        numbers = [[]] * len(result) if ids is None else [[str(one)] for one in ids.tolist()]
        rows = zip(result.names, result.scores.tolist(), result.boxes.tolist(), numbers, strict=True)
        return [[result.source, name, f"{score:.6f}", *(f"{value:.2f}" for value in box), *number] for name, score, box, number in rows]
    if isinstance(result, Segmentation):
        return [[result.source, result.classes[one.label], *_region(one)] for one in result.regions()]
    if isinstance(result, Panoptic):
        told = zip(result.segments, result.areas.tolist(), result.boxes.tolist(), strict=True)
        return [
            [result.source, result.classes[one.label], f"{one.score:.6f}", str(int(one.thing)), str(area), *map(str, box)]
            for one, area, box in told
        ]
    return [[result.source, result.label, f"{result.score:.6f}", *(f"{p:.6f}" for p in result.probabilities)]]


def _region(one: Region) -> list[str]:
    x, y = one.centroid
    return [str(one.area), str(one.perimeter), f"{x:.2f}", f"{y:.2f}", *map(str, one.box)]


def _short(result: Result) -> tuple[str, str, str]:
    """Source, answer and score of one image, in a line."""
    if isinstance(result, Detections):
        best = f"{result.scores[0]:.3f}" if len(result) else ""
        return result.source, result.summary, best
    if isinstance(result, Segmentation | Panoptic):
        return result.source, result.summary, ""
    return result.source, result.label, f"{result.score:.3f}"


def line(result: Result) -> str:
    """A result as one line of strict JSON, its line break included."""
    return files.dumps(result.to_dict()) + "\n"


class Lines(Growing):
    """A file of JSON lines that grows as results come."""

    def write(self, result: Result) -> None:
        """One more; it is in the file when this returns."""
        self.append(line(result).encode())


def _defused(cell: str) -> str:
    """A text cell that a spreadsheet would take for a formula, made text (F6)."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
