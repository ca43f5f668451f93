"""Classes that overlap: which of them each pixel has, as a set of bits, 1 << k for class k; what a model of such classes answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import encoding, files, folders, regions
from saccade.core.card import Card
from saccade.core.class_masks import IGNORED, Packed
from saccade.core.errors import UserError
from saccade.core.moment import Moment
from saccade.core.regions import Pieces
from saccade.core.segmentation import Segmentation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 7  # classes: a byte holds them all, and IGNORED beside them


def layered(card: Card) -> bool:
    """Whether a model's classes overlap."""
    return card.architecture.get("multi") is True


def kind(*, multi: bool) -> type[Segmentation]:
    """What an answer is, where classes overlap or not."""
    return Layers if multi else Segmentation


def check(classes: tuple[str, ...], where: str) -> None:
    """Raises UserError for more classes than a pixel can have."""
    if len(classes) > MOST:
        fix = "train one model for some of them and another for the rest"
        raise UserError(f"classes that overlap must be at most {MOST}, was {len(classes)}", where=where, fix=fix)


@dataclass(frozen=True)
class Layers(Segmentation):
    """The classes of each pixel of one image, as large as the original: none, one or several.

    packed: sets of bits, which `mask` expands; doubt: the mean over classes of how unsure each is; file: the folder where the masks were
    written, one for each class.
    """

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The set of classes of each pixel, bit k that of class k: uint8 `[H, W]`."""
        return self.packed.values

    def layer(self, label: int) -> NDArray[np.bool_]:
        """The pixels of one class: bool `[H, W]`."""
        return (self.packed.values >> label & 1).astype(bool)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class: `[K]`; their sum may be more, or less, than the image's pixels."""
        found = np.zeros(256, np.int64)
        for band in self.packed.bands():
            found += np.bincount(band.ravel(), minlength=256)
        bits = np.arange(256)[:, None] >> np.arange(len(self.classes)) & 1
        counts: NDArray[np.int64] = found @ bits
        return counts

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, of those that are there, the largest first."""
        total = max(1, self.size[0] * self.size[1])
        return {self.classes[label]: float(self.counts[label] / total) for label in self.labels.tolist()}

    @property
    def summary(self) -> str:
        """The answer in a few words: `vessel 12.1 %, lesion 3.4 %`."""
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items()) or "nothing"

    def pieces(self, least: int = 1) -> Pieces:
        """The `regions` with their pixels: those of each class by itself."""
        found = []
        for label in range(len(self.classes)):
            alone = (np.where(band >> label & 1, label, IGNORED).astype(np.uint8) for band in self.packed.bands())
            found.append(regions.pieces(Packed.joined(alone, self.size), (IGNORED,), least))
        return Pieces.together(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `layers` is the path of a PNG, black and white, by class, None where they were not written."""
        raw = super().to_dict()
        del raw["mask"]
        paths = {name: str(self._path(Path(self.file), label)) for label, name in enumerate(self.classes)}
        return raw | {"layers": paths if self.file else None}

    def _path(self, folder: Path, label: int) -> Path:
        return folder / f"{label}-{folders.stem(self.classes[label])}.png"

    def save(self, path: str | Path) -> Path:
        """Write a black and white PNG for each class into a folder, which is made."""
        folder = folders.make(path)
        for label in range(len(self.classes)):
            bands = (np.where(band >> label & 1, 255, 0).astype(np.uint8) for band in self.packed.bands())
            files.write_bytes(self._path(folder, label), encoding.png_of(bands, self.size))
        return folder

    def plot(self) -> Figure:
        """A map for each class."""
        from matplotlib.figure import Figure

        count = len(self.classes)
        figure = Figure(figsize=(3 * count, max(1.5, 3 * self.size[0] / self.size[1])), layout="constrained")
        for label, name in enumerate(self.classes):
            axes = figure.add_subplot(1, count, label + 1)
            axes.imshow(self.layer(label), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.axis("off")
            axes.set_title(name, fontsize=8, parse_math=False)
        return figure

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...]) -> Layers:
        """The inverse of `to_dict`: reads the masks, or takes run lengths by class (`masks`, as evaluations write them). Raises UserError
        where there are none, or they are not of one size."""
        from saccade.core import masks, run_lengths

        where = str(raw.get("source", ""))
        said = raw.get("layers") if isinstance(raw.get("layers"), Mapping) else raw.get("masks")
        if not isinstance(said, Mapping) or not set(said) <= set(classes):
            raise UserError("a result of classes that overlap must have a mask for each of its classes", where=where)
        try:
            height, width = map(int, raw["size"])
            found = np.zeros((height, width), np.uint8)
            for name, text in said.items():
                if said is raw.get("masks"):
                    inside = run_lengths.to_mask(run_lengths.checked(str(text).encode(), (height, width)))
                else:
                    inside = masks.read(text) != 0
                found |= inside.astype(np.uint8) << np.uint8(classes.index(name))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not masks by class: {error}", where=where) from None
        return cls(Packed.of(found), classes, where, None, "", tuple(raw.get("notes", ())), Moment.found(raw))
