"""`preview`: what training makes of images, each random change by itself and all together, as a contact sheet."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.planning import plan, settle
from saccade.core import alpha, class_masks, keys, run_lengths
from saccade.core.config import AugmentConfig, TrainConfig
from saccade.core.errors import UserError
from saccade.core.progress import Progress, Silent
from saccade.data import viewing, writing
from saccade.data.annotations import Annotations, Item, Legend, Object
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.data.sample import Objects, Sample
from saccade.data.tree import File, HeldTree
from saccade.tasks import room

Array = NDArray[Any]
VIEWS = 2  # of each change
# What belongs together, in the order in which it is shown.
GROUPS = (
    ("flip",), ("crop",), ("shift", "scale", "rotate", "shear"), ("color", "hue", "grey"), ("erase",), ("mixup",), ("cutmix",),
    ("resize",), ("mosaic",), ("paste",),
)  # fmt: skip
CHANCES = ("flip", "erase", "mixup", "cutmix", "mosaic", "paste")  # shown as if they were certain


def preview(
    data: str | Path,
    *,
    out: str | Path,
    task: str | None = None,
    format: str | None = None,
    images: int = 6,
    set: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `out/index.html`: `images` training images as they are, as each random change of the recipe makes them, and as all do together.

    set: values of the configuration by dotted key, such as `{"augment.flip": 1}`. Images that cannot be read are passed over, and told.
    Returns `{"page", "images", "pages"}`. Raises UserError for data or values that cannot be used, and where no change is on.
    """
    progress = progress or Silent()
    writing.check_new(Path(out))
    if images < 1:
        raise UserError(f"must be 1 or more, got {images}", where="images")
    dataset = open_dataset(data, task=task, format=format)
    settings = _settings(dataset, dict(set or {}))
    dataset = replace(dataset, schema=replace(dataset.schema, channels=settings.channels))
    changes = _each(settings.augment)
    if not changes:
        raise UserError("no change is on for this set", where="augment", fix="switch one on: --set augment.flip=0.5")
    shown = _Shown(dataset, settings, dataset.split("train" if "train" in dataset.splits else next(iter(dataset.splits))), progress)
    progress.start("changing images", min(images, len(shown.among)), "images")
    for place in np.unique(np.linspace(0, len(shown.among) - 1, min(images, len(shown.among))).astype(int)).tolist():
        shown.image(place, changes)
        progress.advance()
    progress.finish()
    if not shown.items:
        raise UserError("none of the images can be read", where=str(dataset.opened), fix=f"saccade data check {shlex.quote(str(data))}")
    return viewing.view(shown.annotations(), Path(out), progress=progress)


def _settings(dataset: Dataset, values: dict[str, Any]) -> TrainConfig:
    task = dataset.schema.task
    if values.get("task", task) != task:
        raise UserError(f"must be {task} for this set, got {values['task']}", where="task", fix="--task says how a set is understood")
    return plan(dataset, settle(None, {"task": task, **values}), "cpu")[0]


def _each(strengths: AugmentConfig) -> list[tuple[str, AugmentConfig]]:
    """Each change that is switched on, with its name, and nothing else; where chance decides, for certain."""
    off, found = AugmentConfig(), []
    for group in GROUPS:
        on = {name: getattr(strengths, name) for name in group if getattr(strengths, name) != getattr(off, name)}
        if on:
            found.append((", ".join(on), replace(off, **{name: 1.0 if name in CHANCES else value for name, value in on.items()})))  # type: ignore[arg-type]
    return found


@dataclass
class _Shown:
    """The pictures of the page: a set of its own (`tree.Tree`), whose files are in memory."""

    dataset: Dataset
    settings: TrainConfig
    among: NDArray[np.int64]
    progress: Progress
    files: dict[str, bytes] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def image(self, place: int, changes: Sequence[tuple[str, AugmentConfig]]) -> None:
        """One of those that it is `among`: as it is, and changed."""
        sample = self._read(place)
        if sample is None:
            return
        self._add(f"{sample.source}: as it is", sample.image, sample.target)
        for title, strengths in [*changes, ("all, as in training", self.settings.augment)]:
            for view in range(VIEWS):
                pixels, target = self._changed(sample, strengths, 2 * (place * VIEWS + view))
                if view and _png(pixels) == self.files[f"{sample.source}: {title} (1)"]:
                    continue  # there is but one way to do it
                self._add(f"{sample.source}: {title} ({view + 1})", pixels, target)

    def _changed(self, sample: Sample, strengths: AugmentConfig, position: int) -> tuple[Array, Any]:
        """The pixels and the truth of an image; others are mixed into it as chance has it."""
        from saccade.data import composing

        settings = replace(self.settings, augment=strengths)
        if settings.task in ("classify", "generate"):
            others = self._others(position, int(bool(strengths.mixup or strengths.cutmix)), sample)
            return _trained([sample, *others], settings, position)
        others = self._others(position, len(composing.partners(position, strengths, settings.seed)), sample)
        return _fitted([sample, *others], settings, position)

    def _others(self, position: int, count: int, instead: Sample) -> list[Sample]:
        """Images drawn by the position's key; the image itself instead of one that cannot be read."""
        places = keys.generator(self.settings.seed, "preview", position).integers(0, len(self.among), count).tolist()
        return [self._read(place) or instead for place in places]

    def _read(self, place: int) -> Sample | None:
        index = int(self.among[place])
        try:
            return self.dataset[index]
        except UserError as error:
            self.progress.message(f"{self.dataset.paths[index]}: {error.message}")
            return None

    def annotations(self) -> Annotations:
        """What `viewing` shows."""
        schema, own = self.dataset.schema, self.dataset.annotations
        legend = Legend({label: label for label in range(len(schema.classes))})
        tree = HeldTree("preview", self.files)
        return Annotations(own.format, schema.task, schema.classes, tuple(self.items), tree, legend=legend, opened=own.opened, ids=own.ids)

    def _add(self, path: str, pixels: Array, target: Any) -> None:
        self.files[path] = _png(pixels)
        item = Item(File(path, 0, 0), "train", size=(pixels.shape[0], pixels.shape[1]))
        if isinstance(target, Objects):
            rows = zip(target.boxes.tolist(), target.labels.tolist(), target.masks or [None] * len(target.labels), target.crowd.tolist())
            item = replace(item, objects=tuple(Object(label, tuple(box), mask, crowd) for box, label, mask, crowd in rows))
        elif self.settings.task == "segment" and self.dataset.schema.multi:
            sets = np.where(target == class_masks.IGNORED, 0, target)
            covers = [run_lengths.from_mask((sets >> label & 1).astype(bool)) for label in range(len(self.dataset.schema.classes))]
            item = replace(
                item, objects=tuple(Object(label, shape=cover) for label, cover in enumerate(covers) if run_lengths.covered(cover))
            )
        elif self.settings.task == "segment":
            self.files[f"{path}: classes"] = _png(target)
            item = replace(item, mask=f"{path}: classes")
        elif target is not None:
            item = replace(item, labels=_labels(target))
        self.items.append(item)


def _trained(samples: Sequence[Sample], config: TrainConfig, position: int) -> tuple[Array, Any]:
    """As a room's own augmentation changes the first of two images."""
    augment = room(config.task).augment(config)
    positions, changed = np.array([position, position + 1])[: len(samples)], []
    for sample, at in zip(samples, positions.tolist(), strict=True):
        kept = replace(sample, image=augment.preparation.apply(sample.image))
        changed.append(augment.apply([kept], keys.generator(config.seed, "augment", at)))
    batch = augment.collate(changed, positions)
    pixels: Array = batch.images[0].permute(1, 2, 0).numpy()
    mixed = "share" in batch.targets and float(batch.targets["share"][0]) < 1
    return pixels, [target for sample in samples[: 1 + mixed] for target in _labels(sample.target)]


def _fitted(samples: Sequence[Sample], config: TrainConfig, position: int) -> tuple[Array, Any]:
    """As a room's own augmentation changes an image with its boxes, and those that are set beside it."""
    augment, kept = room(config.task).augment(config), []
    for sample in samples:
        pixels = augment.preparation.apply(sample.image)
        sizes = (sample.image.shape[0], sample.image.shape[1]), (pixels.shape[0], pixels.shape[1])
        objects = isinstance(sample.target, Objects)
        target = sample.target.scaled(*sizes) if objects else class_masks.resized(sample.target, sizes[1])
        kept.append(replace(sample, image=pixels, target=target))
    changed = augment.apply(kept, keys.generator(config.seed, "augment", position))
    return changed.image, changed.target


def _labels(target: Any) -> tuple[int, ...]:
    """Classes of a whole image: one, some (bool `[K]`), a list of them, or none."""
    if target is None:
        return ()
    if isinstance(target, np.ndarray):
        return tuple(np.flatnonzero(target).tolist())
    return tuple(dict.fromkeys(target)) if isinstance(target, list) else (int(target),)


def _png(pixels: Array) -> bytes:
    from PIL import Image

    pixels = alpha.straight(pixels) if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
