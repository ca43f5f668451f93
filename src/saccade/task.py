"""The doors of a room: all that rooms and engines share. No torch at import."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.config import AugmentConfig, TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Sample, Schema

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.cache import Preparation
    from saccade.data.loader import Batch

Array = NDArray[Any]
Outputs: TypeAlias = "Tensor | tuple[Tensor, Tensor]"  # what a network gives, as its room's own doors take it


@dataclass(frozen=True)
class Budget:
    """What the user has settled already; None or "": the recipe decides. pretrained: weights to start from that have learned already;
    learned: the (height, width) that they did at, where known; published: they are to be those that are published for the model."""

    epochs: float | None = None
    minutes: float | None = None
    model: str = ""
    size: tuple[int, int] | None = None
    pretrained: bool = False
    learned: tuple[int, int] | None = None
    published: bool = False

    def limit(self, device: str, most: float, reasons: list[str]) -> float | None:
        """The minutes of a run: as asked, else at most `most` on a processor where no epochs were asked for, and its reason is added."""
        if self.minutes is not None or device != "cpu" or self.epochs is not None:
            return self.minutes
        reasons.append(f"minutes: {most:g} at most, a first result on a processor; --minutes or --epochs for more")
        return most


@dataclass(frozen=True)
class ModelRow:
    """One model that a room can build. license: of the pre-trained weights ("" without any); size: (height, width) that it was made for,
    None where any will do; flops: operations for one image of that size, 0 where not counted; weights: what its published weights lie under
    in a cache, the name of a repository of the hub or of a file, "" where the row's name is that; tag: what its library calls them, where
    it has no others and the row's name is without it."""

    name: str
    source: str
    parameters: int
    license: str = ""
    metric: float | None = None
    dataset: str = ""
    size: tuple[int, int] | None = None
    flops: int = 0
    weights: str = ""
    tag: str = ""


@lru_cache
def _operations(package: str) -> Mapping[str, int]:
    found: Mapping[str, int] = json.loads(files(package).joinpath("table.json").read_text(encoding="utf-8"))["flops"]
    return found


def counted(rows: Iterable[ModelRow], package: str) -> list[ModelRow]:
    """Rows with the operations that are counted of them in the `table.json` of a room's models (`scripts/operations.py` writes it)."""
    return [replace(row, flops=_operations(package).get(row.name, 0)) for row in rows]


@dataclass(frozen=True)
class Losses:
    """A loss as a sum over its terms: `total` is differentiated, divided by the global `weight` before clipping.

    total: scalar tensor, a sum (not a mean); weight: how many terms it sums; parts: named sums for the log.
    """

    total: Tensor
    weight: float
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One update of a training step: a classifier has one, a GAN two.

    modules: the ones it trains (all others are frozen meanwhile); loss(batch, step) -> Losses;
    every: takes part in each `every`-th step; after_step: called when its step is done; pace: told before it
    what share of the run lies behind, 0..1; steady: from which share of the run on its steps take as long as any that follow.
    """

    name: str
    modules: Sequence[nn.Module]
    loss: Callable[[Batch, int], Losses]
    every: int = 1
    after_step: Callable[[int], None] | None = None
    pace: Callable[[float], None] | None = None
    steady: float = 0.0


HAS_WEIGHTS = "the smallest usual one with published weights"
NO_COLOURS = "hue, saturation and grey copies left out: {} bands are no colours"


def without_colours(changes: AugmentConfig, channels: int) -> AugmentConfig:
    """The changes that make sense for images that are no colours. Four channels change as colours and alpha do, so none of brightness."""
    return replace(changes, hue=0.0, grey=0.0, color=0.0 if channels == 4 else changes.color)


def refuse_bands(channels: int, most: tuple[int, ...], task: str) -> None:
    """Raise UserError for channels that a room does not take."""
    if channels not in most:
        told = f"{', '.join(map(str, most[:-1]))} or {most[-1]}"
        fix = "bands are for classify and segment; save three of them as RGB images"
        raise UserError(f"{task} takes images of {told} channels, got {channels}", where="channels", fix=fix)


def refuse_changes(config: AugmentConfig, known: Sequence[str], what: str) -> None:
    """Raise UserError where a change is switched on that `what` does not make; known: the names of those that it does."""
    for one in fields(config):
        if one.name not in known and getattr(config, one.name) != one.default:
            raise UserError(f"{one.name} is no change of {what}", where=f"augment.{one.name}", fix=f"those are {', '.join(known)}")


SECTIONS = {"generation": ("generate",), "segmentation": ("segment",), "objects": ("detect", "instances", "panoptic")}  # tasks of each


def refuse_sections(config: TrainConfig, task: str) -> None:
    """Raise UserError where a value of a section of the configuration is not its default that is for other tasks: it would be passed over.
    For runs that begin: older ones go on with what they have."""
    for section, whose in SECTIONS.items():
        values = getattr(config, section)
        changed = [one for one in fields(values) if getattr(values, one.name) != one.default]
        if changed and task not in whose:
            name, default, value = changed[0].name, json.dumps(changed[0].default), json.dumps(getattr(values, changed[0].name))
            said = f"is for {', '.join(whose)}, and must be {default} for {task}, was {value}"
            raise UserError(said, where=f"{section}.{name}", fix="leave it out")


def refuse_stuff(config: TrainConfig, stuff: Sequence[int]) -> None:
    """Raise UserError for another stuff than the data have."""
    if tuple(config.objects.stuff) != tuple(stuff):
        fix = f"--set objects.stuff=[{','.join(map(str, stuff))}], as the data have it"
        raise UserError(f"must be the places of the classes of stuff, was {list(config.objects.stuff)}", where="objects.stuff", fix=fix)


class Augment(Protocol):
    """What becomes of a decoded image before it is learned from; all randomness comes from keyed generators."""

    @property
    def preparation(self) -> Preparation:
        """What is done once to each decoded image, and kept."""
        ...

    def partners(self, position: int) -> Sequence[int]:
        """Further positions of the stream whose samples `apply` needs."""
        ...

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of the sample that an image of (height, width) becomes: batches are of one shape where that can be."""
        ...

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        """One training sample from the sample at a position and its partners."""
        ...

    def collate(self, samples: Sequence[Sample], positions: Array) -> Batch:
        """Samples of equal shape as one batch, with the work that is faster or only possible on a whole batch."""
        ...


class Metric(Protocol):
    """Figures over a set of images. NumPy only."""

    primary: str
    higher_is_better: bool

    @property
    def resamples(self) -> int:
        """Of a bootstrap, at most: few where figures take long."""
        ...

    def update(self, results: Sequence[Any], truths: Sequence[Any]) -> None:
        """Take up results and the truth of each."""
        ...

    def row(self, result: Any, truth: Any) -> dict[str, Any]:
        """What `predictions/<split>.jsonl` keeps of an image, as JSON values: `source`, the answer and the truth."""
        ...

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` [N] by image repeat images (bootstrap, paired comparison)."""
        ...

    def per_class(self) -> list[dict[str, Any]]:
        """One row a class."""
        ...

    def details(self) -> dict[str, Any]:
        """What a report draws beside the figures, as JSON values (classification: the confusion matrix, reliability)."""
        ...


class Task(Protocol):
    """The doors of a room, the same for all: those of `Answering` or those of `Making` stand beside them."""

    name: str

    def resize(self, config: TrainConfig) -> str:
        """How `core.prepare` fits an image to the model's input: "crop", "fit" or "native"."""
        ...

    def models(self) -> Sequence[ModelRow]:
        """What can be built by name."""
        ...

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, device ("cpu", "cuda", "mps") and budget, and its reasons, a line each."""
        ...

    def check(self, config: TrainConfig) -> None:
        """Raise UserError where this room cannot do what the configuration asks."""
        ...

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new model, and the card that rebuilds it."""
        ...

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The model that a card describes, with fresh weights; a card that asks for more than `elements` numbers is refused."""
        ...

    def augment(self, config: TrainConfig) -> Augment:
        """What training does to its images."""
        ...

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """The updates of a training step; asked for again after every change to the model."""
        ...

    def metrics(self, card: Card) -> Metric:
        """Fresh figures for this model's classes."""
        ...

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Why these figures, beside the best so far, mean that training has gone wrong and should go back; "" where it has not."""
        ...

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned: tests, export, docs."""
        ...


class Answering(Task, Protocol):
    """A room whose models answer for images: they predict, are explained, exported and served."""

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> dict[str, Tensor]:
        """The model's outputs as tensors of fixed shapes: exported with it; `core.finish` does the rest."""
        ...

    def features(self, model: nn.Module) -> nn.Module:
        """The module whose output explanation and embedding read."""
        ...

    def score(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """The scalar of each image, `[B]`, that explanation differentiates."""
        ...

    def draw(self, image: Array, result: Any, truth: Any | None = None) -> Image:
        """The answer, drawn over or below the image uint8 `[H, W, C]`."""
        ...


@dataclass(frozen=True)
class Taken:
    """What a model that makes images says of given ones.

    nats: lower bound of log p `[B]`; weighted: the tighter importance-weighted bound, or None; reconstructions: uint8 `[B, H, W, C]`.
    """

    nats: Array
    weighted: Array | None
    reconstructions: Array


class Making(Task, Protocol):
    """A room whose models make images. Latents are float32 `[N, L]` of a standard normal distribution, labels int64 `[N]` or None;
    images uint8 `[N, H, W, C]`, with 4 channels premultiplied by alpha."""

    def latent(self, model: nn.Module) -> int:
        """L."""
        ...

    def frequencies(self, model: nn.Module) -> Array:
        """How often each class was seen in training, float64 `[K]` that sums to 1; empty where images are not made by class."""
        ...

    def sample(self, model: nn.Module, latents: Array, labels: Array | None, truncation: float = 1.0) -> Array:
        """An image from each latent. `truncation` below 1: likelier and less different ones."""
        ...

    def encodes(self, model: nn.Module) -> bool:
        """Whether `take` and `encode` can be asked of this model."""
        ...

    def take(self, model: nn.Module, images: Array, labels: Array | None, noise: Array) -> Taken:
        """What the model says of images uint8 `[B, C, H, W]`; noise: normals `[S, B, L]`, S draws of the posterior."""
        ...

    def encode(self, model: nn.Module, images: Array, labels: Array | None) -> tuple[Array, Array]:
        """Mean and standard deviation of the posterior of images uint8 `[B, C, H, W]`: float32 `[B, L]` each."""
        ...

    def judge(self, model: nn.Module, images: Array, labels: Array | None) -> Array | None:
        """How real images uint8 `[B, C, H, W]` look to the model's own judge, float32 `[B]`; None where it has none."""
        ...
