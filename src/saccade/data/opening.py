"""Which format is this? -> Dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.core import images
from saccade.core.errors import UserError, unknown
from saccade.data import formats
from saccade.data.annotations import Annotations
from saccade.data.sample import Sample, Schema
from saccade.data.splitting import hold_out
from saccade.data.tree import FolderTree, Tree

PROBED = 256


@dataclass(frozen=True)
class Dataset:
    """Images with labels and splits, in the order of their relative POSIX paths.

    targets: int64 [N]; splits: indices int64 by split name, sorted; bytes, modified: int64 [N], size and age (ns) of each file;
    ignored: files that are no images; outside: images that are links to outside of root.
    """

    root: Path
    format: str
    schema: Schema
    paths: tuple[str, ...]
    targets: NDArray[np.int64]
    splits: Mapping[str, NDArray[np.int64]]
    bytes: NDArray[np.int64]
    modified: NDArray[np.int64]
    ignored: int = 0
    outside: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Decode one image; raises UserError when it cannot be read."""
        return self.decode(index)

    def decode(self, index: int, covering: tuple[int, int] | None = None) -> Sample:
        """The same; a large JPEG at a reduced size where no more than (height, width) `covering` is needed."""
        picture = images.read(self.root / self.paths[index], channels=self.schema.channels, covering=covering)
        return Sample(picture.pixels, int(self.targets[index]), index, self.paths[index])

    def split(self, name: str) -> NDArray[np.int64]:
        """The indices of a split; raises UserError naming those there are."""
        if name not in self.splits:
            raise unknown("split", name, self.splits, where=str(self.root))
        return self.splits[name]

    def without(self, bad: NDArray[np.int64]) -> Dataset:
        """The same set with these indices left out of every split (`--skip-bad`)."""
        splits = {name: np.setdiff1d(indices, bad) for name, indices in self.splits.items()}
        return replace(self, splits=splits, schema=replace(self.schema, counts=_counts(self.targets, splits, len(self.schema.classes))))

    def fingerprint(self) -> str:
        """A hash over sorted (path, size, label): the same images and labels have the same."""
        digest = hashlib.sha256()
        for path, size, target in zip(self.paths, self.bytes, self.targets, strict=True):
            digest.update(f"{path}\0{size}\0{self.schema.classes[target]}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def open_dataset(path: str | Path) -> Dataset:
    """Find out what a folder holds; raises UserError where it is missing or of no known format."""
    return _class_folders(open_annotations(path))


def open_annotations(path: str | Path, *, task: str | None = None, format: str | None = None) -> Annotations:
    """Read the labels of a set, of the format and for the task that it is found to be of unless they are given.

    Raises UserError where it is missing, of no known format, or not of the one asked for.
    """
    try:
        root = Path(path).expanduser().absolute()
        if not root.exists():
            raise FileNotFoundError
        return _read(_tree(root), task, format)
    except PermissionError as error:
        raise UserError("may not be read", where=str(error.filename or path), fix="check its permissions") from None
    except (OSError, RuntimeError, ValueError):  # a home of nobody, a name too long, a null character
        raise UserError("no such folder", where=str(path)[:500], fix="give the folder that holds your images") from None


def _tree(root: Path) -> Tree:
    if root.is_dir():
        return FolderTree(root)
    raise UserError("must be a folder of images, but is a file", where=str(root))


def _read(tree: Tree, task: str | None, format: str | None) -> Annotations:
    asked = (format,) if format else formats.NAMES
    fitting = [(name, tasks) for name in asked if (tasks := formats.find(name).fits(tree))]
    if task:
        fitting = [(name, tasks) for name, tasks in fitting if task in tasks]
    if not fitting:
        return formats.find(format or "folder").read(tree, task or "classify")  # says what is missing
    name, tasks = fitting[0]
    annotations = formats.find(name).read(tree, task or tasks[0])
    others = [f"--format {other}" for other, _ in fitting[1:] if other != "folder"] + [f"--task {other}" for other in tasks[1:] if not task]
    if not others:
        return annotations
    note = f"read as {name} ({annotations.task}); otherwise: {', '.join(others)}"
    return replace(annotations, notes=(note, *annotations.notes))


def _class_folders(annotations: Annotations) -> Dataset:
    root, items, classes = annotations.tree.root, annotations.items, annotations.classes
    targets = np.array([item.labels[0] for item in items], np.int64)
    named = np.array([item.split for item in items])
    paths = tuple(item.path for item in items)
    splits = {name: np.flatnonzero(named == name) for name in ("train", "val", "test") if (named == name).any()}
    if "train" in splits and "val" not in splits:
        train = splits["train"]
        held = hold_out([paths[i] for i in train], targets[train])
        splits = {"train": train[~held], "val": train[held], **{k: v for k, v in splits.items() if k == "test"}}
    size, uniform, channels = _look(root, paths)
    schema = Schema("classify", classes, _counts(targets, splits, len(classes)), channels, size, uniform)
    sizes = np.array([item.image.bytes for item in items], np.int64)
    modified = np.array([item.image.modified for item in items], np.int64)
    return Dataset(root, annotations.format, schema, paths, targets, splits, sizes, modified, annotations.ignored, annotations.outside)


def _counts(targets: NDArray[np.int64], splits: Mapping[str, NDArray[np.int64]], classes: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.bincount(targets[indices], minlength=classes).tolist()) for name, indices in splits.items()}


def _look(root: Path, paths: tuple[str, ...]) -> tuple[tuple[int, int], bool, int]:
    """Median size, whether all have it, and channels, from the headers of up to PROBED images spread evenly over the set."""
    seen = []
    for i in np.unique(np.linspace(0, len(paths) - 1, PROBED).astype(int)):
        try:
            seen.append(images.probe(root / paths[i]))
        except UserError:
            continue  # named with all the other bad files when the images are read
    if not seen:
        return (224, 224), False, 3
    height, width = np.median([s[:2] for s in seen], axis=0).astype(int).tolist()
    return (height, width), len({s[:2] for s in seen}) == 1, 1 if all(s[2] for s in seen) else 3
