"""Images alone, to learn to make more of their kind, in folders by class or not; or pairs of an image and what it becomes.

Splits are folders train, val (valid) and test at the root, if no image lies elsewhere. Where all images then lie in two folders or more,
these are classes. Pairs have the same name in `input/` and `target/` (or `A/` and `B/`), within a split or around it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Item
from saccade.data.findings import Finding
from saccade.data.formats import folder
from saccade.data.pictures import split_of, stem
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("generate",)
HOLDS = frozenset({"labels", "splits", "pairs"})
_PAIRS = {"input": "target", "inputs": "targets", "a": "b", "source": "target"}
_WORDS = frozenset({*_PAIRS, *_PAIRS.values()})


def fits(tree: Tree) -> tuple[str, ...]:
    """Generation, where there is an image."""
    return TASKS if any(file.is_image for file in tree.files("", deep=True)) else ()


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there is no image."""
    files = tree.files("", deep=True)
    found = [file for file in files if file.is_image]
    if not found:
        raise UserError("holds no images", where=str(tree.root), fix="give a folder with images in it, at any depth")
    items, problems = _pairs(found)
    classes: tuple[str, ...] = ()
    if not items:
        splits = all("/" in file.path and file.path.partition("/")[0] in folder.SPLITS for file in found)
        inner = {file.path: file.path.split("/")[1 if splits else 0 :] for file in found}
        heads = {parts[0] if len(parts) > 1 else "" for parts in inner.values()}
        classes = tuple(sorted(heads)) if len(heads) > 1 and "" not in heads else ()
        items = [
            Item(
                file,
                folder.SPLITS[file.path.partition("/")[0]] if splits else "",
                labels=(classes.index(inner[file.path][0]),) if classes else (),
            )
            for file in found
        ]
    outside = sum(item.image.outside for item in items)
    ignored = len(files) - len(found)
    return Annotations("images", task, classes, tuple(items), tree, tuple(problems), ignored=ignored, outside=outside)


def _pairs(files: Sequence[File]) -> tuple[list[Item], list[Finding]]:
    """The images that have a partner, and findings of those that lack one; nothing where an image lies in no folder of the kind."""
    places: Mapping[str, File] = {stem(file.path).lower(): file for file in files}
    items: list[Item] = []
    problems: list[Finding] = []
    for file in files:
        parts = stem(file.path).lower().split("/")
        place = next((place for place, part in enumerate(parts[:-1]) if part in _WORDS), None)
        if place is None:
            return [], []
        if parts[place] not in _PAIRS:
            continue
        partner = places.get("/".join([*parts[:place], _PAIRS[parts[place]], *parts[place + 1 :]]))
        if partner is None:
            problems.append(Finding("missing-image", file.path, f"has no partner in {_PAIRS[parts[place]]}/"))
        else:
            items.append(Item(file, split_of(posixpath.dirname(file.path)), pair=partner.path))
    return items, problems if items else []


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT/CLASS/NAME`, without what the set lacks; pairs as `SPLIT/input/NAME` and `SPLIT/target/NAME`."""
    split = any(item.split for item in annotations.items)
    for item in annotations.items:
        name = out.name(item)
        folders = [item.split or "train"] if split else []
        if item.pair:
            out.image(item, posixpath.join(*folders, "input", name))
            out.copy(item.pair, posixpath.join(*folders, "target", stem(name) + posixpath.splitext(item.pair)[1]))
        else:
            named = [annotations.classes[label] for label in item.labels[:1]]
            out.image(item, posixpath.join(*folders, *named, name))
