"""A run made ready: images read and checked, the network with its first weights, and what has to be measured before step 0."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

from saccade import __version__
from saccade.api import judging, taking
from saccade.api.judging import Features, Looked
from saccade.api.licensing import LEARNED
from saccade.api.sets import Split, as_the_model_sees, check_found, check_trainable, read_split, refusal
from saccade.core import keys
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import Packed
from saccade.core.config import TrainConfig
from saccade.core.errors import one_line
from saccade.core.progress import Progress, Silent
from saccade.data.cache import BadFile
from saccade.data.dataset import Dataset
from saccade.task import Task
from saccade.tasks import MAKING, answering, making, room
from saccade.training.ranks import Ranks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from saccade.data.loader import Loader
    from saccade.training.budget import Number, Resolved


@dataclass(frozen=True)
class Setup:
    """Data and configuration, ready for the loop."""

    task: Task
    config: TrainConfig
    dataset: Dataset
    train: Split
    val: Split
    bad: list[BadFile]
    progress: Progress
    ranks: Ranks
    features: Features | None = None

    @classmethod
    def make(cls, dataset: Dataset, config: TrainConfig, progress: Progress, ranks: Ranks, features: Path | None = None) -> Setup:
        """Read every image of a set `as_seen` once; raises UserError that names all that cannot be read.

        features: where a run that makes images keeps the network that they are compared to real ones by, if it has one already.
        """
        task = room(config.task)
        given = None
        if config.task in MAKING and config.generation.features not in LEARNED:  # weights that may not be had, before images are read
            given = judging.named(config.generation.features, str(_device(config, ranks)))
        readers = config.workers or os.cpu_count() or 1
        kept = task.augment(config).preparation
        seen = as_the_model_sees(InputSpec(config.channels, config.size, task.resize(config)))
        failures: list[BadFile] = []
        splits = {}
        for name, preparation in (("train", kept), ("val", seen)):
            splits[name], bad = read_split(dataset, name, preparation, skip_bad=True, progress=progress, workers=readers)
            failures += bad
        if failures and not config.skip_bad:
            raise refusal(dataset, failures)
        if failures:
            progress.message(f"left out {len(failures)} of {len(dataset)} images that cannot be read")
            dataset = dataset.without(np.array([file.index for file in failures], np.int64))
            check_trainable(dataset)
        for name, split in splits.items():
            check_found(dataset, name, split)
        setup = cls(task, config, dataset, splits["train"], splits["val"], failures, progress, ranks)
        if config.task not in MAKING:
            return setup
        on = given or judging.features(config, dataset.schema, setup.train, str(setup.device), features, progress)
        return replace(setup, features=on)

    def pixels(self) -> str:
        """What a resumed run must find again: a hash of all prepared pixels and of the classes of pixels, by the library that decodes
        them."""
        digest = hashlib.sha256()
        for split in (self.train, self.val):
            digest.update(split.store.sums.tobytes())
            for target in split.targets:
                if isinstance(target, Packed):  # the fingerprint has no more of a mask than its path and the size of its file
                    digest.update(target.values.tobytes())
        return f"pillow-{PIL.__version__}-simplejpeg-{version('simplejpeg')} {digest.hexdigest()}"

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return _device(self.config, self.ranks)

    def loader(self, workers: int) -> Loader:
        """The stream of training batches."""
        from saccade.data.loader import Loader, Source

        source = Source(self.train.store, self.train.targets, self.train.names, self.train.sizes)
        config = self.config
        return Loader(
            source, self.task.augment(config), seed=config.seed, batch=config.batch, micro_batch=config.micro_batch, workers=workers
        )

    def evaluator(
        self, card: Card, resolved: Resolved, ranks: Ranks, keep: Callable[[Looked], None] | None = None
    ) -> Callable[[nn.Module], Mapping[str, float | None]]:
        """Measures a module on the validation images, without the bootstrap; the ranks share them out, and all get the figures.

        What makes images is measured by every rank alike."""
        from saccade.api.sharing import SharedSession
        from saccade.evaluation.evaluate import measure
        from saccade.nn.layers.exits import telling
        from saccade.prediction.torch_session import TorchSession

        # On a processor as `saccade eval` does, so that both find the same.
        number = "fp32" if self.device.type == "cpu" else resolved.precision

        def answers(module: nn.Module) -> Mapping[str, float | None]:
            decode = answering(self.config.task, "train").decode
            alone = TorchSession(telling(module), card, decode, device=resolved.device, precision=number)
            session = SharedSession(alone, ranks)
            metric = self.task.metrics(card)
            measure(session, self.val.batches(session.batch), metric, progress=Silent())
            return metric.compute()

        def images(module: nn.Module) -> Mapping[str, float | None]:
            on: Features = self.features  # type: ignore[assignment]
            looked = judging.look(making(self.config.task), module, card, on, ("val", self.val), count=judging.LOOKED_AT)
            if keep is not None and ranks.is_first:
                keep(looked)
            return looked.metric.compute()

        return answers if self.features is None else images

    def resolve(self, model: nn.Module, card: Card, started: float) -> Resolved:
        """Measure what has to be measured, once."""
        import torch

        from saccade.training import budget, precision

        config, on = self.config, self.device
        workers = config.workers if config.workers is not None else default_workers(on.type)
        per_epoch = budget.steps_per_epoch(len(self.train), config.batch)
        first = budget.Resolved(
            on.type if self.ranks.world > 1 else str(on),
            precision.resolve(config.precision, on),
            torch.get_num_threads(),
            workers,
            per_epoch,
            per_epoch,
            per_epoch,
        )
        if config.minutes is None:
            total, seconds, most = max(1, round(config.epochs * per_epoch)), 0.0, budget.MOST_EVALUATIONS
        else:
            number, seconds, evaluation = self._measure(model, card, first)
            first = replace(first, precision=number)
            left = config.minutes * 60 - (time.monotonic() - started)
            total, most = budget.steps_in(left, seconds, evaluation, per_epoch), budget.evaluations(left, evaluation)
            if config.epochs:
                total = min(total, max(1, round(config.epochs * per_epoch)))
            self.progress.message(f"{total} steps ({total / per_epoch:.1f} epochs) fit into {config.minutes:g} minutes")
        every = budget.evaluate_every(total, per_epoch, len(self.train), len(self.val), most)
        return replace(first, total_steps=total, evaluate_every=every, seconds_per_step=seconds)

    def _measure(self, model: nn.Module, card: Card, resolved: Resolved) -> tuple[Number, float, float]:
        """The format to compute in, and seconds of a training step and of an evaluation, on a copy of the model."""
        from saccade.nn.compiling import compiled
        from saccade.training import budget, precision
        from saccade.training.step import NotFiniteError, OutOfMemoryError, Updater

        self.progress.message("measuring the speed of a few steps")
        on = self.device
        copy = budget.copy_of(model)
        phases = self.task.phases(copy, self.config)
        updater = Updater(copy, phases, self.config, resolved.precision)
        if paced := any(phase.pace is not None for phase in phases):
            updater.progress = budget.spread
        if self.config.compile:
            compiled(copy)
        # This process alone, on its part of a batch: the others wait meanwhile.
        stream = self.loader(resolved.workers).share(0, self.ranks.world).stream(0)

        def step(format: Number, number: int) -> None:
            updater.precision = format
            batches = [batch.to(on, channels_last=self.config.channels_last) for batch in next(stream)]
            updater.step(batches, number, 0.0)

        ways = {name: partial(step, name) for name in self._formats(resolved.precision)}
        try:
            found = dict(zip(ways, budget.measure_steps(list(ways.values()), paced=paced), strict=True))
        except (RuntimeError, NotFiniteError, OutOfMemoryError) as error:
            if len(ways) == 1:
                raise
            self.progress.message(f"precision: fp32, as a step in bf16 failed: {one_line(str(error))[:200]}")
            found = {"fp32": budget.measure_steps([ways["fp32"]], paced=paced)[0]}
        stream.close()
        number, seconds = resolved.precision, found[resolved.precision]
        if found.get("bf16", math.inf) < precision.WORTH_IT * seconds:
            self.progress.message(f"precision: bf16, {seconds / found['bf16']:.1f} times as fast on this processor as fp32")
            number, seconds = "bf16", found["bf16"]
        if self.features is not None:
            self.features.of_split("val", self.val)  # computed once, whatever number of evaluations there are
        begin = time.perf_counter()
        self.evaluator(card, resolved, Ranks())(copy)
        return number, seconds, (time.perf_counter() - begin) / self.ranks.world

    def _formats(self, resolved: Number) -> tuple[Number, ...]:
        """Of which the faster is found out. What makes images stays with fp32: its penalties are of gradients of gradients, and of small
        differences; so do several processes, which may be on several machines."""
        from saccade.training import precision

        open_to = self.features is None and self.ranks.world == 1 and precision.open_to_bf16(self.config.precision, self.device)
        return (resolved, "bf16") if open_to else (resolved,)

    def taken_up(self, resolved: Resolved) -> Resolved:
        """The recorded facts on this machine: its device and workers may differ, its threads are set as they were."""
        import torch

        torch.set_num_threads(resolved.threads)
        workers = self.config.workers if self.config.workers is not None else resolved.workers
        return replace(resolved, device=str(self.device), workers=workers)


def as_seen(dataset: Dataset, config: TrainConfig) -> Dataset:
    """The set with the channels that its images are taken with."""
    return replace(dataset, schema=replace(dataset.schema, channels=config.channels))


def fresh_model(dataset: Dataset, config: TrainConfig, progress: Progress, ranks: Ranks) -> tuple[nn.Module, Card, frozenset[str]]:
    """The network for a set `as_seen` with its first weights, keyed by the seed, on its device; its card; names of the tensors that have
    learned before. No image is needed for it: weights that cannot be had are refused before any is read."""
    import torch

    task, schema = room(config.task), dataset.schema
    torch.manual_seed(keys.derive(config.seed, "init", 0))
    before = taking.edited(task, config, schema, progress) if config.weights else None
    model, card = before or task.create(config, schema)
    card = replace(card, version=__version__, data=dataset.name)
    learned: frozenset[str] = frozenset()
    if before:
        learned = frozenset(model.state_dict())
    elif config.weights:
        card, learned = taking.take(task, config, schema, model, card, progress)
    elif config.pretrained and config.start_decay:
        rows = taking.place(task, config, schema, model, card).rows
        learned = frozenset(name for name in model.state_dict() if name not in rows)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(_device(config, ranks)).to(memory_format=layout), card, learned


def _device(config: TrainConfig, ranks: Ranks) -> torch.device:
    from saccade.training import precision

    return precision.device(ranks.device(config.device))


def default_workers(device: str) -> int:
    """Threads that prepare batches: none on a processor, where they would fight for its cores; up to eight beside a GPU."""
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)
