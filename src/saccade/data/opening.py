"""Which format is this? -> Annotations, Dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.core import images, layers
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.data import archives, formats, splitting
from saccade.data.annotations import Annotations
from saccade.data.dataset import Dataset
from saccade.data.tree import FolderTree, Tree


def open_dataset(path: str | Path, *, task: str | None = None, format: str | None = None, max_pixels: int = MAX_PIXELS) -> Dataset:
    """Find out what a folder or archive holds, as `open_annotations` does, and make it ready to learn from."""
    return Dataset.of(open_annotations(path, task=task, format=format, max_pixels=max_pixels))


def open_annotations(path: str | Path, *, task: str | None = None, format: str | None = None, max_pixels: int = MAX_PIXELS) -> Annotations:
    """Read the labels of a set, of the format and for the task that it is found to be of unless they are given.

    `max_pixels`: of an image or mask that is read. Raises UserError where it is missing, of no known format, or not of the one asked for.
    """
    root = _existing(path)
    try:
        if root.name.endswith(splitting.SUFFIX):
            return _listed(root, task, format, max_pixels)
        return replace(_read(_tree(root, max_pixels), task, format), opened=root)
    except PermissionError as error:
        raise UserError("may not be read", where=str(error.filename or path), fix="check its permissions") from None


def _existing(path: str | Path) -> Path:
    try:
        root = Path(path).expanduser().absolute()
        if root.exists():
            return root
    except PermissionError as error:
        raise UserError("may not be read", where=str(error.filename or path), fix="check its permissions") from None
    except (OSError, RuntimeError, ValueError):  # a home of nobody, a name too long, a null character
        pass
    raise UserError("no such folder", where=str(path)[:500], fix="give the folder that holds your images")


def _listed(path: Path, task: str | None, format: str | None, max_pixels: int) -> Annotations:
    """A set under the splits of a list."""
    facts = splitting.read(path)
    if facts["data"].endswith(splitting.SUFFIX):
        raise UserError("must name a data set, but names another list of splits", where=str(path))
    annotations = open_annotations(facts["data"], task=task or facts["task"], format=format or facts["format"], max_pixels=max_pixels)
    return splitting.apply(annotations, facts["splits"], path)


def _tree(root: Path, max_pixels: int) -> Tree:
    if root.is_dir():
        tree: Tree = FolderTree(root)
    elif root.suffix.lower() in archives.SUFFIXES:
        tree = archives.open_archive(root)
    else:
        raise UserError("must be a folder, a .zip or a .tar, but is another file", where=str(root), fix="give the folder that it lies in")
    images.allow(max_pixels)
    tree.max_pixels = max_pixels
    return tree


def _read(tree: Tree, task: str | None, format: str | None) -> Annotations:
    asked = (format,) if format else formats.NAMES
    fitting = [(name, tasks) for name in asked if (tasks := formats.find(name).fits(tree))]
    found = [f"{name} ({', '.join(tasks)})" for name, tasks in fitting if name not in ("folder", "images")]
    shaped = [name for name, tasks in fitting if "instances" in tasks]
    if task:
        fitting = [(name, tasks) for name, tasks in fitting if task in tasks]
    if task == "detect" and not fitting and shaped:
        annotations = formats.find(shaped[0]).read(tree, "instances")
        note = f"read as {shaped[0]}: boxes are those around the masks"
        return replace(annotations, task="detect", notes=(note, *annotations.notes))
    if task == "segment" and not fitting and shaped:
        annotations = formats.find(shaped[0]).read(tree, "instances")
        layers.check(annotations.classes, str(tree.root))
        note = f"read as {shaped[0]}: a pixel is of the class of each object that covers it, or of none"
        return replace(annotations, task="segment", multi=True, notes=(note, *annotations.notes))
    if not fitting and found and (not format or task not in formats.find(format).TASKS):
        raise UserError(f"is read as {' or '.join(found)}, and nothing there is for {task}", where=str(tree.root))
    if not fitting:
        return formats.find(format or "folder").read(tree, task or "classify")  # says what is missing
    name, tasks = fitting[0]
    annotations = formats.find(name).read(tree, task or tasks[0])
    others = [f"--format {other}" for other, _ in fitting[1:] if other not in ("folder", "images")] + [
        f"--task {other}" for other in tasks[1:] if not task
    ]
    if name == "images" and found:
        every = f"read as images ({annotations.task}), every picture there is, masks too; it is also {' and '.join(found)}"
        return replace(annotations, notes=(every, *annotations.notes))
    if not others:
        return annotations
    note = f"read as {name} ({annotations.task}); otherwise: {', '.join(others)}"
    return replace(annotations, notes=(note, *annotations.notes))
