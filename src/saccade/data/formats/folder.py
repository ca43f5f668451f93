"""Class folders: `root/CLASS/*.jpg`, or `root/{train,val|valid,test}/CLASS/*.jpg`. Folders inside a class folder belong to it."""

from __future__ import annotations

from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Item
from saccade.data.tree import Tree
from saccade.data.writing import Output

TASKS = ("classify",)
HOLDS = frozenset({"labels", "splits"})
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_EXPECTED = "expected CLASS/*.jpg, or train/CLASS/*.jpg with val/ and test/ beside it"


def fits(tree: Tree) -> tuple[str, ...]:
    """The tasks it can be read for: any folder with folders, if nothing else fits."""
    return TASKS if tree.folders() else ()


def read(tree: Tree, task: str) -> Annotations:
    """List the images of a class-folder data set; raises UserError when it is none."""
    folders = tree.folders()
    if not folders:
        raise UserError("must hold a folder per class, but has no folders", where=str(tree.root), fix=_EXPECTED)
    if all(name in SPLITS for name in folders):
        places = [(SPLITS[name], f"{name}/{inner}") for name in folders for inner in tree.folders(name)]
        if {"val", "valid"} <= set(folders):
            raise UserError("has both val/ and valid/", where=str(tree.root), fix="keep one of them")
    else:
        places = [("train", name) for name in folders]
    found = [(split, place.rpartition("/")[2], file) for split, place in places for file in tree.files(place, deep=True)]
    pictures = [(split, name, file) for split, name, file in found if file.is_image]
    if not pictures:
        raise UserError("holds no images", where=str(tree.root), fix=_EXPECTED)
    classes = tuple(sorted({name for _, name, _ in pictures}))
    place = {name: i for i, name in enumerate(classes)}
    items = sorted((Item(file, split, (place[name],)) for split, name, file in pictures), key=lambda item: item.path)
    outside = sum(file.outside for _, _, file in pictures)
    return Annotations("folder", "classify", classes, tuple(items), tree, ignored=len(found) - len(pictures), outside=outside)


def write(annotations: Annotations, out: Output) -> None:
    """`SPLIT/CLASS/NAME`; an image of several classes goes to the first, one of none is left out."""
    for item in annotations.items:
        if item.labels:
            out.image(item, f"{item.split or 'train'}/{annotations.classes[item.labels[0]]}/{out.name(item)}")
