"""Batches as a function of (seed, position in the stream), whatever the number of workers.

Position p of the endless stream holds sample perm(seed, p // N)[p % N]. Where samples are of several shapes, positions are dealt out so
that nearly every batch is of one (`dealing.py`). Workers are threads:
decoding, resizing and tensor work release the interpreter's lock, nothing has to be sent between processes, and nothing can be unpickled.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.core import class_masks, keys
from saccade.core.class_masks import Packed
from saccade.data.cache import Store
from saccade.data.dealing import Dealing, Deals, dealt_anew
from saccade.data.sample import Objects, Sample

if TYPE_CHECKING:
    from saccade.task import Augment


@dataclass(frozen=True)
class Batch:
    """images: uint8 `[B, C, H, W]`; targets: tensors with B rows, named by the room; positions: int64 `[B]` in the stream."""

    images: torch.Tensor
    targets: Mapping[str, torch.Tensor]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """The same batch on a device; pixels travel as uint8."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = self.images.to(device, non_blocking=True).contiguous(memory_format=layout)
        targets = {name: value.to(device, non_blocking=True) for name, value in self.targets.items()}
        return replace(self, images=images, targets=targets)

    def split(self, size: int) -> list[Batch]:
        """The same images in batches of at most `size`, in order."""
        if len(self) <= size:
            return [self]
        starts = range(0, len(self), size)
        return [self._cut(slice(start, start + size)) for start in starts]

    def _cut(self, part: slice) -> Batch:
        return Batch(self.images[part], {name: value[part] for name, value in self.targets.items()}, self.positions[part])


@dataclass(frozen=True)
class Source:
    """What the stream runs over: pixels, the target and the name of each image, in the same order; of images with objects also their
    original (height, width), in which the boxes are measured."""

    store: Store
    targets: Sequence[Any]
    names: Sequence[str]
    sizes: Sequence[tuple[int, int]] = ()
    _scaled: dict[int, Objects] = field(default_factory=dict, repr=False)  # masks take long

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, place: int) -> Sample:
        pixels, target = self.store[place], self.targets[place]
        if isinstance(target, Objects):
            if place not in self._scaled:
                self._scaled[place] = target.scaled(self.sizes[place], (pixels.shape[0], pixels.shape[1]))
            target = self._scaled[place]
        if isinstance(target, Packed):
            target = class_masks.resized(target.values, (pixels.shape[0], pixels.shape[1]))
        return Sample(pixels, target, place, self.names[place])


class Loader:
    """The stream of training batches. `micro_batch` images go through the network at once (0: the whole batch).

    deals: where samples are dealt out by their shapes, from which place of the stream on windows are of batches of which size.
    """

    def __init__(self, source: Source, augment: Augment, *, seed: int, batch: int, micro_batch: int = 0, workers: int = 0) -> None:
        self.source, self.augment, self.seed = source, augment, seed
        self.batch, self.micro_batch, self.workers = batch, micro_batch or batch, workers
        self._rank, self._world = 0, 1
        shapes = [augment.shape(size) for size in source.sizes]
        kinds = {shape: number for number, shape in enumerate(sorted(set(shapes)))}
        self._kinds = np.array([kinds[shape] for shape in shapes], np.int64) if len(kinds) > 1 else None
        self.deals = ((0, batch),)

    @property
    def deals(self) -> Deals:
        """As the class says. Those of another run's state may be set, where the last is of batches as this loader's are."""
        return self._deals

    @deals.setter
    def deals(self, deals: Deals) -> None:
        self._deals = deals
        self._dealing = Dealing(self._kinds, self.seed, deals) if self._kinds is not None else None

    def changed(self, augment: Augment, batch: int, micro_batch: int, at: int) -> Loader:
        """The stream with other changes to its images, and in batches of another size from place `at` on, to which it has come: what was
        dealt out and not yet taken is dealt out anew, so that no sample is passed over, and none comes twice."""
        other = Loader(self.source, augment, seed=self.seed, batch=batch, micro_batch=micro_batch, workers=self.workers)
        other.deals = dealt_anew(self.deals, at, batch) if batch != self.batch else self.deals
        return other

    def share(self, rank: int, world: int) -> Loader:
        """The same stream for one of `world` processes: of each step it prepares its own part, in the order of the ranks, in as many
        micro-batches as the others, since processes that share normalisation or weights wait for each other in every one."""
        part = copy.copy(self)
        part._rank, part._world = rank, world
        return part

    def step(self, position: int) -> list[Batch]:
        """The micro-batches of the optimizer step that starts at `position`: a pure function of it."""
        count = self.batch // self._world
        places = np.arange(position, position + count * self._world)
        whole = (places if self._dealing is None else self._dealing.positions(places)).reshape(self._world, count)
        positions = whole[self._rank].tolist()
        wanted = [[place, *self.augment.partners(place)] for place in positions]
        flat = np.array([place for group in wanted for place in group])
        found = iter(keys.sample_indices(self.seed, len(self.source), flat).tolist())
        numbers = keys.Keyed(self.seed, "augment")
        groups: dict[tuple[int, ...], list[tuple[Sample, int]]] = {}
        for place, needed in zip(positions, wanted, strict=True):
            samples = [self.source[next(found)] for _ in needed]
            sample = self.augment.apply(samples, numbers.at(place))
            groups.setdefault(sample.image.shape, []).append((sample, place))
        parts = [part for group in groups.values() for part in self._parts(group)]
        for _ in range(self._most(whole) - len(parts)):
            largest = max(range(len(parts)), key=lambda place: len(parts[place]))
            half = -(-len(parts[largest]) // 2)
            parts[largest : largest + 1] = [parts[largest][:half], parts[largest][half:]]
        return [self._collate(part) for part in parts]

    def _most(self, whole: NDArray[np.int64]) -> int:
        """The most micro-batches that any process needs of a step, `[ranks, images]` positions of the stream, by the shapes; 0 where all
        need as many. As each has as many images, none has fewer than that."""
        if self._kinds is None or self._world == 1:
            return 0
        kinds = self._kinds[keys.sample_indices(self.seed, len(self.source), whole.ravel())].reshape(whole.shape)
        return max(int((-(-np.unique(own, return_counts=True)[1] // self.micro_batch)).sum()) for own in kinds)

    def names(self, positions: NDArray[np.int64]) -> list[str]:
        """What the images at these positions of the stream are called."""
        return [self.source.names[place] for place in keys.sample_indices(self.seed, len(self.source), positions).tolist()]

    def stream(self, position: int) -> Generator[list[Batch], None, None]:
        """Steps from `position` on, prepared ahead by the workers; close it to let them end."""
        starts = itertools.count(position, self.batch)
        if self.workers == 0:
            yield from map(self.step, starts)
        with ThreadPoolExecutor(self.workers, "saccade-loader") as pool:
            ahead = deque(pool.submit(self.step, start) for start in itertools.islice(starts, self.workers + 1))
            try:
                while True:
                    ready = ahead.popleft()
                    ahead.append(pool.submit(self.step, next(starts)))
                    yield ready.result()
            finally:
                for future in ahead:
                    future.cancel()

    def _parts(self, group: list[tuple[Sample, int]]) -> Iterator[list[tuple[Sample, int]]]:
        for start in range(0, len(group), self.micro_batch):
            yield group[start : start + self.micro_batch]

    def _collate(self, part: list[tuple[Sample, int]]) -> Batch:
        return self.augment.collate([sample for sample, _ in part], np.array([place for _, place in part]))
