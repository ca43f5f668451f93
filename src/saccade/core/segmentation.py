"""The class of each pixel: what `predict` returns for a model that segments."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import class_masks, regions
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.errors import UserError
from saccade.core.moment import Moment, said_beside
from saccade.core.regions import Pieces, Region

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saccade.core.results import Instances

MASKS = "classes"  # folder of masks beside predictions
BACKGROUND = "background"  # what a class of this name covers is what is no thing


@dataclass(frozen=True)
class Segmentation:
    """The class of each pixel of one image, as large as the original.

    packed: class indices, which `mask` expands; doubt: how unsure each pixel's class is, or None, see `uncertainty`; file: where the mask
    was written, "" where it was not; moment: of a frame, where in its video it stands. `size` is the original image's (height, width).
    """

    packed: Packed
    classes: tuple[str, ...]
    source: str = ""
    doubt: Packed | None = None
    file: str = ""
    notes: tuple[str, ...] = field(default=())
    moment: Moment | None = None

    task = "segment"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original image."""
        return self.packed.size

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The class index of each pixel, IGNORED (255) where it is of none (`Panoptic.to_segmentation`): uint8 `[H, W]`."""
        return self.packed.values

    @property
    def uncertainty(self) -> NDArray[np.float32] | None:
        """The entropy of each pixel's probabilities by the largest possible, 0 (sure) to 1, in steps of 1/255: float32 `[H, W]`; None where
        it was not asked for."""
        return None if self.doubt is None else self.doubt.values.astype(np.float32) / np.float32(255)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class: `[K]`."""
        found = np.zeros(256, np.int64)
        for band in self.packed.bands():
            found += np.bincount(band.ravel(), minlength=256)
        return found[: len(self.classes)]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The classes that are there, the largest first; a class called "background" stands last."""
        order = np.argsort(-self.counts, kind="stable")
        seen = [int(label) for label in order if self.counts[label]]
        return np.array(sorted(seen, key=lambda label: self.classes[label] == BACKGROUND), np.int64)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, of those that are there, as `labels` are ordered."""
        total = max(1, int(self.counts.sum()))
        return {self.classes[label]: float(self.counts[label] / total) for label in self.labels.tolist()}

    @property
    def summary(self) -> str:
        """The answer in a few words: `cat 12.1 %, sofa 3.4 %`."""
        said = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items() if name != BACKGROUND)
        return said or f"nothing but {BACKGROUND}"

    def agreement(self, other: Any) -> float:
        """How much two answers for one image say the same: the share of pixels that have the same class."""
        return float((self.mask == other.mask).mean()) if self.packed.size == other.packed.size else 0.0

    def regions(self, least: int = 1) -> list[Region]:
        """The connected pieces (by sides, not corners) of every class but "background", by class, then from the top; `least`: pixels."""
        return list(self.pieces(least).regions)

    def pieces(self, least: int = 1) -> Pieces:
        """The `regions` with their pixels."""
        without = [IGNORED, *(label for label, name in enumerate(self.classes) if name == BACKGROUND)]
        return regions.pieces(self.packed, without, least)

    def to_instances(self, least: int = 1) -> Instances:
        """Each of the `regions` as an object of its class, of score 1."""
        from saccade.core import run_lengths
        from saccade.core.results import Instances

        pieces = self.pieces(least)
        boxes = np.array([region.box for region in pieces.regions], np.float32).reshape(-1, 4)
        labels = np.array([region.label for region in pieces.regions], np.int64)
        masks = tuple(run_lengths.from_patch(pieces.patch(number), self.size) for number in range(len(labels)))
        ones = np.ones(len(labels), np.float32)
        return Instances(boxes, ones, labels, self.classes, self.source, self.size, self.notes, self.moment, masks=masks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `mask` is the path of a PNG of class indices, None where it was not written."""
        return {
            "source": self.source,
            "task": self.task,
            "mask": self.file or None,
            "shares": self.shares,
            "size": list(self.size),
            **said_beside(self.notes, self.moment),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...]) -> Segmentation:
        """The inverse of `to_dict`: reads the mask, or takes run lengths by class (`masks`, as evaluations write them). Raises UserError
        where there is none, or its values are no classes."""
        from saccade.core import masks

        where = str(raw.get("source", ""))
        if isinstance(raw.get("masks"), Mapping):
            return cls(Packed.of(_drawn(raw, classes, where)), classes, where, notes=tuple(raw.get("notes", ())), moment=Moment.found(raw))
        if not isinstance(raw.get("mask"), str):
            raise UserError("a result of segmentation must name the file of its mask", where=where)
        values = masks.read(raw["mask"])
        if values.min() < 0 or values.max() >= len(classes):
            raise UserError(f"must hold class indices of 0 to {len(classes) - 1}, was {values.min()} to {values.max()}", where=raw["mask"])
        return cls(Packed.of(values.astype(np.uint8)), classes, where, None, raw["mask"], tuple(raw.get("notes", ())), Moment.found(raw))

    def plot(self) -> Figure:
        """The mask in the colours of its classes, white where it is of none, with a legend."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        colours = np.full((IGNORED + 1, 3), 255, np.uint8)
        colours[: len(self.classes)] = [class_masks.colour(label) for label in range(len(self.classes))]
        figure = Figure(figsize=(6, max(1.5, 4.5 * self.size[0] / self.size[1])), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(colours[self.mask], interpolation="nearest")
        axes.axis("off")
        shown = [Patch(color=colours[label] / 255, label=self.classes[label]) for label in self.labels.tolist()]
        for text in figure.legend(handles=shown, loc="outside right upper", fontsize=8).get_texts():
            text.set_parse_math(False)  # a class may be called "$x"
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the mask as a palette PNG of class indices."""
        from saccade.core.files import write_bytes

        return write_bytes(Path(path), class_masks.png(self.packed))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{100 * share:.1f} %</td></tr>"
            for name, share in list(self.shares.items())[:20]
        )
        return f"<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


def _drawn(raw: Mapping[str, Any], classes: tuple[str, ...], where: str) -> NDArray[np.uint8]:
    from saccade.core import run_lengths

    try:
        height, width = map(int, raw["size"])
        mask = np.zeros((height, width), np.uint8)
        for name, text in raw["masks"].items():
            mask[run_lengths.to_mask(run_lengths.checked(str(text).encode(), (height, width)))] = classes.index(name)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not masks by class: {error}", where=where) from None
    return mask
