"""Batches are a pure function of (seed, position), whatever the workers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saccade.core.config import AugmentConfig, TrainConfig
from saccade.data.cache import PixelStore
from saccade.data.dealing import WINDOW
from saccade.data.loader import Batch, Loader, Source
from saccade.tasks.classification.augmentation import ClassificationAugment

EVERYTHING = AugmentConfig(
    flip=0.5, crop=0.5, shift=0.1, scale=0.2, rotate=20, shear=5, color=0.4, hue=0.1, grey=0.2, erase=0.5, mixup=0.4, cutmix=0.4
)


def source(count: int = 23, shapes: Sequence[tuple[int, int, int]] = ((17, 11, 3),)) -> Source:
    generator = np.random.Generator(np.random.Philox(5))
    table = np.array([shapes[i % len(shapes)] for i in range(count)], np.int64)
    pixels = generator.integers(0, 256, int(table.prod(1).sum()), dtype=np.uint8)
    return Source(PixelStore(pixels, table), [i % 3 for i in range(count)], [f"{i}.png" for i in range(count)])


def loader(size: tuple[int, int] = (17, 11), *, batch: int = 8, micro: int = 0, workers: int = 0, seed: int = 3, count: int = 23) -> Loader:
    large = max(size) > 64
    data = source(count, ((90, 70, 3), (81, 99, 3), (200, 65, 3)) if large else ((*size, 3),))
    augment = ClassificationAugment(TrainConfig(size=size, seed=seed, augment=EVERYTHING))
    return Loader(data, augment, seed=seed, batch=batch, micro_batch=micro, workers=workers)


def same(first: Batch, second: Batch) -> bool:
    targets = all(torch.equal(first.targets[name], second.targets[name]) for name in first.targets)
    return torch.equal(first.images, second.images) and targets and np.array_equal(first.positions, second.positions)


@pytest.mark.parametrize("size", [(17, 11), (72, 80)])
def test_bytes_are_equal_for_any_number_of_workers(size: tuple[int, int]) -> None:
    streams = [loader(size, workers=workers).stream(16) for workers in (0, 1, 8)]
    for steps in islice(zip(*streams, strict=True), 6):
        for batches in zip(*steps, strict=True):
            assert same(batches[0], batches[1]) and same(batches[0], batches[2])
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("size", [(17, 11), (72, 80)])
def test_a_step_depends_on_its_position_alone(size: tuple[int, int]) -> None:
    first = loader(size)
    wanted = [first.step(position) for position in (0, 8, 16, 24)]
    second = loader(size)
    for position, step in list(zip((0, 8, 16, 24), wanted, strict=True))[::-1]:
        assert all(same(a, b) for a, b in zip(step, second.step(position), strict=True))
    assert not torch.equal(wanted[0][0].images, wanted[1][0].images)
    assert not torch.equal(wanted[0][0].images, loader(size, seed=4).step(0)[0].images)


def test_a_batch() -> None:
    (batch,) = loader().step(5)
    assert batch.images.shape == (8, 3, 17, 11) and batch.images.dtype == torch.uint8 and len(batch) == 8
    assert batch.positions.tolist() == list(range(5, 13))
    assert batch.targets["label"].dtype == torch.int64 and batch.targets["share"].dtype == torch.float32


def test_an_epoch_shows_each_image_once_with_its_label() -> None:
    plain = ClassificationAugment(TrainConfig(size=(17, 11)))
    data = source()
    shown = [batch for start in range(0, 69, 3) for batch in Loader(data, plain, seed=1, batch=3).step(start)]
    images = torch.cat([batch.images for batch in shown]).permute(0, 2, 3, 1).numpy()
    labels = torch.cat([batch.targets["label"] for batch in shown]).tolist()
    place = {data.store[i].tobytes(): i for i in range(23)}
    seen = [place[np.ascontiguousarray(image).tobytes()] for image in images]
    assert labels == [i % 3 for i in seen]
    for epoch in range(3):
        assert sorted(seen[epoch * 23 : (epoch + 1) * 23]) == list(range(23))
    assert seen[:23] != seen[23:46]


@pytest.mark.parametrize(("micro", "sizes"), [(0, [8]), (8, [8]), (4, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8), (99, [8])])
def test_micro_batches_cut_a_step_and_change_no_image_but_pairs(micro: int, sizes: list[int]) -> None:
    whole, parts = loader().step(8), loader(micro=micro).step(8)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate([part.positions for part in parts]).tolist() == whole[0].positions.tolist()
    assert torch.cat([part.targets["label"] for part in parts]).tolist() == whole[0].targets["label"].tolist()
    if micro % 2 == 0:  # no pair is torn
        assert torch.equal(torch.cat([part.images for part in parts]), whole[0].images)


class Uncropped:
    """Images of a room that leaves sizes as they are."""

    partner_of = 0

    def partners(self, position: int) -> Sequence[int]:
        return (position + 1,) if self.partner_of else ()

    def apply(self, samples: list, generator: np.random.Generator) -> object:  # type: ignore[type-arg]
        self.last = [sample.index for sample in samples]
        return samples[0]

    def collate(self, samples: list, positions: NDArray[np.int64]) -> Batch:  # type: ignore[type-arg]
        images = torch.from_numpy(np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2).copy())
        return Batch(images, {"label": torch.tensor([sample.target for sample in samples])}, positions)


def test_mixed_shapes_go_in_batches_of_one_shape() -> None:
    data = source(10, ((17, 11, 3), (5, 9, 3), (11, 17, 3)))
    parts = Loader(data, Uncropped(), seed=0, batch=10, micro_batch=3).step(0)  # type: ignore[arg-type]
    assert sorted(len(part) for part in parts) == [1, 3, 3, 3]
    assert sorted(np.concatenate([part.positions for part in parts]).tolist()) == list(range(10))
    for part in parts:
        assert (np.diff(part.positions) > 0).all()
    assert {tuple(part.images.shape[1:]) for part in parts} == {(3, 17, 11), (3, 5, 9), (3, 11, 17)}


class OfItsShape(Uncropped):
    """Samples as large as their images."""

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return size


def shaped(count: int = 61, *, batch: int = 8, workers: int = 0) -> Loader:
    shapes = ((17, 11, 3), (5, 9, 3), (11, 17, 3))
    data = source(count, shapes)
    data = replace(data, sizes=[shapes[i % 3][:2] for i in range(count)])
    return Loader(data, OfItsShape(), seed=4, batch=batch, workers=workers)  # type: ignore[arg-type]


def test_batches_are_of_one_shape_where_that_can_be() -> None:
    stream = shaped()
    steps = [stream.step(8 * number) for number in range(2 * WINDOW)]
    assert all(sum(map(len, parts)) == 8 for parts in steps)
    for window in range(2):
        mine = steps[window * WINDOW : (window + 1) * WINDOW]
        assert sum(len(parts) > 1 for parts in mine) <= 2, "at the borders between three shapes"
        seen = np.concatenate([part.positions for parts in mine for part in parts])
        assert sorted(seen.tolist()) == list(range(window * WINDOW * 8, (window + 1) * WINDOW * 8)), "each place once in its window"
        shapes = [tuple(parts[0].images.shape[1:]) for parts in mine]
        assert len(set(shapes[: WINDOW // 2])) == 3, "not one shape after the other"


@pytest.mark.parametrize(("at", "batch"), [(8, 4), (256, 12), (264, 16), (0, 3)])
def test_another_batch_on_the_way_passes_no_image_over(at: int, batch: int) -> None:
    """Of several shapes: what was dealt out is dealt out anew, so that from there on batches are of one shape again."""
    first = shaped()
    second = first.changed(first.augment, batch, 0, at)
    assert second.deals == (((0, 8), (at, batch)) if at else ((0, batch),))
    span = max(batch, 8 * (at % (8 * WINDOW) > 0)) * WINDOW
    end = at + -(-span // (batch * WINDOW)) * batch * WINDOW
    before, after = (
        [stream.step(place) for place in places] for stream, places in ((first, range(0, at, 8)), (second, range(at, end, batch)))
    )
    taken = [place for step in before + after for part in step for place in part.positions.tolist()]
    assert sorted(taken) == list(range(end))
    assert sum(len(step) > 1 for step in after) <= 2 * (end - at) // (batch * WINDOW), "but where two shapes meet"
    third = second.changed(second.augment, 5, 0, at)  # before the other was begun
    assert third.deals == (((0, 8), (at, 5)) if at else ((0, 5),))
    assert second.changed(second.augment, batch, 2, at).deals == second.deals


def test_dealing_is_the_same_for_workers_and_ranks() -> None:
    alone = shaped()
    with_workers = shaped(workers=3).stream(8 * 30)
    for number in range(30, 36):
        step = next(with_workers)
        assert all(same(a, b) for a, b in zip(alone.step(8 * number), step, strict=True))
        ranks = [alone.share(rank, 2).step(8 * number) for rank in range(2)]
        together = np.concatenate([part.positions for parts in ranks for part in parts])
        whole = np.concatenate([part.positions for part in alone.step(8 * number)])
        assert sorted(together.tolist()) == sorted(whole.tolist())
    with_workers.close()


@pytest.mark.parametrize(("world", "micro"), [(2, 0), (2, 3), (4, 1), (4, 0)])
def test_all_ranks_make_as_many_passes(world: int, micro: int) -> None:
    """Or those that share normalisation or weights wait for each other for good; of three shapes, where they meet."""
    alone, split = shaped(), 0
    alone.micro_batch = micro or alone.batch
    for number in range(2 * WINDOW):
        ranks = [alone.share(rank, world).step(8 * number) for rank in range(world)]
        assert len(set(map(len, ranks))) == 1
        assert all(sum(map(len, parts)) == 8 // world and min(map(len, parts)) > 0 for parts in ranks)
        split += sum(len(parts) > len({part.images.shape[1:] for part in parts}) for parts in ranks)
        together = np.concatenate([part.positions for parts in ranks for part in parts])
        assert sorted(together.tolist()) == sorted(np.concatenate([part.positions for part in alone.step(8 * number)]).tolist())
    assert split


def test_partners_come_from_their_position() -> None:
    room = Uncropped()
    room.partner_of = 1
    stream = Loader(source(7), room, seed=0, batch=1)  # type: ignore[arg-type]
    pairs = []
    for position in range(8):
        stream.step(position)
        pairs.append(tuple(room.last))
    assert [second for _, second in pairs[:-1]] == [first for first, _ in pairs[1:]]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("saccade-loader")]


def test_a_closed_stream_ends_its_threads() -> None:
    stream = loader(workers=4).stream(0)
    next(stream)
    next(stream)
    assert loader_threads()
    stream.close()
    assert not loader_threads()
    with pytest.raises(StopIteration):
        next(stream)


def test_no_worker_starts_no_thread() -> None:
    stream = loader().stream(0)
    next(stream)
    assert not loader_threads()
    stream.close()


class Broken(Uncropped):
    def apply(self, samples: list, generator: np.random.Generator) -> object:  # type: ignore[type-arg]
        raise OSError("gone")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_loop_and_ends_the_threads(workers: int) -> None:
    stream = Loader(source(), Broken(), seed=0, batch=2, workers=workers).stream(0)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="gone"):
        next(stream)
    assert not loader_threads()


@pytest.mark.parametrize("channels_last", [False, True])
def test_to_a_device_keeps_everything(channels_last: bool) -> None:
    (batch,) = loader().step(0)
    moved = batch.to(torch.device("cpu"), channels_last=channels_last)
    assert same(batch, moved)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert moved.images.is_contiguous(memory_format=layout)


def test_one_image_fills_every_batch() -> None:
    (batch,) = loader(count=1).step(0)
    assert len(batch) == 8 and batch.targets["label"].tolist() == [0] * 8
