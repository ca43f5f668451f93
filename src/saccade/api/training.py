"""`train`: data, recipe, loop and report put together; nothing is written before everything has been checked."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.api import scheduling
from saccade.api.fitting import Start, fit, record
from saccade.api.planning import check_start, command, plan, settle
from saccade.api.runs import Run, read_record
from saccade.api.sets import check_labels, check_trainable
from saccade.api.setup import Setup, as_seen, fresh_model
from saccade.core import config as configs
from saccade.core import launch, licenses, memory
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.progress import Progress, Silent, automatic
from saccade.core.rundir import RunDir
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.training.ranks import Ranks, check_batch
from saccade.training.signals import notices_ignored

if TYPE_CHECKING:
    from saccade.training.budget import Resolved


def train(  # the verb's options, by name
    data: str | Path | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    size: tuple[int, int] | str | int | None = None,
    batch: int | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    config: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    license: str | Sequence[str] | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    on_nan: str | None = None,
    other_torch: bool = False,
    compile: bool = False,
    shard: bool = False,
    edits: Sequence[str] = (),
    images: bool = True,
    report: bool = True,
    device: str = "auto",
    precision: str = "auto",
    seed: int | None = None,
    progress: Progress | None = None,
    started: float | None = None,
) -> Run:
    """Train a model on a folder of images and keep the best; see `saccade train --help`.

    `license`: what weights from elsewhere may be under; others, and unknown ones, are refused before anything is read or fetched. `set`
    maps dotted keys of TrainConfig to values; `started` is the monotonic time that `minutes` counts from. Without `report` no answers are
    kept and no page is written. `edits` change the network on the way ("at step 2000: deepen layer2 +1"). Under torchrun every process
    calls this and gets the Run; `batch` counts the images of all. Raises UserError for what is wrong, Interrupted after a signal.
    """
    started = time.monotonic() if started is None else started
    progress = progress or automatic()
    flags = {"pretrained": pretrained, "skip_bad": skip_bad, "compile": compile, "shard": shard}
    values: dict[str, Any] = {"task": task, "model": model, "epochs": epochs, "minutes": minutes, "size": _size(size), "seed": seed}
    values |= {"batch": None if batch == "auto" else batch, "workers": workers, "on_nan": on_nan}
    values |= {"license": licenses.names(license) or None, "weights": str(Path(weights).absolute()) if weights else None}
    values |= {"device": None if device == "auto" else device, "precision": None if precision == "auto" else precision}
    values |= {name: True for name, on in flags.items() if on} | ({} if images else {"images": False})
    asked: dict[str, Any] = {name: value for name, value in values.items() if value is not None} | dict(set or {})
    asked |= {"edits": tuple(edits)} if edits else {}
    place = Path(out) if out is not None else None
    with notices_ignored(), memory.kept(), Ranks.joined() as ranks:
        now = _Now(ranks, progress if ranks.is_first else Silent(), started, report)
        again = launch.restarts() and place is not None and RunDir(place).run_file.is_file()
        if again and not resume:  # the request is that of the first start, which the run has taken up
            return _resume(now, place, data, {}, other_torch=False)
        if resume:
            asked |= {"config": config} if config is not None else {}
            return _resume(now, place, data, asked, other_torch=other_torch)
        if other_torch:
            raise UserError("--other-torch goes with --resume", where="train")
        return _begin(now, place, data, config, asked)


@dataclass(frozen=True)
class _Now:
    """The processes at work, what they show, the clock of the command, and whether a report is wanted."""

    ranks: Ranks
    progress: Progress
    started: float
    report: bool


def _begin(now: _Now, out: Path | None, data: str | Path | None, config: str | Path | None, asked: dict[str, Any]) -> Run:
    """Check all of the request before anything is read or written."""
    ranks = now.ranks
    settled = ranks.after_first(lambda: settle(config, asked))
    source = data if data is not None else settled.get("data")
    ranks.first(lambda: _check_places(source, out, ranks.world))
    dataset = ranks.after_first(lambda: _trainable(str(source), settled))
    ranks.first(lambda: check_labels(dataset, skip_bad=bool(settled.get("skip_bad")), progress=now.progress))
    asked.pop("data", None)
    return _train(now, dataset, settled, command(dataset, config, asked), out)


def _check_places(data: str | Path | None, out: Path | None, world: int) -> None:
    if not data:
        raise UserError("DATA is missing", where="train", fix="give the folder of images: saccade train photos/")
    if world > 1 and out is None:
        raise UserError("several processes need --out", where="train", fix="give --out RUN, so that a restarted one finds the run")
    _check_writable(out)
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:  # torch wants one when it is imported
        raise UserError("there is no folder for temporary files", where="TMPDIR", fix=f"name one that may be written: {error}") from None


def _trainable(data: str | Path, settled: Mapping[str, Any]) -> Dataset:
    dataset = open_dataset(data, task=settled.get("task"))
    check_trainable(dataset)
    return dataset


def _train(now: _Now, dataset: Dataset, settled: Mapping[str, Any], line: str, out: Path | None) -> Run:
    from saccade.training import precision, sharding
    from saccade.training.budget import Resolved

    ranks = now.ranks
    on = precision.device(ranks.device(str(settled.get("device", "auto"))))
    config, reasons = plan(dataset, settled, on.type)
    ranks.first(lambda: check_batch(config.batch, ranks.world))
    ranks.first(lambda: sharding.check(config.shard, ranks.world))
    for reason in reasons:
        now.progress.message(reason)
    if dataset.annotations.outside:
        now.progress.message(f"{dataset.annotations.outside} of {len(dataset)} images are links to outside of {dataset.root}")
    if unnamed := dataset.unnamed():
        now.progress.message(unnamed)
    if config.compile:
        _check_compiler(str(settled.get("device", "auto")), ranks)
    ranks.first(lambda: scheduling.check_texts(config))
    dataset = as_seen(dataset, config)
    model, card, learned = ranks.after_first(lambda: fresh_model(dataset, config, now.progress, ranks))
    ranks.first(lambda: scheduling.try_out(config, model, card, len(dataset.split("train")), now.progress))
    setup = ranks.after_first(lambda: Setup.make(dataset, config, now.progress, ranks))
    resolved = Resolved(**ranks.first(lambda: setup.resolve(model, card, now.started).to_dict()))
    ranks.first(lambda: scheduling.check_times(config, resolved))

    made: list[RunDir] = []

    def make() -> str:
        made.append(RunDir.at(out, resume=False) if out is not None else RunDir.create(Path("runs"), dataset.name))
        return str(made[0].path)

    path = ranks.first(make)
    run = made[0] if made else RunDir(path)
    with _locked(run, ranks):
        ranks.first(run.check_free)  # somebody may have been quicker
        told = record(setup, resolved, reasons, line) | {"descent": list(card.licenses)}
        return fit(Start(setup, run, model, card, setup.taken_up(resolved), now.started, 0.0, told, learned, report=now.report))


def _resume(now: _Now, out: Path | None, data: str | Path | None, asked: Mapping[str, Any], *, other_torch: bool) -> Run:
    """Go on with a run as it was configured; `device`, `workers` and what is done about numbers that are none may differ."""
    ranks = now.ranks
    run = ranks.after_first(lambda: _resumable(out, asked))
    with _locked(run, ranks):
        told = ranks.after_first(lambda: read_record(run))
        ranks.first(lambda: _check_torch(run, told, other_torch))
        resolved = _resolved(told, run)
        settings = configs.from_dict(told["config"], where=str(run.run_file))
        found = ranks.after_first(lambda: _unchanged(data if data is not None else settings.data, told))
        settings = configs.override(replace(settings, data=str(found.opened)), asked)
        if settings.device == "auto":
            settings = replace(settings, device=resolved.device)
        ranks.first(lambda: check_start(settings))
        ranks.first(lambda: check_batch(settings.batch, ranks.world))
        if settings.compile:
            _check_compiler(settings.device, ranks)
        dataset = as_seen(found, settings)
        model, card, learned = ranks.after_first(lambda: fresh_model(dataset, settings, now.progress, ranks))
        if list(card.licenses) != told.get("descent", list(card.licenses)):  # the start counts for as long as a run is drawn to it
            fix = "bring them back, or start a new run"
            raise UserError("the weights that the run started from are no longer what they were", where=str(run.path), fix=fix)
        setup = ranks.after_first(lambda: Setup.make(dataset, settings, now.progress, ranks, run.features))
        _check_pixels(setup, str(told["data"].get("pixels", "")))
        # A step that was left out is met again by whoever resumes from before it: then too it must be left out.
        changes = {"state": "running", "config": {**told["config"], "on_nan": settings.on_nan}}
        ready, seconds = setup.taken_up(resolved), _seconds(told, run)
        return fit(Start(setup, run, model, card, ready, now.started, seconds, changes, learned, resume=True, report=now.report))


def _check_compiler(device: str, ranks: Ranks) -> None:
    from saccade.nn import compiling
    from saccade.training import precision

    ranks.after_first(lambda: compiling.check(precision.device(ranks.device(device))))


def _seconds(told: Mapping[str, Any], run: RunDir) -> float:
    """How long the run has taken before."""
    value = told["time"].get("seconds") or 0.0
    if not isinstance(value, int | float):
        raise DamagedError(f"time.seconds must be a number, got {value!r}", where=str(run.run_file))
    return float(value)


def _resumable(out: Path | None, asked: Mapping[str, Any]) -> RunDir:
    if out is None:
        raise UserError("--resume needs the run's folder", where="train", fix="saccade train --resume --out RUN")
    other = [name for name in asked if name not in ("device", "workers", "on_nan", "shard")]
    if other:
        raise UserError(
            f"--resume goes on with the run as it was configured and takes no {other[0]}",
            where="train",
            fix="only --device, --workers, --on-nan and --shard may change",
        )
    return RunDir.at(out, resume=True)


def _locked(run: RunDir, ranks: Ranks) -> AbstractContextManager[None]:
    """The first process holds the run for all of them."""
    return run.lock() if ranks.is_first else nullcontext()


def _check_torch(run: RunDir, told: Mapping[str, Any], allowed: bool) -> None:
    """Another build of torch computes other last bits: refused, or told in the run's record where the user wants it."""
    import torch

    had = told.get("versions", {}).get("torch")
    if had == torch.__version__:
        return
    if not allowed:
        raise UserError(
            f"the run was trained with torch {had}, this is {torch.__version__}",
            where=str(run.path),
            fix="install that version, or go on with --other-torch: the last bits may then differ",
        )
    run.append_event({"event": "torch", "from": had, "to": torch.__version__})
    run.update_run({"versions": {**told["versions"], "torch": torch.__version__}})


def _unchanged(data: str | Path, told: Mapping[str, Any]) -> Dataset:
    dataset = open_dataset(data, task=told["config"].get("task"), format=told["data"].get("format"))
    if dataset.fingerprint() != told["data"].get("fingerprint"):
        raise other_images(dataset)
    return dataset


def _resolved(told: Mapping[str, Any], run: RunDir) -> Resolved:
    from saccade.training.budget import Resolved
    from saccade.training.state import checked

    return checked(Resolved, told["resolved"], f"{run.run_file}: resolved")


def _size(size: tuple[int, int] | str | int | None) -> tuple[int, int] | None:
    return configs.parse_size(str(size)) if isinstance(size, str | int) else size


def _check_pixels(setup: Setup, told: str) -> None:
    """Files of the same sizes may hold other pixels; a decoder of another version is no fault."""
    found = setup.pixels()
    if told.partition(" ")[0] == found.partition(" ")[0] and told != found:
        raise other_images(setup.dataset)


def other_images(dataset: Dataset) -> UserError:
    """The one line for a resumed run whose images are not what they were."""
    fix = "bring them back, or start a new run"
    return UserError("the images are no longer those that the run was trained on", where=str(dataset.root), fix=fix)


def _check_writable(out: Path | None) -> None:
    """Refuse a place that cannot be written before any image is read."""
    if out is not None:
        RunDir(out).check_free()
    place = out if out is not None else Path("runs")
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.exists() and not os.access(place, os.W_OK | os.X_OK):
        raise UserError("may not be written", where=str(place), fix="give another --out, or check its permissions")
