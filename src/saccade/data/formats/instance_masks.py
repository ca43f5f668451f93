"""Masks of single objects as pictures: one for each object, or one for each image whose values are the objects.

- `NAME/images/*.png` and `NAME/masks/*.png`, a mask for each object (as the Data Science Bowl keeps its nuclei); masks in folders named by
  a number are of that class of `classes.txt` (its first line is 0). This is what `write` makes, with `SPLIT/` before it.
- Cityscapes: `*_leftImg8bit.png` and `*_instanceIds.png`; from 1000 on a value is 1000 times the class's id and the number of the object,
  below it is a region without objects (github.com/mcordts/cityscapesScripts).
- Penn-Fudan: `PNGImages/*.png` and `PedMasks/*_mask.png`, or `images/` and `instances/`: value k is the k-th object, of one class.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from saccade.core import masks, run_lengths
from saccade.core.errors import UserError
from saccade.data import legends, shapes
from saccade.data.annotations import Annotations, Item, Object, Picture
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("instances",)
HOLDS = frozenset({"polygons", "masks", "splits", "overlaps"})
PER_CLASS = 1000
CITYSCAPES = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus",
    29: "caravan", 30: "trailer", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_IDS = re.compile(r"_(gtFine_|gtCoarse_)?instanceIds$")
_NUMBERED = {"pedmasks": ("PNGImages", "images"), "instances": ("images",)}  # where the images of such masks lie
_EXPECTED = "expected NAME/images/ with one picture and NAME/masks/ with one for each object, or *_instanceIds.png"


def fits(tree: Tree) -> tuple[str, ...]:
    """Instances, where one of the three kinds is found."""
    pictures = Pictures(tree)
    return TASKS if _by_object(pictures) or _by_value(pictures) else ()


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where there are none of the three kinds."""
    pictures = Pictures(tree)
    named = legends.listed(tree)
    if by_object := _by_object(pictures):
        classes, items, problems = _of_objects(by_object, named)
    elif by_value := _by_value(pictures):
        classes, items, problems = _of_values(tree, by_value, named)
    else:
        raise UserError("holds no masks of single objects", where=str(tree.root), fix=_EXPECTED)
    items.sort(key=lambda item: item.path)
    problems.sort(key=lambda problem: problem.path)
    outside = sum(item.image.outside for item in items)
    ignored = pictures.passed_over(legends.CLASSES)
    return Annotations("instance_masks", task, classes, tuple(items), tree, tuple(problems), ignored, outside)


def _name(path: str) -> str:
    return posixpath.basename(stem(path))


# A mask for each object


def _by_object(pictures: Pictures) -> dict[str, tuple[File, list[File]]]:
    """Folder -> the one picture in its `images/`, and what lies in its `masks/`: unless that bears the picture's name, as a mask of classes
    does."""
    images: dict[str, list[File]] = defaultdict(list)
    found: dict[str, list[File]] = defaultdict(list)
    for path, file in pictures.images.items():
        parts = path.split("/")
        if len(parts) > 2 and parts[-2] == "images":
            images["/".join(parts[:-2])].append(file)
        elif len(parts) > 2 and parts[-2] == "masks":
            found["/".join(parts[:-2])].append(file)
        elif len(parts) > 3 and parts[-3] == "masks" and parts[-2].isdecimal():
            found["/".join(parts[:-3])].append(file)
    alone = {folder: own[0] for folder, own in images.items() if len(own) == 1 and folder}
    pairs = {folder: (image, found.get(folder, [])) for folder, image in alone.items()}
    of_classes = {f"{folder}/masks/{_name(image.path)}" for folder, (image, _) in pairs.items()}
    if any(stem(mask.path) in of_classes for _, own in pairs.values() for mask in own):
        return {}
    return pairs if any(own for _, own in pairs.values()) else {}


def _of_objects(by_object: dict[str, tuple[File, list[File]]], named: tuple[str, ...]) -> tuple[tuple[str, ...], list[Item], list[Finding]]:
    classes = named or ("object",)
    problems: list[Finding] = []
    items = []
    for folder, (image, found) in by_object.items():
        objects = []
        for file in sorted(found, key=lambda file: (posixpath.basename(file.path), file.path)):
            kind = posixpath.basename(posixpath.dirname(file.path))
            label = int(kind) if named and kind.isdecimal() and len(kind) < 6 else 0
            if label < len(classes):
                objects.append(Object(label, shape=Picture(file.path)))
            else:
                problems.append(Finding("unknown-class", file.path, f"is of class {label}, but classes.txt has 0 to {len(classes) - 1}"))
        items.append(Item(image, split_of(folder), objects=tuple(objects), where=f"{folder}/masks"))
    return classes, items, problems


# A mask for each image


def _by_value(pictures: Pictures) -> list[tuple[File, File | None]]:
    """(mask whose values are objects, its image)."""
    pairs: list[tuple[File, File | None]] = []
    kinds: dict[str, str] = {}
    for path, file in pictures.images.items():
        folder, _, name = path.rpartition("/")
        if folder not in kinds:
            kinds[folder] = next((part for part in folder.split("/") if part.lower() in _NUMBERED), "")
        name, kind = stem(name), kinds[folder]
        if _IDS.search(name):
            plain = _IDS.sub("", name)
            places = [folder, re.sub(r"(^|/)gt(Fine|Coarse)(?=/|$)", r"\1leftImg8bit", folder)]
            pairs.append((file, _first(pictures, places, (f"{plain}_leftImg8bit", plain))))
        elif kind:
            places = [re.sub(rf"(^|/){re.escape(kind)}(?=/|$)", rf"\1{other}", folder) for other in _NUMBERED[kind.lower()]]
            pairs.append((file, _first(pictures, places, (name, re.sub(r"_mask$", "", name)))))
    return pairs


def _first(pictures: Pictures, places: Sequence[str], names: Sequence[str]) -> File | None:
    return next((file for place in places for name in names if (file := pictures.beside(f"{name}.png", [place]))), None)


def _of_values(
    tree: Tree, by_value: list[tuple[File, File | None]], named: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Item], list[Finding]]:
    """All masks are read, in threads: which objects there are stands nowhere else."""
    problems = [Finding("missing-image", mask.path, "is a mask of an image that is not there") for mask, image in by_value if image is None]
    pairs = [(mask, image) for mask, image in by_value if image is not None]
    cityscapes = bool(pairs) and bool(_IDS.search(_name(pairs[0][0].path)))
    with ThreadPoolExecutor(2) as pool:
        values = list(pool.map(lambda pair: _values(tree, pair[0].path), pairs))
    ids = sorted({value // PER_CLASS for found in values for value in found if value >= PER_CLASS}) if cityscapes else []
    classes = tuple(CITYSCAPES.get(number, str(number)) for number in ids) if cityscapes else named[:1] or ("object",)
    items = []
    for (mask, image), found in zip(pairs, values, strict=True):
        kept = [value for value in found if value >= (PER_CLASS if cityscapes else 1)]
        objects = [Object(ids.index(value // PER_CLASS) if cityscapes else 0, shape=Picture(mask.path, value)) for value in kept]
        items.append(Item(image, split_of(posixpath.dirname(image.path)), objects=tuple(objects), where=mask.path))
    return classes, items, problems


def _values(tree: Tree, path: str) -> list[int]:
    try:
        found: list[int] = np.unique(masks.read(tree.image(path))).tolist()
    except UserError:
        return []
    return found


def write(annotations: Annotations, out: Output) -> None:
    """`[SPLIT/]NAME/images/NAME.png`, `[SPLIT/]NAME/masks/CLASS/00001.png` (white on black), `classes.txt`."""
    for item in annotations.items:
        name = out.name(item)
        folder = f"{item.split}/{stem(name)}" if item.split else stem(name)
        out.image(item, f"{folder}/images/{name}")
        for number, one in enumerate(item.objects, 1):
            mask = run_lengths.to_mask(shapes.rle(one, out.size(item), annotations.tree))
            out.data(f"{folder}/masks/{one.label}/{number:05d}.png", _png(mask))
    legends.write_list(annotations.classes, out)


def _png(mask: NDArray[np.bool_]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()
