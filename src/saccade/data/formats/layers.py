"""Masks of classes that overlap: black and white pictures in folders by class, `images/NAME.png` and `masks/CLASS/NAME.png`, or by image,
`masks/NAME/CLASS.png`, splits inside or outside of them.

What is not 0, in JPEG what is light, is of the class; where an image has no mask of a class, none of it is. Classes are called by their
folders, or, where there is a `classes.txt`, by its lines, which a folder may give the number of (the first is 0). By image they are read
only where `classes.txt` names them: other pictures there are of single objects.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict

import numpy as np

from saccade.core import encoding, layers
from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.data import legends, shapes
from saccade.data.annotations import Annotations, Item, Object, Picture
from saccade.data.findings import Finding
from saccade.data.formats import masks
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("segment",)
HOLDS = frozenset({"polygons", "pieces", "masks", "crowd", "splits"})
_EXPECTED = "expected images/NAME.png and masks/CLASS/NAME.png"


def fits(tree: Tree) -> tuple[str, ...]:
    """Segmentation, where some image has a mask of a class."""
    pictures = Pictures(tree)
    images, found = _images(pictures), _masks(pictures, legends.listed(tree))
    return TASKS if any(key in images for key, _ in found) else ()


def _images(pictures: Pictures) -> dict[str, File]:
    """By their path without the folder that says that they are images, and without an ending."""
    found: dict[str, File] = {}
    for path, file in pictures.images.items():
        parts = stem(path).split("/")
        words = [part.lower() for part in parts[:-1]]
        if any(word in masks.IMAGES for word in words) and not any(word in masks.MASKS for word in words):
            place = next(place for place, word in enumerate(words) if word in masks.IMAGES)
            found.setdefault("/".join([*parts[:place], *parts[place + 1 :]]), file)
    return found


def _masks(pictures: Pictures, names: tuple[str, ...]) -> dict[tuple[str, str], File]:
    """(the image's path as above, class) -> mask."""
    found: dict[tuple[str, str], File] = {}
    for path, file in pictures.images.items():
        parts = stem(path).split("/")
        place = next((place for place, part in enumerate(parts[:-1]) if part.lower() in masks.MASKS), -1)
        before, rest = parts[:place], parts[place + 1 :]
        split = rest[:1] if place >= 0 and len(rest) == 3 and split_of(f"{rest[0]}/x") else []
        rest = rest[len(split) :]
        if place < 0 or len(rest) < 2:
            continue
        if rest[-1] in names and rest[0] not in names:
            found["/".join([*before, *split, *rest[:-1]]), rest[-1]] = file
        else:
            found["/".join([*before, *split, *rest[1:]]), rest[0]] = file
    return found


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no image has a mask, or where there are more classes than a pixel can have."""
    pictures = Pictures(tree)
    names = legends.listed(tree)
    images, found = _images(pictures), _masks(pictures, names)
    kept = {key: file for key, file in found.items() if key[0] in images}
    if not kept:
        raise UserError("holds no masks by class", where=str(tree.root), fix=_EXPECTED)
    classes = names or tuple(sorted({kind for _, kind in kept}))
    layers.check(classes, str(tree.root))
    problems = [Finding("missing-image", found[key].path, "is a mask of an image that is not there") for key in found.keys() - kept.keys()]
    objects: dict[str, list[Object]] = defaultdict(list)
    for (image, kind), file in sorted(kept.items()):
        label = classes.index(kind) if kind in classes else int(kind) if names and kind.isdecimal() and len(kind) < 6 else len(classes)
        if label < len(classes):
            objects[image].append(Object(label, shape=Picture(file.path)))
        else:
            problems.append(Finding("unknown-class", file.path, f"is of class {kind!r}, which classes.txt does not name"))
    items = [
        Item(file, split_of(posixpath.dirname(file.path)), objects=tuple(objects[key]), where=file.path) for key, file in images.items()
    ]
    items.sort(key=lambda item: item.path)
    problems.sort(key=lambda problem: problem.path)
    outside = sum(item.image.outside for item in items)
    ignored = pictures.passed_over(legends.CLASSES)
    return Annotations("layers", task, classes, tuple(items), tree, tuple(problems), ignored, outside, multi=True)


def write(annotations: Annotations, out: Output) -> None:
    """`images/SPLIT/NAME`, `masks/SPLIT/NUMBER/NAME.png` (white on black) of each class that an image has, `classes.txt`; of sets with one
    class for each pixel too. Raises UserError for more classes than a pixel can have."""
    layers.check(annotations.classes, str(annotations.tree.root))
    for item in annotations.items:
        folder = f"{item.split}/" if item.split else ""
        name = out.name(item)
        out.image(item, f"images/{folder}{name}")
        if item.mask:
            values = shapes.classes_of(item, annotations)
            parts = {label: values == label for label in np.unique(values).tolist() if label != IGNORED}
        else:
            sets = shapes.layers_of(item, out.size(item), annotations.tree)
            parts = {label: (sets >> label & 1).astype(bool) for label in sorted({one.label for one in item.objects})}
        for label, inside in parts.items():
            out.data(f"masks/{folder}{label}/{stem(name)}.png", encoding.png(np.where(inside, 255, 0).astype(np.uint8)))
    legends.write_list(annotations.classes, out)
