"""What a labelled set says of its images, whatever format it was written in: what readers give and writers take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from saccade.core.run_lengths import Rle
from saccade.data.findings import Finding
from saccade.data.tree import File, Tree

Box: TypeAlias = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels; (0, 0) is the corner of the image's first pixel
Ring: TypeAlias = tuple[float, ...]  # x1, y1, x2, y2, ...: the outline of one piece, in pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """A mask that lies in a file: its pixels of `value`, or where value is None all that are not zero, in JPEG those that are light;
    colours: a value is r << 16 | g << 8 | b."""

    path: str
    value: int | None = None
    colours: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """One thing in an image, as its file states it: nothing is clipped, sorted or dropped here.

    label: place in the classes; box: None where the format states none (it follows from the shape); shape: what covers it, if stated.
    difficult: VOC's mark, not counted in measuring; crowd: COCO's iscrowd, a region of many. line: of the annotation file, 0 where it has
    no lines. score: how sure the model was that found it, None for what people have drawn.
    """

    label: int
    box: Box | None = None
    shape: tuple[Ring, ...] | Rle | Picture | None = None
    crowd: bool = False
    difficult: bool = False
    line: int = 0
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One image and what is said of it.

    image: the file, which is there; split: train, val, test, or "" where the format does not say; labels: classes of the whole image;
    mask: path of the picture whose pixels are classes (segment); pair: path of what the image becomes (generate);
    size: (height, width) as the annotation states it, None where it does not;
    where: the annotation file, for messages.
    """

    image: File
    split: str = ""
    labels: tuple[int, ...] = ()
    objects: tuple[Object, ...] = ()
    mask: str = ""
    pair: str = ""
    size: tuple[int, int] | None = None
    where: str = ""
    line: int = 0

    @property
    def path(self) -> str:
        """Of the image, relative to the tree's root."""
        return self.image.path


SHOWN = 5  # values of masks that are named


@dataclass(frozen=True)
class Legend:
    """How the pixels of a mask picture name classes: value -> class. A value is an index, or with `colours` r << 16 | g << 8 | b.

    ignored: values that are left out of loss and metrics.
    """

    values: Mapping[int, int]
    colours: bool = False
    ignored: frozenset[int] = frozenset()

    def unnamed(self, values: Iterable[int]) -> list[int]:
        """Those that stand for no class, and are not said to: their pixels count in nothing."""
        return [value for value in values if value not in self.values and value not in self.ignored]

    def written(self, values: Sequence[int]) -> str:
        """The first of them, as people write indices and colours."""
        return ", ".join(f"#{value:06x}" if self.colours else str(value) for value in values[:SHOWN])


@dataclass(frozen=True)
class Annotations:
    """A labelled set as read: items sorted by path (code points), each image once.

    tree: where images and masks lie; opened: what was opened to find them, a folder or a file; problems: what the reader met that cannot be
    right, each with its place; ignored: files that are no images; outside: images that are links to outside of the root; multi: whether an
    image may have several labels or none; notes: what a user should know of how the set was understood; ids: the set's own numbers of the
    classes, in their order, () where it has none; stuff: places of the classes that cannot be counted (panoptic).
    """

    format: str
    task: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    tree: Tree
    problems: tuple[Finding, ...] = ()
    ignored: int = 0
    outside: int = 0
    multi: bool = False
    legend: Legend = field(default_factory=lambda: Legend({}))
    notes: tuple[str, ...] = ()
    opened: Path = Path()
    ids: tuple[int, ...] = ()
    stuff: tuple[int, ...] = ()
