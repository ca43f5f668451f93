"""`models`: what can be built by name, with source, size, licence of the weights and what is published of them. Loads no torch."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from saccade.core import licenses, modelfile
from saccade.core.errors import UserError, unknown
from saccade.nn import fetching
from saccade.task import ModelRow
from saccade.tasks import ROOMS, known_as, room
from saccade.tasks.classification import models as classifiers
from saccade.tasks.classification.models import hf_rows

if TYPE_CHECKING:
    from pandas import DataFrame

    from saccade.core.card import Card
    from saccade.core.modelfile import Buffer

SORTS = ("name", "parameters", "metric")
UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
FILE = "file"  # source of a model that lies in a file


@dataclass(frozen=True)
class Entry:
    """One model. source: the library that builds it; parameters: see `Task.models`, None of a file that does not tell (an exported one) or
    whose network cannot be built here; flops: operations for one image of `size` (height, width), None where not counted; license: of the
    published weights, "" without any; metric on dataset: published of them (accuracy, mean average precision, mean overlap), None where not
    known; local: whether weights lie on this machine; descent: of a model file, the weights that it descends from, oldest first
    (`core.licenses`), of weights by their tag these."""

    name: str
    task: str
    source: str
    parameters: int | None
    flops: int | None
    size: tuple[int, int] | None
    license: str
    metric: float | None
    dataset: str
    local: bool
    descent: tuple[Mapping[str, str], ...] = ()


class Models(Sequence[Entry]):
    """Entries, as a list, and as what other tools take."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self._entries[index]

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {"models": [asdict(one) for one in self]}

    def to_pandas(self) -> DataFrame:
        """A table of a row a model; raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("pandas is not installed", where="to_pandas", fix="pip install pandas") from None
        return pandas.DataFrame([asdict(one) for one in self])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(one.name)}</td><td>{one.task}</td><td>{one.source}</td>"
            f"<td style='text-align:right'>{'' if one.parameters is None else format(one.parameters, ',')}</td>"
            f"<td>{html.escape(one.license)}</td></tr>"
            for one in self._entries[:50]
        )
        rest = f"<p>and {len(self) - 50:,} more</p>" if len(self) > 50 else ""
        return f"<table><tr><th>name</th><th>task</th><th>source</th><th>parameters</th><th>license</th></tr>{rows}</table>{rest}"


def models(
    name: str | Path | None = None,
    *,
    task: str | None = None,
    max_params: int | str | None = None,
    license: str | Sequence[str] | None = None,
    sort: str = "name",
) -> Models:
    """What `train --model` takes, or of it what fits.

    name: one of them, a set of weights of one (`convnext_tiny.in12k_ft_in1k`), a pattern (`resnet*`), `hf/OWNER/NAME` or `hf/FOLDER` of a
    classifier of transformers, of which the configuration and the model card are read, or a model file, a run folder or an exported file.
    task: of one room. max_params: a number, or `30M`. license: of published weights, one or several (a list, or names with commas between);
    models without published weights have none. sort: "name", "parameters" (few first) or "metric" (best first, per data set it was measured
    on). Heads and decoders also stand on any network of timm: `fasterrcnn/densenet121`, `unet/resnet34`. Raises UserError for what there is
    none of.
    """
    if task is not None and task not in ROOMS:
        raise unknown("task", task, ROOMS, where="--task")
    if sort not in SORTS:
        raise unknown("order", sort, SORTS, where="--sort")
    if name is not None and (os.path.exists(name) or Path(name).suffix in modelfile.SUFFIXES):
        return Models([_of_file(Path(name))])
    every = _all()
    kept = _named([entry for entry in every if task in (None, entry.task)], name, task)
    if max_params is not None:
        most = _count(max_params)
        kept = [entry for entry in kept if (entry.parameters or 0) <= most]
    if license is not None:
        wanted = licenses.names(license)
        _known({entry.license for entry in (*every, *kept)}, wanted)
        kept = [entry for entry in kept if entry.license and licenses.allowed(entry.license, wanted)]
    return Models(sorted(kept, key=_order(sort)))


def _known(there: set[str], wanted: Sequence[str]) -> None:
    """Raise UserError for a licence that no model is under, which is a typo sooner than a wish."""
    for one in wanted:
        if not any(licenses.allowed(license, [one]) for license in there):
            raise unknown("licence", one, sorted(there - {""}), where="--license")


def _all() -> list[Entry]:
    here = _local()
    return [_entry(row, task, local=here(row)) for task in ROOMS for row in room(task).models()]


def _entry(row: ModelRow, task: str, *, local: bool) -> Entry:
    facts = (row.parameters, row.flops or None, row.size, row.license, row.metric, row.dataset, local)
    return Entry(row.name, task, row.source, *facts)


def _named(entries: list[Entry], name: str | Path | None, task: str | None) -> list[Entry]:
    if name is None:
        return entries
    asked = known_as(str(name))
    if any(mark in asked for mark in "*?["):
        return [entry for entry in entries if fnmatchcase(entry.name, asked)]
    found = [entry for entry in entries if entry.name == asked]
    row = next((entry for entry in entries if entry.name == asked.partition(".")[0]), None)
    if not found and row is not None and row.source in ("timm", "torchvision"):
        return [_of_tag(asked, row)]
    if not found and asked.startswith(hf_rows.PREFIX) and task in (None, "classify"):
        return [_of_hub(asked)]
    if not found:
        raise unknown("model", asked, [entry.name for entry in entries], where="models")
    return found


def _of_tag(name: str, row: Entry) -> Entry:
    """One set of weights of a network by its tag: `convnext_tiny.in12k_ft_in1k`, `torchvision/resnet50.IMAGENET1K_V1`. Their licence, size
    and source are what the library states (it is loaded); so is the figure of torchvision's, that of timm's is the table's."""
    from saccade.nn import pretrained

    tags = pretrained.tags(row.name)
    if name not in tags:
        raise unknown("weights", name, tags, where="models")
    told = pretrained.weights(name)
    here = told.repo.replace("/", "--") in _held() if told.repo else (fetching.cache() / told.file).is_file()
    metric = classifiers.measured(name) if told.metric is None else told.metric
    figure = (metric, classifiers.IMAGENET if metric is not None else "")
    flops = row.flops if told.size == row.size else None
    link = licenses.link(name, license=told.license, source=told.address, data=told.data)
    return Entry(name, row.task, row.source, row.parameters, flops, told.size, told.license, *figure, here, (link,))


def _of_hub(name: str) -> Entry:
    """One of transformers that stands in no table. torch is loaded, to count."""
    from saccade.tasks.classification.models import hf

    row, place = hf.row(name), hf_rows.source(name)
    return _entry(row, "classify", local=_has_weights(place) if isinstance(place, Path) else _local()(row))


def _order(sort: str) -> Any:
    if sort == "parameters":
        return lambda entry: (entry.parameters or 0, entry.name)
    if sort == "metric":
        return lambda entry: (entry.metric is None, entry.dataset, -(entry.metric or 0.0), entry.name)
    return lambda entry: (entry.name, entry.task)


def _count(text: int | str) -> float:
    """A number of parameters: 30000000 or 30M."""
    said = str(text).strip().lower()
    unit = UNITS.get(said[-1:], 1.0)
    try:
        value = float(said[:-1] if said[-1:] in UNITS else said) * unit
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"must be a number above 0, such as 5000000 or 5M, was {text!r}", where="--max-params")
    return value


def _of_file(path: Path) -> Entry:
    """What a model file, the best model of a run, or an exported file says of itself."""
    from saccade.api.models import model_path
    from saccade.prediction.opening import find_export, open_export

    count: int | None = None
    if (exported := find_export(path)) is not None:
        card = open_export(exported).card
    else:
        buffers, card = modelfile.load(model_path(path))
        count = _parameters(card, buffers)
    primary = room(card.task).metrics(card).primary
    under = ",".join(sorted({row.get("license", "") for row in card.licenses} - {""}))
    name, figure = str(card.architecture.get("name", "")), card.metrics.get(primary)
    return Entry(name, card.task, FILE, count, None, card.input.size, under, figure, card.data, True, card.descent)


def _parameters(card: Card, buffers: Mapping[str, Buffer]) -> int | None:
    """How many numbers of a file are learned: the network itself says which. None where it cannot be built here."""
    from saccade.api.models import fresh

    try:
        return sum(parameter.numel() for parameter in fresh(card, buffers).parameters())
    except UserError:
        return None


def _local() -> Callable[[ModelRow], bool]:
    """Whether the published weights of a row lie on this machine: in the cache of the Hugging Face hub, whatever their tag, or in ours."""
    held = _held()
    timms = {name.removeprefix("timm--").partition(".")[0] for name in held if name.startswith("timm--")}
    fetched = {place.name for place in fetching.cache().glob("*")}

    def here(row: ModelRow) -> bool:
        kept = {"timm": timms, "torchvision": fetched}.get(row.source, held)
        return (row.weights.replace("/", "--") or row.name) in kept

    return here


def _held() -> set[str]:
    """Repositories of the Hugging Face hub whose weights lie in its cache: OWNER--NAME."""
    home = Path(os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return {place.parent.parent.name.removeprefix("models--") for place in cache.glob("models--*/snapshots/*") if _has_weights(place)}


def _has_weights(snapshot: Path) -> bool:
    """Whether a repository's copy holds more than its configuration."""
    return any(path.suffix in (".safetensors", ".bin") for path in snapshot.iterdir())
