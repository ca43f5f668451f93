"""Sources -> decoded -> prepared -> answered -> results, in order; a bad image is reported and the rest goes on."""

from __future__ import annotations

import csv
import html
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from saccade.core import finish, images
from saccade.core.errors import UserError
from saccade.core.prepare import prepare
from saccade.core.progress import Progress
from saccade.core.results import Result
from saccade.prediction.session import Session
from saccade.prediction.sources import Source

BATCH = 32
AHEAD = 4


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
        """One line an image: source, label, score, then the probability of each class; cells that begin like formulas are defused."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        classes = self.results[0].classes if self.results else ()
        writer.writerow(["source", "label", "score", *map(_defused, classes)])
        for result in self.results:
            writer.writerow(
                [_defused(result.source), _defused(result.label), f"{result.score:.6f}", *(f"{p:.6f}" for p in result.probabilities)]
            )
        return text.getvalue()

    def save(self, path: str | Path, format: str = "json") -> Path:
        """Write them as "json" (the whole object), "jsonl" (a line a result) or "csv"."""
        from saccade.core import files

        if format == "json":
            return files.write_json(Path(path), self.to_dict())
        if format == "jsonl":
            return files.write_bytes(Path(path), "".join(files.dumps(r.to_dict()) + "\n" for r in self.results).encode())
        if format == "csv":
            return files.write_bytes(
                Path(path), self.to_csv().encode("utf-8", "backslashreplace")
            )  # as in JSON: file names need not be Unicode
        raise UserError(f"format must be json, jsonl or csv, got {format!r}", where="--format")

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(r.source)}</td><td>{html.escape(r.label)}</td><td>{r.score:.3f}</td></tr>" for r in self.results[:50]
        )
        rest = f"<p>and {len(self.results) - 50} more</p>" if len(self.results) > 50 else ""
        failed = "".join(f"<li>{html.escape(row['source'])}: {html.escape(row['reason'])}</li>" for row in self.failed[:20])
        return f"<table><tr><th>source</th><th>label</th><th>score</th></tr>{rows}</table>{rest}" + (f"<ul>{failed}</ul>" if failed else "")


def predict(
    session: Session, sources: Sequence[Source], *, progress: Progress, max_pixels: int = images.MAX_PIXELS, workers: int = 2
) -> Predictions:
    """Answer for every source that can be read. Decoding runs ahead in threads; memory holds a few batches, never the folder."""
    begin = time.perf_counter()
    results: list[Result] = []
    failed: list[dict[str, str]] = []
    progress.start("predicting", len(sources), "images")
    try:
        for part in _ready(session, sources, max_pixels, workers):
            results += _answers(session, [item for item in part if isinstance(item, _Ready)])
            failed += [item for item in part if isinstance(item, dict)]
            progress.advance(len(part))
    finally:
        progress.finish()
    return Predictions(tuple(results), tuple(failed), time.perf_counter() - begin)


@dataclass(frozen=True, slots=True)
class _Ready:
    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    name: str
    notes: tuple[str, ...]


def _answers(session: Session, batch: Sequence[_Ready]) -> Sequence[Result]:
    if not batch:
        return ()
    outputs = session.run(np.stack([item.pixels for item in batch]))
    sizes, names = [item.size for item in batch], [item.name for item in batch]
    return finish.results(outputs, session.card, sizes, names, notes=[item.notes for item in batch])


def _ready(session: Session, sources: Sequence[Source], max_pixels: int, workers: int) -> Iterator[list[_Ready | dict[str, str]]]:
    spec = session.card.input

    def read(source: Source) -> _Ready | dict[str, str]:
        try:
            picture = images.read(source.content, channels=spec.channels, max_pixels=max_pixels)
        except UserError as error:
            return {"source": source.name, "reason": error.message}
        height, width = picture.pixels.shape[:2]
        return _Ready(prepare(picture.pixels, spec), (height, width), source.name, picture.notes)

    with ThreadPoolExecutor(workers, "saccade-decode") as pool:
        running: list[list[Future[_Ready | dict[str, str]]]] = []
        for part in _batches(sources):
            running.append([pool.submit(read, source) for source in part])
            if len(running) >= AHEAD:
                yield [future.result() for future in running.pop(0)]
        for futures in running:
            yield [future.result() for future in futures]


def _batches(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    for start in range(0, len(sources), BATCH):
        yield sources[start : start + BATCH]


def _defused(cell: str) -> str:
    """A text cell that a spreadsheet would take for a formula, made text (F6)."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
