"""`adopt`: weights that others have trained become a model file, with all verbs on it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import __version__
from saccade.api import planning, taking
from saccade.core import config as configs
from saccade.core import files, licenses, modelfile
from saccade.core.card import InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.geometry import MULTIPLE
from saccade.data.sample import Schema
from saccade.tasks import known_as, room

if TYPE_CHECKING:
    from torch import nn

    from saccade.nn.checkpoints import Checkpoint

SIZE = (224, 224)  # where neither the user nor the table says one
LISTS = (".txt", ".names", ".csv", ".json")  # of names


@dataclass(frozen=True)
class Adopted:
    """What became of a file. model: the new file; loaded: tensors taken, of which `ordered` by shape and order alone; without: what their
    names were freed of; inside: the keys they stood under; unexpected: names of the file that the network has no place for."""

    model: str
    task: str
    classes: tuple[str, ...]
    loaded: int
    ordered: int
    without: str
    inside: str
    unexpected: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object of `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class _Pixels:
    """What weights expect of their input, as `adopt` says."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    bgr: bool = False


def adopt(  # the verb's options, by name
    file: str | Path,
    *,
    model: str,
    out: str | Path,
    classes: Sequence[str] | str | Path | None = None,
    size: tuple[int, int] | str | int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    license: str = licenses.UNKNOWN,
    source: str = "",
    data: str = "",
    task: str | None = None,
) -> Adopted:
    """Make a model file `out` of a file of weights (.safetensors, or pickled: .pt, .pth, .th, .bin, .ckpt) for the network `model`.

    classes: names in the order of the weights, a text with commas between them, or a file of a name a line; None numbers them. size,
    channels, mean, std: what the weights expect of their input, None as the network's table says; mean and std by channel, of values in
    0..1, or of values in 0..255 where a mean is above 1; bgr: blue comes first, in them too. license, source, data: of the weights, as
    their makers state it, where they are from and what they learned from, which the file carries on. task: which, where networks of this
    name are there for several. All of the network must be filled.
    Raises UserError, and then nothing is written.
    """
    seen = _Pixels(configs.parse_size(str(size)) if isinstance(size, str | int) else size, channels, mean, std, bgr)
    target = Path(out)
    if target.suffix != ".safetensors" or target.exists():
        raise UserError("must be a new file, NAME.safetensors", where=str(out), fix="give another --out")
    model = known_as(model)
    task = _task(model, task)
    named = _names(classes) if classes is not None else ()
    config = _config(task, model, seen)
    from saccade.nn import checkpoints

    checkpoint = checkpoints.read(Path(file))
    named = named or _numbered(config, checkpoint)
    network, card = room(task).create(config, _schema(task, named, config))
    card = replace(card, version=__version__, input=_input(card.input, seen), licenses=checkpoint.descent(license.lower(), source, data))
    place = replace(taking.place(room(task), config, _schema(task, named, config), network, card), rows={})
    taken = checkpoints.take(network, checkpoint, place, (), least=1.0)
    from saccade.nn import weights
    from saccade.nn.layers import normalize

    normalize.standardise(network, card.input)
    if seen.bgr:
        checkpoints.turn_colours(network)
    modelfile.save(target, weights.to_buffers(network), card)
    report = taken.report
    return Adopted(str(target), task, named, report.loaded, taken.match.ordered, taken.match.without, checkpoint.inside, report.unexpected)


def _task(model: str, asked: str | None) -> str:
    """The task of the weights; raises UserError where that is one of several, or one that they alone cannot say enough for."""
    able = planning.able(model)
    if asked is None and len(able) > 1:
        raise UserError(f"is a network for {', '.join(able[:-1])} and {able[-1]}", where=f"--model {model}", fix="say which with --task")
    task = asked or able[0]
    if task == "panoptic":
        fix = "train --weights FILE on data that say"
        raise UserError("weights do not say which of their classes are things and which stuff", where=f"--model {model}", fix=fix)
    return task


def _config(task: str, model: str, seen: _Pixels) -> TrainConfig:
    row = next((row for row in room(task).models() if row.name in (model, model.partition(".")[0])), None)
    size = seen.size or _square(row.size if row is not None else None) or SIZE
    channels = seen.channels or (1 if model == "lenet5" else 3)
    config = configs.override(TrainConfig(), {"task": task, "model": model, "size": size, "channels": channels})
    room(task).check(config)
    return config


def _square(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """As large, for images of either orientation, in multiples of 32."""
    if size is None or size[0] == size[1]:
        return size
    side = round(math.sqrt(size[0] * size[1]) / MULTIPLE) * MULTIPLE
    return side, side


def _schema(task: str, classes: tuple[str, ...], config: TrainConfig) -> Schema:
    return Schema(task, classes, {}, config.channels, config.size, uniform=True)


def _names(classes: Sequence[str] | str | Path) -> tuple[str, ...]:
    if isinstance(classes, str | Path):
        is_file = os.path.isfile(classes)  # not Path.is_file, which raises for many names in one text
        if not is_file and Path(classes).suffix in LISTS:
            raise UserError("no such file", where=f"--classes {classes}", fix="a file of a name a line, or a,b,c")
        if is_file and Path(classes).suffix == ".json":
            raise UserError("must be text of a name a line", where=f"--classes {classes}", fix="save it as such, or give a,b,c")
        classes = _lines(Path(classes)) if is_file else str(classes).split(",")
    names = tuple(name.strip() for name in classes if name.strip())
    if not names or len(set(names)) != len(names):
        raise UserError(f"must be different names, got {len(names)}", where="--classes", fix="a,b,c or a file of a name a line")
    return names


def _lines(path: Path) -> list[str]:
    try:
        return files.read_all(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError("must be text of a name a line, in UTF-8", where=f"--classes {path}", fix="save it as such, or give a,b") from None


def _numbered(config: TrainConfig, checkpoint: Checkpoint) -> tuple[str, ...]:
    """As many classes as the weights tell apart, by number."""
    from saccade.nn import checkpoints, weights

    one, two = (_network(config, count) for count in (1, 2))
    count = checkpoints.classes(checkpoint, one, weights.rows_of_classes(one, two, 1))
    return tuple(map(str, range(count)))


def _network(config: TrainConfig, count: int) -> nn.Module:
    return room(config.task).create(config, _schema(config.task, tuple(map(str, range(count))), config))[0]


def _input(spec: InputSpec, seen: _Pixels) -> InputSpec:
    """The card's, with the mean and standard deviation that were given."""
    mean, std = (tuple(map(float, given)) if given is not None else own for given, own in ((seen.mean, spec.mean), (seen.std, spec.std)))
    if len(mean) != spec.channels or len(std) != spec.channels or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise UserError(f"must be a number for each of {spec.channels} channels, std above 0", where="--mean, --std")
    if seen.mean is not None and max(mean) > 1:
        mean, std = tuple(value / 255 for value in mean), tuple(value / 255 for value in std)
    return replace(spec, mean=mean[::-1] if seen.bgr else mean, std=std[::-1] if seen.bgr else std)
