"""What a run that makes images shows: samples as training went on, and the pictures of its report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.api import judging
from saccade.api.judging import Features, Looked
from saccade.api.sets import Split
from saccade.core import alpha, encoding, files, folders
from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.images import read
from saccade.core.rundir import RunDir
from saccade.evaluation.result import Evaluation
from saccade.task import Making

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[Any]
SHOWN = 64  # images of a sheet
OVER_TIME = 8  # sheets of the same latents, from the first to the last
ROWS = 8  # of images beside others
STEPS = 10  # images from one latent to another
LEAST = 5  # images that make a map
MAPPED = 1_000  # dots of the map of latents


def keep_samples(run: RunDir, step: int, looked: Looked) -> None:
    """Keep a sheet of the images that an evaluation made: their latents are the same each time."""
    from saccade.tasks.generation.drawing import grid

    folders.make(run.samples)
    sheet = shown(grid(looked.made[:SHOWN], ROWS))
    files.write_bytes(run.samples / f"step-{step:09d}.png", encoding.png(sheet))


def shown(images: Array) -> Array:
    """Images as files have them: straight alpha."""
    return alpha.straight(images) if images.shape[-1] == 4 else images


def conclude(task: Making, module: nn.Module, card: Card, on: Features, split: tuple[str, Split], seed: int) -> tuple[Evaluation, Looked]:
    """The final figures of a model, with intervals, and what they were taken of."""
    import time

    began = time.perf_counter()
    looked = judging.look(task, module, card, on, split, count=judging.FINAL, seed=seed)
    metric = looked.metric
    found = Evaluation(
        task=card.task,
        split=split[0],
        images=len(split[1]),
        seconds=time.perf_counter() - began,
        metrics=metric.compute(),
        intervals=metric.intervals(seed),
        details=metric.details(),
    )
    return found, looked


def pictures(
    task: Making, module: nn.Module, on: Features, looked: Looked, splits: tuple[Split, Split], run: RunDir
) -> Iterator[Mapping[str, Any]]:
    """{"title", "text", "picture"} for a report, of a model measured as `looked`; splits: training, held out."""
    from saccade.tasks.generation.drawing import grid

    train, held = splits
    yield _row("Made images", f"{SHOWN} images as they come, none picked", grid(looked.made[:SHOWN]))
    yield from _over_time(run)
    if looked.labels is not None:
        yield _by_class(task, module, looked)
    yield _between(task, module, looked)
    yield _nearest(on, looked, train)
    if task.encodes(module):
        yield from _taken_up(task, module, looked, held)


def _row(title: str, text: str, picture: Array) -> dict[str, Any]:
    return {"title": title, "text": text, "picture": shown(picture)}


def _over_time(run: RunDir) -> Iterator[dict[str, Any]]:
    """The first images of the kept sheets, one row a time."""
    from saccade.tasks.generation.drawing import GAP

    kept = sorted(run.samples.glob("step-*.png")) if run.samples.is_dir() else []
    if len(kept) < 2:
        return
    chosen = [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, OVER_TIME).round().astype(int))]
    try:
        sheets = [read(path, channels=4).pixels for path in chosen]
    except UserError:  # somebody has touched them: the report stands without
        return
    if len({sheet.shape for sheet in sheets}) > 1:
        return
    steps = [int(path.stem.rpartition("-")[2]) for path in chosen]
    line = (sheets[0].shape[0] + GAP) // -(-min(SHOWN, judging.LOOKED_AT) // ROWS)  # the first row and the gap below it
    text = f"the same latents at steps {', '.join(f'{step:,}' for step in steps)}, one below the other"
    yield {"title": "As training went on", "text": text, "picture": alpha.straight(np.concatenate([sheet[:line] for sheet in sheets]))}


def _by_class(task: Making, module: nn.Module, looked: Looked) -> dict[str, Any]:
    from saccade.tasks.generation.drawing import grid

    classes = min(len(task.frequencies(module)), 20)
    labels = np.repeat(np.arange(classes), STEPS)
    latents = np.tile(looked.latents[:STEPS], (classes, 1))[: len(labels)]
    return _row("By class", "a row for each class, the same latents in every row", grid(task.sample(module, latents, labels), STEPS))


def _between(task: Making, module: nn.Module, looked: Looked) -> dict[str, Any]:
    from saccade.tasks.generation.drawing import grid
    from saccade.tasks.generation.latents import slerp

    ends = looked.latents[: ROWS + 1]
    path = np.concatenate([slerp(a, b, STEPS) for a, b in itertools.pairwise(ends)])
    labels = None if looked.labels is None else np.repeat(looked.labels[: len(ends) - 1], STEPS)
    return _row(
        "From one to another", "each row leads from one latent to the next along an arc", grid(task.sample(module, path, labels), STEPS)
    )


def _nearest(on: Features, looked: Looked, train: Split) -> dict[str, Any]:
    found = nearest_images(on, looked.made[: 2 * ROWS], train)
    from saccade.tasks.generation.drawing import beside, grid

    halves = [beside([looked.made[a : a + ROWS], *(column[a : a + ROWS] for column in found)]) for a in (0, ROWS)]
    sheet = grid(np.stack(halves), 2, 16) if halves[0].shape == halves[1].shape else halves[0]
    text = "each made image, and to its right the three training images nearest to it in features: copies would show"
    return _row("Nearest training images", text, sheet)


def nearest_images(on: Features, made: Array, train: Split, k: int = 3) -> list[Array]:
    """The k nearest training images of each made one: k arrays uint8 `[N, H, W, C]`."""
    places, _ = nearest_places(on, made, train, k)
    return [np.stack([train.store[int(i)] for i in column]) for column in places.T]


def nearest_places(on: Features, made: Array, train: Split, k: int) -> tuple[Array, Array]:
    """Places in `train` of the nearest images `[N, k]`, and their distances in features."""
    from saccade.tasks.generation.distances import nearest

    among = judging.in_any_order(train)[: judging.FINAL]
    places, distances = nearest(on.of_split("train", train), on.of(made), min(k, len(among) - 1))
    return among[places], distances


def _taken_up(task: Making, module: nn.Module, looked: Looked, held: Split) -> Iterator[dict[str, Any]]:
    from saccade.tasks.generation.drawing import beside, laid_out, scatter

    count = min(len(held), MAPPED)
    if count < LEAST:
        return
    places = judging.in_any_order(held)[:count].tolist()
    images = np.stack([held.store[i] for i in places]).transpose(0, 3, 1, 2)
    known = None if held.targets[0] is None else np.array([held.targets[i] for i in places], np.int64)
    labels = known if looked.labels is not None else None
    first = slice(0, min(2 * ROWS, count // 2 * 2))  # in two columns
    noise = np.zeros((1, len(images[first]), task.latent(module)), np.float32)
    again = task.take(module, images[first], None if labels is None else labels[first], noise).reconstructions
    sheet = beside([images[first].transpose(0, 2, 3, 1)[a::2] if b == 0 else again[a::2] for a in (0, 1) for b in (0, 1)])
    yield _row("Reconstructions", "held-out images, each with what the model makes of it to its right", sheet)
    parts = (slice(a, a + 256) for a in range(0, count, 256))
    means = np.concatenate([task.encode(module, images[p], None if labels is None else labels[p])[0] for p in parts])
    text = "held-out images: where their latents are alike they lie together (t-SNE)" + ("" if known is None else ", coloured by class")
    yield {"title": "Map of the latents", "text": text, "picture": scatter(laid_out(means), known, looked.classes)}
