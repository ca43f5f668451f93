"""`export`: a file for another runtime, and the proof that it answers as the original does; no proof, no file."""

from __future__ import annotations

import hashlib
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade import __version__
from saccade.api.models import EXIT_THRESHOLD, Model, load_model
from saccade.api.runs import read_record
from saccade.api.sets import check_found, relabelled
from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.geometry import whole
from saccade.core.progress import Progress, automatic
from saccade.core.rundir import RunDir
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.evaluation import proof, reference
from saccade.evaluation.proof import Case, Proof
from saccade.evaluation.reference import FEW, Reference
from saccade.prediction.opening import open_export
from saccade.prediction.session import ExportedFile, Session
from saccade.tasks import answering, room

if TYPE_CHECKING:
    from saccade.exporting.graph import Graph
    from saccade.exporting.targets import Written

CERTIFICATE = "CERTIFICATE.json"
TOLERANCE = 0.5
ROUNDS = 20
REFERENCE_BYTES = 256 << 20


@dataclass(frozen=True)
class Export:
    """What `export` and `verify` found. `file` and `certificate` are None where the proof failed and nothing was written.

    facts: what CERTIFICATE.json holds: the proof's figures and checks, sizes, latencies, versions.
    """

    file: Path | None
    certificate: Path | None
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether the exported file answers as the original does."""
        return bool(self.facts["verdict"] == "pass")

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        paths = {name: None if path is None else str(path) for name, path in (("file", self.file), ("certificate", self.certificate))}
        return {**self.facts, **paths}


def export(
    target: str | Path,
    *,
    to: str = "onnx",
    data: str | Path | None = None,
    out: str | Path | None = None,
    precision: str = "fp32",
    tolerance: float = TOLERANCE,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Export:
    """Write a run's best model or a model file for another runtime, run it there over the validation images, and compare.

    `to`: "onnx" or "openvino"; `data`: the images to compare on (a run knows its own); `out`: the folder, by default
    exports/<to>-<precision> beside the model. float32 outputs must agree; "fp16" may lose `tolerance` points of the primary metric.
    The result's `passed` is False, and nothing is written, where the proof fails. Raises UserError where the request is at fault.
    """
    from saccade.exporting import targets
    from saccade.exporting.graph import assemble

    progress = progress or automatic()
    targets.check(to, precision)
    if not 0 <= tolerance <= 100:
        raise UserError(f"must be 0 to 100 points, got {tolerance:g}", where="--tolerance")
    model = load_model(target, device=device)
    if EXIT_THRESHOLD in model.card.metrics:
        progress.message("no image leaves an exported network early: its last layer answers for all")
        model = model.whole()
    decode = answering(model.card.task, "export").decode
    dataset, split, places = _images(Path(target), model, data)
    folder = Path(out) if out is not None else model.path.parent / "exports" / f"{to}-{precision}"
    _check_free(folder)
    progress.message(f"exporting {model.path} to {to}, {precision}")
    graph = assemble(model.module, decode, model.card)
    written = targets.write(to, graph, precision)
    places = _fewer(model, dataset, places)
    with tempfile.TemporaryDirectory(prefix="saccade-") as temporary:
        for name, content in written.files.items():
            Path(temporary, name).write_bytes(content)
        opened = open_export(Path(temporary, next(iter(written.files))), device=device)
        kept = _reference(model, dataset, places, graph, written, progress)
        case = Case(kept, dataset, places, precision == "fp32", tolerance, room(model.card.task).metrics, seed)
        proved = proved_by(opened, case, progress)
        latency = _latency(model, opened, dataset, places) if proved.passed else {}
    answers = kept.to_bytes()
    facts = _facts(opened, {**written.files, reference.FILE: answers}, proved) | {
        "dynamic": list(written.dynamic),
        "bytes": sum(map(len, written.files.values())),
        "precision": precision,
        "tolerance": tolerance,
        "split": split,
        "data": str(dataset.opened),
        "source": {"file": str(model.path), "sha256": reference.file_sum(model.path), "bytes": model.path.stat().st_size},
        "latency_ms": latency,
        "licenses": list(model.card.licenses),
    }
    if not proved.passed:
        return Export(None, None, facts)
    return _keep(folder, {**written.files, reference.FILE: answers}, facts)


def proved_by(opened: ExportedFile, case: Case, progress: Progress) -> Proof:
    """The proof of an opened file; one that its runtime refuses has failed it."""
    try:
        session = opened.session()
    except UserError as error:
        return proof.refused(case, UserError(error.message))
    return proof.prove(session, case, progress)


def _images(target: Path, model: Model, data: str | Path | None) -> tuple[Dataset, str, NDArray[np.int64]]:
    """The data set, the split that is compared on and its images, without those that training left out as unreadable."""
    run = RunDir(target)
    left_out: set[str] = set()
    if data is None:
        if not run.run_file.is_file():
            raise UserError("a model file does not know its data", where=str(target), fix="name the images to compare on with --data DATA")
        record = read_record(run)
        data = str(record["config"].get("data", ""))
        left_out = {str(bad["path"]) for bad in record["data"].get("bad", ())}
    dataset = relabelled(open_dataset(data, task=model.card.task), model.card.classes)
    split = next(name for name in ("val", "test", "train") if len(dataset.splits.get(name, ())))
    check_found(dataset, split)
    places = [place for place in dataset.split(split) if dataset.paths[place] not in left_out]
    if not places:
        raise UserError(f"no image of {split} can be read", where=str(dataset.root))
    return dataset, split, np.array(places, np.int64)


def _fewer(model: Model, dataset: Dataset, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many of the images as REFERENCE_BYTES hold the outputs for, evenly chosen: maps of masks take megabytes each, and are kept as
    large as those of the largest image."""
    spec = model.card.input
    largest = np.zeros((1, spec.channels, *whole(spec.size, spec.resize)), np.uint8)
    outputs = model.session("fp32").run(largest)
    each, least = sum(np.asarray(values).nbytes for values in outputs.values()), FEW
    if spec.resize == "native":
        height, width = np.max([whole(dataset.size(place), spec.resize) for place in places.tolist()], axis=0).tolist()
        each, least = each * height * width // (largest.shape[2] * largest.shape[3]), 1
    most = max(least, REFERENCE_BYTES // each)
    return places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).round().astype(int)]


def _reference(model: Model, dataset: Dataset, places: NDArray[np.int64], graph: Graph, written: Written, progress: Progress) -> Reference:
    sizes = [model.card.input.size, *(graph.sizes if "height" in written.dynamic else ())]
    progress.start("answers of the original", len(places) + min(FEW, len(places)) * (len(sizes) - 1), "images")
    try:
        return reference.answer(model.session("fp32"), dataset, places, sizes, progress)
    finally:
        progress.finish()


def _latency(model: Model, opened: ExportedFile, dataset: Dataset, places: NDArray[np.int64]) -> dict[str, float]:
    """Median milliseconds of one image, prepared, on all cores; in turns, so that whatever else the machine does hits both."""
    images = next(iter(reference.look(dataset, places[:1], model.card.input))).pixels[None]
    sessions: dict[str, Session] = {"reference": model.session("fp32"), "exported": opened.session()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(ROUNDS + 3):
        for name, session in sessions.items():
            begin = time.perf_counter()
            session.run(images)
            if number >= 3:
                taken[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in taken.items()}


def _facts(opened: ExportedFile, content: Mapping[str, bytes], proved: Proof) -> dict[str, Any]:
    return {
        "target": opened.target,
        **proved.to_dict(),
        "runtime": opened.runtime,
        "files": {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in content.items()},
        "input": {"name": "images", "dtype": "uint8", "layout": "BCHW", "channels": opened.card.input.channels},
        "saccade": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _check_free(folder: Path) -> None:
    """Raise UserError, before any work, where the export could not be written."""
    files.check_replaceable(folder)
    if folder.is_dir() and folder.samefile(Path.cwd()):
        raise UserError("is the current folder, which cannot be replaced by a whole one", where=str(folder), fix="name a new folder in it")


def _keep(folder: Path, content: Mapping[str, bytes], facts: dict[str, Any]) -> Export:
    """Certificate, reference and files, all or none of them."""
    first = next(iter(content))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.os_error(error, folder.parent, "make the folder") from None
    text = files.dumps({**facts, "file": first, "certificate": CERTIFICATE}).encode() + b"\n"
    files.write_folder(folder, {**content, CERTIFICATE: text})
    return Export(folder / first, folder / CERTIFICATE, facts)
