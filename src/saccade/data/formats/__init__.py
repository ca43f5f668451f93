"""One file per format on disk: each says whether files are of its kind, reads them, and writes them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from saccade.core.errors import unknown
from saccade.data.annotations import Annotations
from saccade.data.tree import Tree
from saccade.data.writing import Output

NAMES = (
    "parquet",
    "webdataset",
    "coco",
    "label_studio",
    "cvat",
    "voc",
    "yolo",
    "labelme",
    "layers",
    "instance_masks",
    "coco_panoptic",
    "masks",
    "csv",
    "metadata",
    "table",
    "folder",
    "images",
)
"""In the order of preference where several fit: the more a format asks for, the earlier it stands."""


class Format(Protocol):
    """What a module of this package offers.

    TASKS: what it can be written for. HOLDS: what of an item it can state, of "labels", "several labels", "boxes", "polygons", "pieces"
    (several outlines of an object), "masks" (of objects, with holes), "crowd", "difficult", "pixel classes", "pairs", "splits".
    """

    TASKS: Sequence[str]
    HOLDS: frozenset[str]

    def fits(self, tree: Tree) -> tuple[str, ...]:
        """The tasks that the files there can be read for, the likeliest first; () where they are not of this format. Looks at little."""
        ...

    def read(self, tree: Tree, task: str) -> Annotations:
        """Raises UserError where nothing can be made of it; what single annotations lack goes into `problems`."""
        ...

    def write(self, annotations: Annotations, out: Output) -> None:
        """Write images and labels so that `read` gives them back."""
        ...


def find(name: str) -> Format:
    """The format of this name; raises UserError naming those there are."""
    if name not in NAMES:
        raise unknown("format", name, NAMES)
    module = "csv_boxes" if name == "csv" else name
    return cast(Format, importlib.import_module(f"saccade.data.formats.{module}"))
