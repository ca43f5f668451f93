"""What `predict` returns: NumPy fields in the original image's pixel coordinates, validated, to and from JSON."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.moment import Moment, said_beside
from saccade.core.panoptic import Panoptic
from saccade.core.run_lengths import Rle
from saccade.core.segmentation import Segmentation

if TYPE_CHECKING:
    import supervision
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Classification:
    """The classes of one image, best first.

    labels: int64 [K], class indices by falling score; scores: float32 [K], their probabilities;
    probabilities: float32 [K], in the order of `classes`. `size` is the original image's (height, width); `moment`, of a frame, where in
    its video it stands. Of a network with exits: exit, the number of the one that answered, from 1 on in the order of the network, its last
    layer's after those of all exits; early, float32 [E, K], the probabilities that each exit would give, where all were asked.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    source: str = ""
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = field(default=())
    moment: Moment | None = None
    exit: int | None = None
    early: NDArray[np.float32] | None = field(default=None, repr=False)

    task = "classify"

    def __post_init__(self) -> None:
        shape = (len(self.classes),)
        if not self.labels.shape == self.scores.shape == self.probabilities.shape == shape:
            raise ValueError(
                f"labels, scores and probabilities must have shape {shape}, got "
                f"{self.labels.shape}, {self.scores.shape}, {self.probabilities.shape}"
            )
        if not (np.isfinite(self.probabilities).all() and np.isfinite(self.scores).all()):
            raise ValueError("scores and probabilities must be finite")

    @property
    def label(self) -> str:
        """The name of the best class."""
        return self.classes[int(self.labels[0])]

    @property
    def score(self) -> float:
        """The probability of the best class."""
        return float(self.scores[0])

    @property
    def summary(self) -> str:
        """The answer in a few words: `cat (0.931)`."""
        return f"{self.label} ({self.score:.3f})"

    def agreement(self, other: Any) -> float:
        """How much two answers for one image say the same, 0 to 1: here whether they name the same class."""
        return float(self.label == other.label)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "task": self.task,
            "label": self.label,
            "score": self.score,
            "labels": [self.classes[i] for i in self.labels],
            "scores": [float(s) for s in self.scores],
            "size": list(self.size),
            **({} if self.exit is None else {"exit": self.exit}),
            **said_beside(self.notes, self.moment),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...]) -> Classification:
        """The inverse of `to_dict`; raises UserError when the names do not fit `classes` or the figures are none."""
        where = str(raw.get("source", ""))
        index = {name: i for i, name in enumerate(classes)}
        try:
            if len(raw["labels"]) != len(classes) or set(raw["labels"]) != set(classes):
                raise UserError("the labels of this result are not the model's classes", where=where)
            labels = np.array([index[name] for name in raw["labels"]], np.int64)
            scores = np.array(raw["scores"], np.float32)
            if scores.shape != labels.shape:
                raise UserError(f"a result must have a score a class, got {len(raw['scores'])}", where=where)
            probabilities = np.empty_like(scores)
            probabilities[labels] = scores
            height, width = map(int, raw.get("size", (0, 0)))
            exit, notes = raw.get("exit"), tuple(raw.get("notes", ()))
            if exit is not None and not (type(exit) is int and exit > 0):
                raise UserError(f"exit must be a number from 1 on, got {exit!r}", where=where)
            return cls(labels, scores, probabilities, classes, where, (height, width), notes, Moment.found(raw), exit)
        except KeyError as error:
            raise UserError(f"a result must have {error}", where=where) from None
        except (TypeError, ValueError) as error:
            raise UserError(f"not a result: {error}", where=where) from None

    def plot(self, top: int = 5) -> Figure:
        """A bar chart of the best `top` classes."""
        from matplotlib.figure import Figure

        count = min(top, len(self.classes))
        figure = Figure(figsize=(4, 0.4 * count + 0.6), layout="constrained")
        axes = figure.add_subplot()
        names = [self.classes[i] for i in self.labels[:count]]
        bars = axes.barh(range(count), self.scores[:count], color="#2a6f97")
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_yticks(range(count), names, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON."""
        from saccade.core.files import write_json

        return write_json(Path(path), self.to_dict())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(self.classes[i])}</td><td style='text-align:right'>{s:.3f}</td></tr>"
            for i, s in zip(self.labels[:5], self.scores[:5], strict=True)
        )
        return f"<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


@dataclass(frozen=True)
class Generated:
    """Images that a model has made.

    images: uint8 `[N, H, W, C]`, C 1, 3 or 4 (straight alpha); latents: float32 `[N, L]` that each was made from, which make it again;
    labels: int64 `[N]`, the class that each was made as, or None; files: where they were written, empty where they were not.
    """

    images: NDArray[np.uint8]
    latents: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    seed: int = 0
    files: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    task = "generate"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or len(self.images) != len(self.latents):
            raise ValueError(f"images must be uint8 [N, H, W, C] for {len(self.latents)} latents, got {list(self.images.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def to_dict(self) -> dict[str, Any]:
        """The object of `generate --json`: paths where files were written, and what was found of the images."""
        named = {} if self.labels is None else {"labels": [self.classes[i] for i in self.labels]}
        return {"images": [], "latents": None, **self.files, "seed": self.seed, "n": len(self.images), **named, **self.notes}

    def plot(self, most: int = 64) -> Figure:
        """The first `most` images in a grid."""
        from matplotlib.figure import Figure

        count = max(1, min(most, len(self.images)))
        columns = math.ceil(math.sqrt(count))
        rows = -(-count // columns)
        figure = Figure(figsize=(0.9 * columns, 0.9 * rows), layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, image in zip(cells, self.images[:count], strict=False):
            axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for axes in cells:
            axes.axis("off")
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write the images as PNG files 000000.png, ... into a folder, and latents.npy beside them; raises UserError as a disk refuses."""
        from saccade.core import encoding
        from saccade.core.files import write_bytes

        for number, image in enumerate(self.images):
            write_bytes(Path(folder) / f"{number:06d}.png", encoding.png(image))
        return write_bytes(Path(folder) / "latents.npy", encoding.npy(self.latents))


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, surest first.

    boxes: float32 `[N, 4]` x1, y1, x2, y2 in pixels of the original image, from the corner of its first pixel; scores: float32 `[N]`, 0
    to 1; labels: int64 `[N]`, class indices. `size` is the original image's (height, width); `moment`, of a frame, where in its video it
    stands; `class_ids`: the numbers of `classes` in the data set that the model has learned from, () where it has none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str = ""
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = field(default=())
    moment: Moment | None = None
    class_ids: tuple[int, ...] = ()

    task = "detect"

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,):
            raise ValueError(f"boxes must be [{count}, 4] and labels [{count}], got {self.boxes.shape} and {self.labels.shape}")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores must be finite")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label] for label in self.labels.tolist()]

    @property
    def category_ids(self) -> NDArray[np.int64] | None:
        """The data set's own number of each object's class: int64 `[N]`; None where it has none."""
        return np.array(self.class_ids, np.int64)[self.labels] if self.class_ids else None

    @property
    def summary(self) -> str:
        """The answer in a few words: `2 cat, 1 dog`."""
        return ", ".join(f"{count} {name}" for name, count in Counter(self.names).items()) or "nothing"

    def above(self, score: float) -> Self:
        """Those of at least this score."""
        return self.chosen(self.scores >= score)

    def chosen(self, kept: NDArray[np.bool_]) -> Self:
        """Some of the objects: bool `[N]`."""
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    def overlaps(self, other: Self) -> NDArray[np.float64]:
        """Intersection over union with each object of another answer for the same image: `[N, M]`."""
        from saccade.core.average_precision import overlaps

        return overlaps(self.boxes, other.boxes, np.zeros(len(other), bool))

    def agreement(self, other: Any) -> float:
        """How much two answers for one image say the same, 0 to 1: the share of objects of both that have a counterpart in the other, of
        the same class and with an overlap (intersection over union) of 0.9 or more."""
        if not len(self) + len(other):
            return 1.0
        near = self.overlaps(other) >= 0.9
        near &= self.labels[:, None] == other.labels
        return float(near.any(1).sum() + near.any(0).sum()) / (len(self) + len(other))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; boxes to a hundredth of a pixel."""
        return {
            "source": self.source,
            "task": self.task,
            "count": len(self),
            "boxes": [[round(float(value), 2) for value in box] for box in self.boxes],
            "labels": self.names,
            **({"category_ids": ids.tolist()} if (ids := self.category_ids) is not None else {}),
            "scores": [float(s) for s in self.scores],
            "size": list(self.size),
            **said_beside(self.notes, self.moment),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...], class_ids: tuple[int, ...] = ()) -> Self:
        """The inverse of `to_dict`; raises UserError where names or numbers do not fit the classes, or the figures are none."""
        where = str(raw.get("source", ""))
        index = {name: i for i, name in enumerate(classes)}
        try:
            labels = np.array([index[name] for name in raw["labels"]], np.int64)
            if class_ids and raw.get("category_ids", []) not in ([], [class_ids[label] for label in labels]):
                raise ValueError("its category_ids are not those of its labels")
            boxes = np.array(raw["boxes"], np.float32).reshape(-1, 4)
            height, width = map(int, raw.get("size", (0, 0)))
            scores = np.array(raw["scores"], np.float32)
            remarks = tuple(raw.get("notes", ()))
            return cls(boxes, scores, labels, classes, where, (height, width), remarks, Moment.found(raw), class_ids, **cls._more(raw))
        except KeyError as error:
            raise UserError(f"not a result of this model: it lacks {error}", where=where) from None
        except (TypeError, ValueError) as error:
            raise UserError(f"not a result: {error}", where=where) from None

    @classmethod
    def _more(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Further fields."""
        return {}

    def to_supervision(self) -> supervision.Detections:
        """The same as `supervision.Detections` (https://supervision.roboflow.com), to track, count and draw with: class_id is the label,
        data["class_name"] its name. Raises UserError where supervision is not installed."""
        try:
            import supervision
        except ImportError:
            raise UserError("supervision is not installed", where="to_supervision", fix="pip install 'saccade[supervision]'") from None
        names = np.array(self.names, dtype=np.str_)
        return supervision.Detections(self.boxes, self._shapes(), self.scores, self.labels, data={"class_name": names})

    def _shapes(self) -> NDArray[np.bool_] | None:
        """Masks `[N, H, W]`, where there are any."""
        return None

    def plot(self) -> Figure:
        """The boxes on an empty canvas of the image's size; `predict` with the format "png" lays them over the image."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        height, width = self.size if min(self.size) else (float(self.boxes[:, 3].max(initial=1)), float(self.boxes[:, 2].max(initial=1)))
        figure = Figure(figsize=(5, max(1.0, 5 * height / width)), layout="constrained")
        axes = figure.add_subplot()
        for box, label, score in zip(self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True):
            colour = f"C{label % 10}"
            axes.add_patch(Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, edgecolor=colour, linewidth=2))
            axes.text(box[0], box[1], f"{self.classes[label]} {score:.2f}", color=colour, va="bottom", fontsize=8, parse_math=False)
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        return figure

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON."""
        from saccade.core.files import write_json

        return write_json(Path(path), self.to_dict())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{score:.3f}</td>"
            f"<td>{', '.join(f'{value:.0f}' for value in box)}</td></tr>"
            for name, score, box in list(zip(self.names, self.scores, self.boxes, strict=True))[:20]
        )
        return f"<table><caption>{html.escape(self.source)}: {len(self)} objects</caption>{rows}</table>"


@dataclass(frozen=True)
class Instances(Detections):
    """Detections with the mask of each: run lengths over the whole original image, in the order of the boxes."""

    masks: tuple[Rle, ...] = ()

    task = "instances"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.masks) != len(self) or any(mask.size != self.size for mask in self.masks):
            raise ValueError(f"masks must be {len(self)} of {self.size[0]}x{self.size[1]} (height x width)")

    def chosen(self, kept: NDArray[np.bool_]) -> Self:
        """Some of the objects: bool `[N]`."""
        masks = tuple(self.masks[place] for place in np.flatnonzero(kept).tolist())
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept], masks=masks)

    def overlaps(self, other: Self) -> NDArray[np.float64]:
        """As of boxes, but of the masks."""
        return run_lengths.overlaps(self.masks, other.masks, np.zeros(len(other), bool))

    def mask(self, place: int) -> NDArray[np.bool_]:
        """The pixels of one object: bool `[H, W]`."""
        return run_lengths.to_mask(self.masks[place])

    def _shapes(self) -> NDArray[np.bool_]:
        return np.stack([self.mask(place) for place in range(len(self))]) if len(self) else np.zeros((0, *self.size), bool)

    def to_dict(self) -> dict[str, Any]:
        """As of boxes, and masks: the counts of COCO's compressed run lengths, of masks of `size`."""
        return super().to_dict() | {"masks": [mask.counts.decode() for mask in self.masks]}

    @classmethod
    def _more(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        height, width = map(int, raw["size"])
        return {"masks": tuple(run_lengths.checked(str(text).encode(), (height, width)) for text in raw["masks"])}


OBJECTS: Mapping[str, type[Detections]] = {
    "detect": Detections,
    "instances": Instances,
}  # by task whose answers are objects
# By task whose truth lies within the images.
KINDS: Mapping[str, type[Detections | Segmentation | Panoptic]] = {**OBJECTS, "segment": Segmentation, "panoptic": Panoptic}
WITHIN = tuple(KINDS)
Result = Classification | Detections | Segmentation | Panoptic
