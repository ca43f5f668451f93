"""`preview`: what training makes of images, each random change by itself and all together, as a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.planning import plan, settle
from saccade.core import alpha, config, keys
from saccade.core.config import AugmentConfig, TrainConfig
from saccade.core.errors import UserError
from saccade.core.progress import Progress, Silent
from saccade.data import viewing
from saccade.data.annotations import Annotations, Item, Legend, Object
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.data.sample import Objects, Sample
from saccade.data.tree import File
from saccade.tasks import ROOMS, room

Array = NDArray[Any]
# For tasks of boxes and masks, whose rooms are not there yet to have recipes.
SCENES = AugmentConfig(flip=0.5, color=0.3, hue=0.03, resize=(0.5, 1.5), mosaic=0.5, paste=0.5)
SIDE = 320  # pixels of a canvas's longer side, at most
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

    set: values of the configuration by dotted key, such as `{"augment.flip": 1}`. Returns `{"page", "images", "pages"}`. Raises UserError
    for data or values that cannot be used, and where no image is changed at all.
    """
    dataset = open_dataset(data, task=task, format=format)
    settings = _settings(dataset, dict(set or {}))
    shown = _Shown(dataset, settings)
    changes = _each(settings.augment)
    if not changes:
        raise UserError("training changes no image of this set", where="augment", fix="switch a change on: --set augment.flip=0.5")
    train = dataset.split("train")
    for place in np.unique(np.linspace(0, len(train) - 1, images).astype(int)).tolist():
        shown.original(int(train[place]))
        for title, strengths in [*changes, ("all, as in training", settings.augment)]:
            for view in range(VIEWS):
                shown.changed(train, place, title, strengths, view)
    return viewing.view(shown.annotations(), Path(out), progress=progress or Silent())


def _settings(dataset: Dataset, values: dict[str, Any]) -> TrainConfig:
    task = dataset.schema.task
    if task in ROOMS:
        return plan(dataset, settle(None, {"task": task, **values}), "cpu")[0]
    if values.get("augment.paste") and task != "instances":
        raise UserError("only objects that have masks can be pasted", where="augment.paste", fix="leave it out")
    height, width = dataset.schema.size
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    scenes = replace(SCENES, paste=SCENES.paste if task == "instances" else 0.0)
    return config.override(TrainConfig(task=task, size=size, channels=dataset.schema.channels, augment=scenes), values)  # type: ignore[arg-type]


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
    files: dict[str, bytes] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def original(self, index: int) -> None:
        """An image of the set as it is."""
        sample = self.dataset[index]
        self._add(f"{sample.source}: as it is", sample.image, sample.target)

    def changed(self, train: NDArray[np.int64], place: int, title: str, strengths: AugmentConfig, view: int) -> None:
        """The image at a place of the training split, changed; others of the split are mixed into it as chance has it."""
        config, position = replace(self.settings, augment=strengths), 2 * (place * VIEWS + view)
        others = keys.generator(config.seed, "preview", position).integers(0, len(train), 4).tolist()
        samples = [self.dataset[int(train[one])] for one in (place, *others)]
        pixels, target = (_trained if config.task in ROOMS else _composed)(samples, config, position)
        if view and _png(pixels) == self.files.get(f"{samples[0].source}: {title} (1)"):
            return  # there is but one way to do it
        self._add(f"{samples[0].source}: {title} ({view + 1})", pixels, target)

    def annotations(self) -> Annotations:
        """What `viewing` shows."""
        schema, own = self.dataset.schema, self.dataset.annotations
        legend = Legend({label: label for label in range(len(schema.classes))})
        return Annotations(
            own.format, schema.task, schema.classes, tuple(self.items), _Memory(self.files), legend=legend, opened=own.opened
        )

    def _add(self, path: str, pixels: Array, target: Any) -> None:
        self.files[path] = _png(pixels)
        item = Item(File(path, 0, 0), "train", size=(pixels.shape[0], pixels.shape[1]))
        if isinstance(target, Objects):
            rows = zip(target.boxes.tolist(), target.labels.tolist(), target.masks or [None] * len(target.labels), target.crowd.tolist())
            item = replace(item, objects=tuple(Object(label, tuple(box), mask, crowd) for box, label, mask, crowd in rows))
        elif self.settings.task == "segment":
            self.files[f"{path}: classes"] = _png(target)
            item = replace(item, mask=f"{path}: classes")
        elif target is not None:
            item = replace(item, labels=_labels(target))
        self.items.append(item)


def _trained(samples: Sequence[Sample], config: TrainConfig, position: int) -> tuple[Array, Any]:
    """As a room's own augmentation changes the first of two images."""
    augment = room(config.task).augment(config)
    positions, changed = np.array([position, position + 1]), []
    for sample, at in zip(samples, positions.tolist(), strict=False):
        kept = replace(sample, image=augment.preparation.apply(sample.image))
        changed.append(augment.apply([kept], keys.generator(config.seed, "augment", at)))
    batch = augment.collate(changed, positions)
    pixels: Array = batch.images[0].permute(1, 2, 0).numpy()
    mixed = "share" in batch.targets and float(batch.targets["share"][0]) < 1
    return pixels, [target for sample in samples[: 1 + mixed] for target in _labels(sample.target)]


def _composed(samples: Sequence[Sample], config: TrainConfig, position: int) -> tuple[Array, Any]:
    """As `composing` changes an image with boxes or masks."""
    from saccade.data import composing

    needed = len(composing.partners(position, config.augment, config.seed))
    changed = composing.changed(samples[: 1 + needed], config.size, config.augment, keys.generator(config.seed, "augment", position))
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


class _Memory:
    """Files that are in memory, as a tree: the page asks for nothing but their content."""

    def __init__(self, found: Mapping[str, bytes]) -> None:
        self.root, self._found = Path("preview"), found

    def folders(self, path: str = "") -> list[str]:
        return []

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        return []

    def find(self, path: str) -> File | None:
        return File(path, 0, 0) if path in self._found else None

    def state(self, path: str) -> tuple[int, int]:
        return 0, 0

    def read(self, path: str) -> bytes:
        return self._found[path]

    def image(self, path: str) -> bytes:
        return self._found[path]
