"""`bench`: how fast, how large and how good models are on this machine, each in a process of its own, measured in turns."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from saccade.api.exporting import CERTIFICATE
from saccade.api.models import model_path
from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.progress import Progress, automatic
from saccade.core.rundir import RunDir
from saccade.prediction.opening import find_export

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS = 10
REPEATS = 20  # calls a round: 200 in all, so that p99 is not the single worst
SECONDS = 0.5  # of throughput a round
WARM = 3
COLUMNS = ("model", "target", "precision", "batch", "p50_ms", "p99_ms", "images_per_second", "memory_mb", "start_s", "file_mb", "metric")


@dataclass(frozen=True)
class Bench:
    """rows: one a model. p50_ms, p99_ms: one image, all cores; images_per_second: `batch` images a call, as many calls as cores;
    memory_mb: most that its process held; start_s: from the process's start to the first answer; file_mb; metric (None without data)."""

    rows: Sequence[Mapping[str, Any]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {"rows": [dict(row) for row in self.rows]}

    def plot(self) -> Figure:
        """The metric against the latency of one image, a point a model; without a metric a bar each."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        names = [f"{row['target']} {row['precision']}: {_short(row['model'])}" for row in self.rows]
        times = [row["p50_ms"] for row in self.rows]
        if all(row["metric"] is not None for row in self.rows):
            for number, (name, time, row) in enumerate(zip(names, times, self.rows, strict=True)):
                axes.plot(time, row["metric"], "oDs^vP"[number % 6], color=f"C{number % 10}", markersize=8, label=name.replace("$", r"\$"))
            axes.set(xlabel="milliseconds for one image (median)", ylabel=self.rows[0]["metric_name"], xscale="log")
            axes.margins(0.15, 0.3)
            for axis_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                axis_formatter("{x:g}")
            if max(row["metric"] for row in self.rows) <= 1:
                axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))
            axes.grid(alpha=0.3)
            figure.legend(loc="outside lower center", frameon=False, fontsize=8)
        else:
            axes.bar_label(axes.barh(range(len(times)), times, color="#2a6f97"), fmt="%.3g", padding=3)
            axes.set_yticks(range(len(times)), names, parse_math=False)
            axes.invert_yaxis()
            axes.set_xlabel("milliseconds for one image (median)")
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write bench.json and bench.png into a folder, which is made."""
        import io

        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.os_error(error, place, "make the folder") from None
        picture = io.BytesIO()
        self.plot().savefig(picture, format="png", dpi=150)
        files.write_bytes(place / "bench.png", picture.getvalue())
        return files.write_json(place / "bench.json", self.to_dict())

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        cells = ("".join(f"<td>{html.escape(_cell(row[name]))}</td>" for name in COLUMNS) for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def bench(
    targets: str | Path | Sequence[str | Path],
    *,
    data: str | Path | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Bench:
    """Measure runs, model files and exported files; a run stands for its best model and all of its exports.

    `data`: what the metric is measured on (a run, and an export that lies where it was made, know theirs); `size`: (height, width) in
    place of the card's; `batch`: images a call for the throughput; `out`: a folder for bench.json and bench.png. `precision` is that of
    models run by torch. Raises UserError where a model cannot be opened or does not take the size.
    """
    progress = progress or automatic()
    asked = [targets] if isinstance(targets, str | Path) else list(targets)
    models = [model for target in asked for model in _models(Path(target), None if data is None else str(data))]
    setup = {"device": device, "precision": precision, "batch": batch or 0, "size": list(size) if size else None}
    progress.start("measuring", len(models) * (ROUNDS + 1), "turns")
    try:
        found = Bench(tuple(_measured(models, setup, progress)))
    finally:
        progress.finish()
    if out is not None:
        found.save(out)
    return found


def _measured(models: Sequence[tuple[Path, str | None]], setup: Mapping[str, Any], progress: Progress) -> Iterator[dict[str, Any]]:
    """The rows of the models, all of whose processes live until the last is measured."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_Process(file, setup)) for file, _ in models]
        for turn in range(ROUNDS * len(workers)):
            number, place = divmod(turn, len(workers))
            workers[(place + number) % len(workers)].turn()  # the order turns, so that nobody always comes after the same one
            progress.advance()
        for worker, (_, data) in zip(workers, models, strict=True):
            yield worker.row(data)
            progress.advance()


def _models(target: Path, data: str | None) -> list[tuple[Path, str | None]]:
    """The files that a target stands for, each with its data."""
    exported = find_export(target)
    if exported is not None:
        if not exported.is_file():
            raise UserError("no such file", where=str(target))
        return [(exported, data or _certified_data(exported))]
    best, run = model_path(target), RunDir(target)
    if not run.run_file.is_file():
        return [(best, data)]
    own = str(run.read_run().get("config", {}).get("data", ""))
    known = data or (own if own and Path(own).is_dir() else None)
    folders = sorted(run.exports.iterdir()) if run.exports.is_dir() else []
    return [(best, known), *((file, known) for folder in folders if (file := find_export(folder)) is not None)]


def _certified_data(file: Path) -> str | None:
    """Where the data of an export were when it was made, if they still are."""
    try:
        stated = files.read_json(file.parent / CERTIFICATE)
    except (UserError, DamagedError):
        return None
    known = stated.get("data") if isinstance(stated, dict) else None
    return known if isinstance(known, str) and Path(known).is_dir() else None


class _Process:
    """A `bench_worker` with one model, and what it has measured."""

    def __init__(self, file: Path, setup: Mapping[str, Any]) -> None:
        self.file, self.setup = file, setup
        self.milliseconds: list[float] = []
        self.rates: list[float] = []

    def __enter__(self) -> _Process:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "saccade.api.bench_worker"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.facts = self._ask({"file": str(self.file), **self.setup})
            self.start = time.perf_counter() - begin
            self._ask(["latency", WARM])
            self._ask(["throughput", 0.1])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._child.kill()
        self._child.communicate()

    def turn(self) -> None:
        """One round of both measurements."""
        self.milliseconds += self._ask(["latency", REPEATS])
        self.rates.append(self._ask(["throughput", SECONDS]))

    def row(self, data: str | None) -> dict[str, Any]:
        """What `bench` says of this model."""
        p50, p99 = np.percentile(self.milliseconds, (50, 99)).tolist()
        memory = self._ask(["memory"])
        weights = [self.file, self.file.with_suffix(".bin")]
        return {
            "model": str(self.file),
            **self.facts,
            "p50_ms": p50,
            "p99_ms": p99,
            "images_per_second": float(np.median(self.rates)),
            "memory_mb": memory,
            "start_s": self.start,
            "file_mb": sum(file.stat().st_size for file in weights if file.is_file()) / 1e6,
            "metric": self._ask(["metric", data]) if data is not None else None,
        }

    def _ask(self, request: Any) -> Any:
        to, back = cast(IO[str], self._child.stdin), cast(IO[str], self._child.stdout)
        with suppress(BrokenPipeError):  # it has ended: its last words are on standard error
            to.write(json.dumps(request) + "\n")
            to.flush()
        answer = back.readline()
        if not answer:
            raise RuntimeError(f"the process that measures {self.file} has ended with code {self._child.wait()}")
        told = json.loads(answer)
        if "error" in told:
            raise UserError(**told["error"])
        return told["value"]


def _short(path: str) -> str:
    parts = Path(path).parts
    return "/".join(parts[-2:])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
