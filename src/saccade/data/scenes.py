"""Made-up sets of scenes with several shapes: boxes, masks of classes or of objects, in any format that holds them."""

from __future__ import annotations

import io
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.progress import Progress
from saccade.data import formats, shapes
from saccade.data.annotations import Annotations, Item, Legend, Object
from saccade.data.drawing import GROUNDS, SHAPES, Scene, draw_scene
from saccade.data.tree import File
from saccade.data.writing import Output, new_folder

FORMATS = {"detect": "coco", "segment": "masks", "instances": "coco", "panoptic": "coco_panoptic"}
BACKGROUND = "background"
IMAGES, MASKS = "images", "masks"


class SceneTree:
    """Pictures drawn when they are asked for (`tree.Tree`): `images/00001.png`, and `masks/00001.png` with the class of each pixel."""

    max_pixels = MAX_PIXELS

    def __init__(self, size: tuple[int, int], seed: int, *, kinds: bool = False) -> None:
        self.root, self._size, self._seed, self._kinds = Path("shapes"), size, seed, kinds

    def folders(self, path: str = "") -> list[str]:
        return [] if path else [IMAGES, MASKS]

    def files(self, path: str = "", *, deep: bool = False) -> list[File]:
        return []

    def find(self, path: str) -> File | None:
        return File(path, 0, 0)

    def state(self, path: str) -> tuple[int, int]:
        return 0, 0

    def read(self, path: str) -> bytes:
        return self.image(path)

    def image(self, path: str) -> bytes:
        scene = self.scene(path)
        pixels = scene.pixels
        if path.startswith(MASKS):
            pixels = np.zeros(self._size, np.uint8)
            for shape, mask in scene.shapes:
                pixels[mask] = 1 + SHAPES.index(shape.name)
        return _png(pixels)

    def scene(self, path: str) -> Scene:
        """The picture of this name and what is on it."""
        return _scene(int(path.rpartition("/")[2].partition(".")[0]) - 1, self._size, self._seed, self._kinds)


@lru_cache(maxsize=4)
def _scene(index: int, size: tuple[int, int], seed: int, kinds: bool) -> Scene:
    return draw_scene(index, size=size, seed=seed, kinds=kinds)


def made(task: str, splits: list[str], size: tuple[int, int], seed: int) -> Annotations:
    """A set of scenes, image i in split `splits[i]`: detect, instances (visible pixels), segment (0 is the background) or panoptic (kinds
    of ground are stuff)."""
    tree = SceneTree(size, seed, kinds=task == "panoptic")
    items = tuple(_item(tree, task, number, split, size) for number, split in enumerate(splits, 1))
    classes = {"segment": (BACKGROUND, *SHAPES), "panoptic": (*SHAPES, *GROUNDS)}.get(task, SHAPES)
    legend = Legend({value: value for value in range(len(classes))}) if task == "segment" else Legend({})
    stuff = tuple(range(len(SHAPES), len(classes))) if task == "panoptic" else ()
    return Annotations("shapes", task, classes, items, tree, legend=legend, stuff=stuff)


def _item(tree: SceneTree, task: str, number: int, split: str, size: tuple[int, int]) -> Item:
    name = f"{number:05d}.png"
    image = File(f"{IMAGES}/{name}", 0, 0)
    if task == "segment":
        return Item(image, split, mask=f"{MASKS}/{name}", size=size)
    objects, scene = [], tree.scene(image.path)
    for shape, mask in scene.shapes:
        one = Object(SHAPES.index(shape.name), shape=run_lengths.from_mask(mask))
        box = shapes.box(one, size, tree)
        objects.append(Object(one.label, box, one.shape if task != "detect" else None))
    if task == "panoptic":
        rest = ~np.any([mask for _, mask in scene.shapes], axis=0)
        kinds = [(len(SHAPES) + kind, rest & (scene.below == kind)) for kind in range(len(GROUNDS))]
        objects += [Object(label, shape=run_lengths.from_mask(region)) for label, region in kinds if region.any()]
    return Item(image, split, objects=tuple(objects), size=size)


def write(out: Path, annotations: Annotations, format: str | None, progress: Progress | None) -> dict[str, Any]:
    """Into a new folder, as `make_shapes` says."""
    name = format or FORMATS[annotations.task]
    writer = formats.find(name)
    if annotations.task not in writer.TASKS:
        able = [other for other in formats.NAMES if annotations.task in formats.find(other).TASKS]
        raise UserError(f"{name} does not hold sets for {annotations.task}", where="--format", fix=f"one of {', '.join(able)}")
    if progress:
        progress.start("shapes", len(annotations.items), "images")
    with new_folder(out) as folder:
        writer.write(annotations, Output(folder, annotations, progress))
    if progress:
        progress.finish()
    splits = dict(Counter(item.split for item in annotations.items))
    return {
        "path": str(out),
        "task": annotations.task,
        "images": len(annotations.items),
        "classes": list(annotations.classes),
        "splits": splits,
    }


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
