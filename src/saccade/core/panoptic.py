"""Every pixel in one segment, a thing or a region of stuff: the result of a model that tells both (Kirillov et al. 2019, "Panoptic
segmentation"), and how well they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import run_lengths
from saccade.core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VOID = 0  # the segment of pixels that are of none
MATCHED = 0.5  # overlap above which a told segment is a true one: no two can be so much of the same
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an image: its number in the map, from 1 on; its class; how sure it is; crowd: a true region of many things, which
    need not be told apart."""

    id: int
    label: int
    score: float = 1.0
    crowd: bool = False


@dataclass(frozen=True)
class Panoptic:
    """map: int32 `[H, W]`, in the original's pixels, the `id` of the segment of each, VOID where it is of none; segments: each that the map
    holds, once. Raises ValueError for others."""

    map: NDArray[np.int32]
    segments: tuple[Segment, ...]
    classes: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    task = "panoptic"

    def __post_init__(self) -> None:
        told = [one.id for one in self.segments]
        there = set(np.unique(self.map).tolist()) - {VOID}
        if self.map.ndim != 2 or self.map.dtype != np.int32:
            raise ValueError(f"the map must be int32 [H, W], is {self.map.dtype} {list(self.map.shape)}")
        if len(set(told)) < len(told) or set(told) != there:
            odd = sorted(set(told) ^ there)[:5] or sorted(told)
            raise ValueError(f"the map must hold each segment, and each segment stand once: {odd}")
        if not all(0 <= one.label < len(self.classes) for one in self.segments):
            raise ValueError(f"labels must be of {len(self.classes)} classes")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original image."""
        return self.map.shape[0], self.map.shape[1]

    @property
    def summary(self) -> str:
        """The answer in a few words: `2 cat, 1 grass`."""
        counts = [(sum(one.label == label for one in self.segments), name) for label, name in enumerate(self.classes)]
        return ", ".join(f"{count} {name}" for count, name in counts if count) or "nothing"

    def mask(self, place: int) -> NDArray[np.bool_]:
        """The pixels of one of the `segments`: bool `[H, W]`."""
        found: NDArray[np.bool_] = self.map == self.segments[place].id
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the mask of each segment is COCO's run lengths of `size`."""
        rows = [
            {"id": one.id, "label": self.classes[one.label], "score": one.score, "crowd": one.crowd}
            | {"mask": run_lengths.from_mask(self.map == one.id).counts.decode()}
            for one in self.segments
        ]
        raw = {"source": self.source, "task": self.task, "size": list(self.size), "segments": rows}
        return raw | ({"notes": list(self.notes)} if self.notes else {})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...]) -> Panoptic:
        """The inverse of `to_dict`; raises UserError for what is none, or where segments overlap."""
        where = str(raw.get("source", ""))
        try:
            height, width = map(int, raw["size"])
            found, segments = np.zeros((height, width), np.int32), []
            for row in raw["segments"]:
                inside = run_lengths.to_mask(run_lengths.checked(str(row["mask"]).encode(), (height, width)))
                if found[inside].any():
                    raise ValueError(f"segment {row['id']} lies over another")
                found[inside] = row["id"]
                segments.append(Segment(row["id"], classes.index(row["label"]), float(row["score"]), bool(row["crowd"])))
            return cls(found, tuple(segments), classes, where, tuple(raw.get("notes", ())))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"not segments of an image: {error}", where=where) from None

    def plot(self) -> Figure:
        """Each segment in the colour of its class, darker and lighter where several are of one."""
        from matplotlib.figure import Figure

        from saccade.core.class_masks import colour

        figure = Figure(figsize=(6, max(1.5, 6 * self.size[0] / self.size[1])), layout="constrained")
        axes = figure.add_subplot()
        picture = np.zeros((*self.size, 3), np.uint8)
        for number, one in enumerate(self.segments):
            picture[self.map == one.id] = (np.array(colour(one.label + 1)) * (0.7 + 0.3 * (number % 3) / 2)).astype(np.uint8)
        axes.imshow(picture, interpolation="nearest")
        axes.axis("off")
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the map as COCO's panoptic PNG: red, green and blue are the id's lowest bytes, in this order."""
        from saccade.core import encoding
        from saccade.core.files import write_bytes

        parts = np.stack([self.map >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        return write_bytes(Path(path), encoding.png(parts))


class PanopticQuality:
    """`pq`, `sq` and `rq`: panoptic quality, that of segments that are found, and how many are (Kirillov et al. 2019, equations 1 and 2),
    the mean over the classes that are anywhere; also `pq_things`, `pq_stuff`.

    By the rules of panopticapi: a told and a true segment of one class match where their overlap by their union, without what is void,
    exceeds MATCHED. A told segment that matches none counts nothing where void, and crowds of its class, are more than half of it; crowds
    need not be found.
    """

    primary = "pq"
    higher_is_better = True

    def __init__(self, classes: Sequence[str], things: Sequence[int]) -> None:
        """things: the labels of what can be counted."""
        self.classes, self.things = tuple(classes), frozenset(things)
        self._rows: list[Array] = []  # by image and class: sum of overlaps, matches, told for nothing, not found

    def update(self, results: Sequence[Panoptic], truths: Sequence[Panoptic]) -> None:
        """Take up answers and the truth of each, of the same size."""
        for result, truth in zip(results, truths, strict=True):
            if result.size != truth.size:
                raise ValueError(f"answer and truth must be of one size, got {result.size} and {truth.size}")
            self._rows.append(_compared(result, truth, len(self.classes)))

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` `[N]` count each image that often (None: once)."""
        quality, found, recognised = self._figures(weights)
        labels = np.arange(len(self.classes))
        thing = np.isin(labels, list(self.things))
        return {
            "pq": _mean(quality),
            "sq": _mean(found),
            "rq": _mean(recognised),
            "pq_things": _mean(quality[thing]),
            "pq_stuff": _mean(quality[~thing]),
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class pq sq rq`, in class order; None where a class is nowhere."""
        found = []
        for name, figures in zip(self.classes, np.column_stack(self._figures(None)).tolist(), strict=True):
            shown = [value if np.isfinite(value) else None for value in figures]
            found.append({"class": name, **dict(zip(("pq", "sq", "rq"), shown, strict=True))})
        return found

    def _figures(self, weights: Array | None) -> tuple[Array, Array, Array]:
        rows = np.array(self._rows).reshape(-1, len(self.classes), 4)
        total = rows.sum(0) if weights is None else np.tensordot(weights, rows, 1)
        overlap, matched, told, missed = total.T
        count = matched + told / 2 + missed / 2
        some = np.where(count > 0, count, np.nan)
        return overlap / some, np.where(matched > 0, overlap / np.maximum(matched, 1), 0.0) + 0 * some, matched / some


def _compared(result: Panoptic, truth: Panoptic, kinds: int) -> Array:
    """Of each class: sum of the overlaps of matches, matches, told for nothing, not found: `[K, 4]`."""
    pairs, counts = np.unique(np.stack([truth.map.ravel(), result.map.ravel()]), axis=1, return_counts=True)
    common = dict(zip(map(tuple, pairs.T.tolist()), counts.tolist(), strict=True))
    told, true = {one.id: one for one in result.segments}, {one.id: one for one in truth.segments}
    areas = [dict.fromkeys(segments, 0) for segments in (true, told)]
    for (right, said), count in common.items():
        for area, number in zip(areas, (right, said), strict=True):
            area[number] = area.get(number, 0) + count
    rows = np.zeros((kinds, 4))
    found: set[int] = set()
    matched: set[int] = set()
    for (right, said), count in common.items():
        if right == VOID or said == VOID or true[right].crowd or true[right].label != told[said].label:
            continue
        overlap = count / (areas[0][right] + areas[1][said] - count - common.get((VOID, said), 0))
        if overlap > MATCHED:
            rows[told[said].label] += (overlap, 1, 0, 0)
            found.add(right)
            matched.add(said)
    for one in truth.segments:
        rows[one.label, 3] += not one.crowd and one.id not in found
    for one in result.segments:
        crowds = [other.id for other in truth.segments if other.crowd and other.label == one.label]
        excused = sum(common.get((other, one.id), 0) for other in (VOID, *crowds))
        rows[one.label, 2] += one.id not in matched and excused <= MATCHED * areas[1][one.id]
    return rows


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
