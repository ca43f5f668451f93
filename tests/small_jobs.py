"""Runs of a second, put together by hand: the room's example as data, a network of a few thousand weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from saccade.api.sharing import SharedSession
from saccade.core import keys, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import Packed
from saccade.core.config import AugmentConfig, GenerationConfig, SegmentationConfig, TrainConfig
from saccade.core.progress import Silent
from saccade.core.run_lengths import Patch
from saccade.core.rundir import RunDir
from saccade.data.loader import Batch, Loader, Source
from saccade.data.sample import Objects, Schema
from saccade.evaluation.evaluate import measure
from saccade.nn.layers.exits import telling
from saccade.objects.example import CLASSES as SQUARES
from saccade.objects.room import Room
from saccade.prediction.torch_session import TorchSession
from saccade.queries import rows
from saccade.tasks.classification.example import CLASSES
from saccade.tasks.classification.task import MEAN, STD, Classification
from saccade.tasks.detection.task import Detection
from saccade.tasks.generation import latents
from saccade.tasks.generation.task import Generation
from saccade.tasks.panoptic.example import CLASSES as SEGMENTS
from saccade.tasks.panoptic.example import STUFF
from saccade.tasks.panoptic.task import Panoptic
from saccade.tasks.segmentation.example import CLASSES as KINDS
from saccade.tasks.segmentation.task import Segmentation
from saccade.training.budget import Resolved
from saccade.training.loop import Job, Trainer
from saccade.training.ranks import Ranks

SIZE = (16, 16)
ARCHITECTURE = {
    "source": "saccade",
    "name": "tiny",
    "arguments": {"classes": 3, "channels": 3, "width": 4, "blocks": [1, 1], "stem_stride": 1, "dropout": 0.2},
}
CARD = Card("classify", CLASSES, ARCHITECTURE, InputSpec(3, SIZE, "crop", MEAN, STD))
CONFIG = TrainConfig(
    model="tiny",
    size=SIZE,
    batch=6,
    lr=3e-3,
    warmup=0.2,
    ema=0.1,
    clip=1.0,
    device="cpu",
    precision="fp32",
    workers=0,
    augment=AugmentConfig(flip=0.5, crop=0.6, cutmix=0.5),
)
IMAGES, STEPS = 20, 12  # an epoch has 4 steps


class Stopping(Silent):
    """Sends this process a signal once `after` steps of training are done; keeps the messages."""

    def __init__(self, after: int = 0, number: int = signal.SIGTERM) -> None:
        self.after, self.number = after, number
        self.steps, self.training = 0, False
        self.messages: list[str] = []

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        self.training = name == "training"

    def advance(self, n: int = 1) -> None:
        self.steps += self.training
        if self.training and self.steps == self.after:
            signal.raise_signal(self.number)

    def message(self, text: str) -> None:
        self.messages.append(text)


def resolved(total: int = STEPS, *, every: int = 4, workers: int = 0) -> Resolved:
    return Resolved("cpu", "fp32", torch.get_num_threads(), workers, 4, total, every)


def source() -> Source:
    batch = Classification().example(IMAGES, keys.generator(0, "test", 0))
    pixels: Any = [image.permute(1, 2, 0).contiguous().numpy() for image in batch.images]
    return Source(pixels, batch.targets["label"].tolist(), [f"{i}.png" for i in range(IMAGES)])


def evaluator(ranks: Ranks | None = None) -> Any:
    """The real evaluation, on nine other images."""
    task, batch = Classification(), Classification().example(9, keys.generator(0, "test", 1))
    rows = [(batch.images.numpy(), batch.targets["label"].tolist(), [str(i) for i in range(9)], [SIZE] * 9)]

    def evaluate(module: nn.Module) -> Any:
        metric = task.metrics(CARD)
        session = SharedSession(TorchSession(telling(module), CARD, task.decode), ranks or Ranks())
        measure(session, rows, metric, progress=Silent())
        return metric.compute()

    return evaluate


def making_job(path: Path, model: str, workers: int = 0) -> Job:
    """A run of STEPS steps of a model that makes images, measured by their mean colours."""
    task = Generation()
    settings = GenerationConfig(conditional=True, latent=0 if model == "vqvae" else 4, features="colours", r1=1.0, r2=0.5, penalty_every=2)
    settings = replace(settings, adaptive=True, augment=0.3, kl_warmup=3)
    config = replace(CONFIG, task="generate", model=model, clip=0.0, on_nan="back", generation=settings, augment=AugmentConfig(flip=0.5))
    torch.manual_seed(keys.derive(config.seed, "init", 0))
    network, card = task.create(config, Schema("generate", ("a", "b", "c"), {"train": (7, 7, 6)}, 3, SIZE, True))
    loader = Loader(source(), task.augment(config), seed=config.seed, batch=config.batch, workers=workers)

    def evaluate(module: nn.Module) -> Any:
        metric: Any = task.metrics(card)
        made = task.sample(module, latents.draw(0, 9, task.latent(module)), np.arange(9) % 3)
        real = np.stack(list(source().store))  # type: ignore[call-overload]
        metric.update(list(made.mean((1, 2))), list(real.mean((1, 2))))
        if task.encodes(module):
            noise = np.zeros((1, len(real), task.latent(module)), np.float32)
            taken = task.take(module, real.transpose(0, 3, 1, 2), np.array(source().targets), noise)
            metric.update_taken(real, taken.nats, taken.reconstructions)
        return metric.compute()

    path.mkdir(parents=True, exist_ok=True)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    facts = replace(resolved(workers=workers), threads=1)
    return Job(task, network.to(memory_format=layout), card, config, facts, loader, RunDir(path), evaluate, Silent())


def detecting_job(path: Path, workers: int = 0, task: Room | None = None) -> Job:
    """A run of STEPS steps of a detector of a few hundred weights on the room's example."""
    task = task or Detection()
    masks = task.name == "instances"
    arguments = {"classes": 3, "channels": 3, "widths": [4, 4, 4, 4], "blocks": [1, 1, 1, 1], "head": 4}
    arguments |= {"prototypes": 3} if masks else {}
    card = Card(task.name, SQUARES, {"source": "saccade", "name": "tiny", "arguments": arguments}, InputSpec(3, (64, 64), "fit", MEAN, STD))
    changes = AugmentConfig(flip=0.5, resize=(0.5, 1.5), mosaic=0.5, color=0.3, paste=0.5 if masks else 0.0)
    return objects_job(path, workers, task, card, changes)


def panoptic_job(path: Path, workers: int = 0) -> Job:
    """The same of Mask2Former, which `tiny_queries` must have made tiny before."""
    spec = InputSpec(3, (64, 64), "fit", MEAN, STD)
    card = Card("panoptic", SEGMENTS, rows.architecture("mask2former_swin_tiny", 3, 3), spec, stuff=STUFF)
    return objects_job(path, workers, Panoptic(), card, AugmentConfig(flip=0.5, resize=(0.5, 1.5), mosaic=0.5, color=0.3))


def objects_job(path: Path, workers: int, task: Room | Panoptic, card: Card, changes: AugmentConfig) -> Job:
    """A run of STEPS steps of a network that finds squares, on its room's example."""
    config = replace(CONFIG, task=task.name, size=(64, 64), augment=changes)
    torch.manual_seed(keys.derive(config.seed, "init", 0))
    network = task.build(card)
    loader = Loader(
        boxed(task.example(IMAGES, keys.generator(0, "test", 0))), task.augment(config), seed=0, batch=config.batch, workers=workers
    )
    others = boxed(task.example(9, keys.generator(0, "test", 1)))

    def evaluate(module: nn.Module) -> Any:
        metric = task.metrics(card)
        images = np.stack(list(others.store)).transpose(0, 3, 1, 2)  # type: ignore[call-overload]
        measure(TorchSession(module, card, task.decode), [(images, others.targets, others.names, others.sizes)], metric, progress=Silent())
        return metric.compute()

    path.mkdir(parents=True, exist_ok=True)
    facts = replace(resolved(workers=workers), threads=1)
    return Job(task, network.to(memory_format=torch.channels_last), card, config, facts, loader, RunDir(path), evaluate, Silent())


def segmenting_job(path: Path, workers: int = 0) -> Job:
    """A run of STEPS steps of a network of a few thousand weights on the room's example, in pieces of half its size."""
    task = Segmentation()
    arguments = {"classes": 3, "channels": 3, "widths": [4, 4, 4, 4, 4], "blocks": [1, 1, 1, 1, 1]}
    architecture = {"source": "saccade", "name": "tiny", "arguments": arguments}
    card = Card("segment", KINDS, architecture, InputSpec(3, (32, 32), "native", MEAN, STD))
    loss = SegmentationConfig(native=True, lovasz=0.5, focal=0.5, boundary=0.1, class_weights=(1.0, 2.0, 2.0))
    changes = AugmentConfig(flip=0.5, resize=(0.7, 1.4), mosaic=0.3, color=0.3)
    config = replace(CONFIG, task="segment", size=(32, 32), augment=changes, segmentation=loss)
    torch.manual_seed(keys.derive(config.seed, "init", 0))
    network = task.build(card)
    source, others = (masked(task.example(n, keys.generator(0, "test", number))) for number, n in enumerate((IMAGES, 9)))
    loader = Loader(source, task.augment(config), seed=0, batch=config.batch, workers=workers)

    def evaluate(module: nn.Module) -> Any:
        metric = task.metrics(card)
        images = np.stack(list(others.store)).transpose(0, 3, 1, 2)  # type: ignore[call-overload]
        measure(TorchSession(module, card, task.decode), [(images, others.targets, others.names, others.sizes)], metric, progress=Silent())
        return metric.compute()

    path.mkdir(parents=True, exist_ok=True)
    facts = replace(resolved(workers=workers), threads=1)
    return Job(task, network.to(memory_format=torch.channels_last), card, config, facts, loader, RunDir(path), evaluate, Silent())


def masked(batch: Batch) -> Source:
    """The room's example as images with a class for each pixel."""
    pixels: Any = [image.permute(1, 2, 0).contiguous().numpy() for image in batch.images]
    targets = [Packed.of(mask) for mask in batch.targets["classes"].numpy()]
    return Source(pixels, targets, [f"{i}.png" for i in range(len(pixels))], [target.size for target in targets])


def boxed(batch: Batch) -> Source:
    """The room's example as images with objects, squares that fill their boxes."""
    pixels: Any = [image.permute(1, 2, 0).contiguous().numpy() for image in batch.images]
    targets = []
    for boxes, labels in zip(batch.targets["boxes"].numpy(), batch.targets["labels"].numpy(), strict=True):
        none = np.zeros(int((labels >= 0).sum()), bool)
        squares = boxes[labels >= 0].astype(np.int64)
        parts = [Patch(np.ones((y2 - y1, x2 - x1), bool), y1, x1) for x1, y1, x2, y2 in squares.tolist()]
        masks = tuple(run_lengths.from_patch(part, batch.images.shape[2:]) for part in parts)
        targets.append(Objects(squares.astype(np.float64), labels[labels >= 0], none, none, masks))
    sizes = [(image.shape[0], image.shape[1]) for image in pixels]
    return Source(pixels, targets, [f"{i}.png" for i in range(len(pixels))], sizes)


def job(path: Path, config: TrainConfig = CONFIG, facts: Resolved | None = None, **changes: Any) -> Job:
    """A run of STEPS steps in `path`; `changes` replace fields of the job."""
    facts = facts or resolved()
    task = Classification()
    torch.manual_seed(keys.derive(config.seed, "init", 0))
    model = task.build(CARD)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    loader = Loader(
        source(), task.augment(config), seed=config.seed, batch=config.batch, micro_batch=config.micro_batch, workers=facts.workers
    )
    path.mkdir(parents=True, exist_ok=True)
    made = Job(task, model, CARD, config, facts, loader, RunDir(path), evaluator(), Silent())
    return replace(made, **changes)


@dataclass
class Outcome:
    """All that a finished run leaves, as comparable values: files by name -> bytes, rows without their times."""

    files: dict[str, bytes]
    loop: dict[str, Any]
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, run: RunDir) -> Outcome:
        _, files, passed = run.load_checkpoint()
        assert passed == []
        loop = json.loads(files.pop("state.json"))["loop"]
        kept = {"best": run.best.read_bytes(), "last": run.last.read_bytes()}
        return cls(files | kept, loop, [{k: v for k, v in row.items() if k != "time"} for row in run.metrics()], run.events())

    def differs(self, other: Outcome) -> list[str]:
        """The names of what is not equal to the bit."""
        wrong = [name for name in sorted(self.files.keys() | other.files) if self.files.get(name) != other.files.get(name)]
        return wrong + [name for name in ("loop", "rows", "events") if getattr(self, name) != getattr(other, name)]


def fit(made: Job) -> Outcome:
    """Run from the first step to the end."""
    Trainer(made).fit()
    return Outcome.of(made.run)


def go_on(made: Job) -> Outcome:
    """Resume and run to the end."""
    trainer = Trainer(made)
    trainer.resume()
    trainer.fit()
    return Outcome.of(made.run)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These networks are so small that two threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
