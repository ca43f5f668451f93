"""Every pixel in one segment, a thing or a region of stuff: the result of a model that tells both (Kirillov et al. 2019, "Panoptic
segmentation"), and how well they are told."""

from __future__ import annotations

import html
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import encoding, run_lengths
from saccade.core.class_masks import IGNORED, Packed, colour
from saccade.core.errors import UserError
from saccade.core.moment import Moment, said_beside
from saccade.core.run_lengths import Rle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saccade.core.results import Instances
    from saccade.core.segmentation import Segmentation

VOID = 0  # the segment of pixels that are of none
MOST = 1 << 24  # ids that three bytes tell apart
MATCHED = 0.5  # overlap above which a told segment is a true one: no two can be so much of the same
SHADES = (1.0, 0.7, 0.85, 0.55)  # of a class: the things of it take turns
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an image: its number in the map, from 1 on; its class; how sure it is; crowd: a true region of many things, which
    need not be told apart; thing: whether its class can be counted, or else is stuff, all of which in an image is one segment."""

    id: int
    label: int
    score: float = 1.0
    crowd: bool = False
    thing: bool = True


@dataclass(frozen=True)
class Panoptic:
    """The segment of each pixel of one image, as large as the original: made by `of`, or `drawn`.

    segments: each that the map holds, once; size: the original image's (height, width); moment: of a frame, where in its video it stands.
    What is kept of the map, which `map` expands, is deflated.
    """

    deflated: bytes = field(repr=False)
    size: tuple[int, int]
    segments: tuple[Segment, ...]
    classes: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    moment: Moment | None = None

    task = "panoptic"

    @classmethod
    def of(
        cls, map: NDArray[np.int32], segments: Sequence[Segment], classes: tuple[str, ...], source: str = "", notes: tuple[str, ...] = ()
    ) -> Panoptic:
        """map: int32 `[H, W]`, the `id` of the segment of each pixel, VOID where it is of none. Raises ValueError where the map does not
        hold each segment, the segments not each number of the map once, ids are none of 1 to MOST - 1, or labels are of no class."""
        if map.ndim != 2 or map.dtype != np.int32:
            raise ValueError(f"the map must be int32 [H, W], is {map.dtype} {list(map.shape)}")
        told = [_checked(one.id) for one in segments]
        there = set(np.unique(map).tolist()) - {VOID}
        if len(set(told)) < len(told) or set(told) != there:
            odd = sorted(set(told) ^ there)[:5] or sorted(told)
            raise ValueError(f"the map must hold each segment, and each segment stand once: {odd}")
        if not all(0 <= one.label < len(classes) for one in segments):
            raise ValueError(f"labels must be of {len(classes)} classes")
        data = zlib.compress(np.ascontiguousarray(map, "<i4").data, 1)
        return cls(data, (map.shape[0], map.shape[1]), tuple(segments), classes, source, notes)

    @classmethod
    def drawn(cls, masks: Sequence[Rle], segments: Sequence[Segment], size: tuple[int, int], classes: tuple[str, ...]) -> Panoptic:
        """From the mask of each segment, of `size` (height, width); what lies under a later one is not there."""
        found = np.zeros(size, np.int32)
        for mask, one in zip(masks, segments, strict=True):
            part = run_lengths.patch(mask)
            rows, columns = part.pixels.shape
            found[part.top : part.top + rows, part.left : part.left + columns][part.pixels] = one.id
        seen = set(np.unique(found).tolist())
        return cls.of(found, [one for one in segments if one.id in seen], classes)

    @property
    def map(self) -> NDArray[np.int32]:
        """The `id` of the segment of each pixel, VOID where it is of none: int32 `[H, W]`, read only."""
        values: NDArray[np.int32] = np.frombuffer(zlib.decompress(self.deflated), "<i4").reshape(self.size)
        return values

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each segment, in the order of the `segments`."""
        ids, counts = np.unique(self.map, return_counts=True)
        of = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return np.array([of[one.id] for one in self.segments], np.int64)

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """The box about each segment, x1, y1, x2, y2 in pixels: `[N, 4]`."""
        whole = self.map
        found = [run_lengths.patch(run_lengths.from_mask(whole == one.id)).box for one in self.segments]
        return np.array(found, np.int64).reshape(-1, 4)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The classes that are there, that of the largest segment first."""
        order = np.argsort(-self.areas, kind="stable").tolist()
        return np.array(list(dict.fromkeys(self.segments[place].label for place in order)), np.int64)

    @property
    def summary(self) -> str:
        """The answer in a few words: `2 cat, 1 grass`."""
        counts = [(sum(one.label == label for one in self.segments), name) for label, name in enumerate(self.classes)]
        return ", ".join(f"{count} {name}" for count, name in counts if count) or "nothing"

    def mask(self, place: int) -> NDArray[np.bool_]:
        """The pixels of one of the `segments`: bool `[H, W]`."""
        found: NDArray[np.bool_] = self.map == self.segments[place].id
        return found

    def agreement(self, other: Any) -> float:
        """How much two answers for one image say the same: the share of pixels whose segment matches that of the other (PanopticQuality),
        or that are of none in both."""
        if self.size != other.size:
            return 0.0
        common = _common(self, other)
        same = sum(common[pair] for pair in _matched(self, other, common)) + common.get((VOID, VOID), 0)
        return float(same / max(1, self.size[0] * self.size[1]))

    def to_segmentation(self) -> Segmentation:
        """The class of each pixel, whichever segment it is of; IGNORED (255) where it is of none. Raises UserError for more classes than
        a mask of them can hold."""
        from saccade.core.segmentation import Segmentation

        if len(self.classes) > IGNORED:
            raise UserError(f"a mask holds at most {IGNORED} classes, these are {len(self.classes)}", where=self.source)
        ids = np.array([VOID, *(one.id for one in self.segments)], np.int64)
        labels = np.array([IGNORED, *(one.label for one in self.segments)], np.uint8)
        order = np.argsort(ids)
        packed = Packed.of(labels[order][np.searchsorted(ids[order], self.map)])
        return Segmentation(packed, self.classes, self.source, notes=self.notes, moment=self.moment)

    def to_instances(self, *, stuff: bool = False) -> Instances:
        """The things alone, with `stuff` all segments, each with its score, mask and the box about it, the surest first."""
        from saccade.core.results import Instances

        things = sorted((one for one in self.segments if one.thing or stuff), key=lambda one: -one.score)
        whole = self.map
        masks = tuple(run_lengths.from_mask(whole == one.id) for one in things)
        boxes = np.array([run_lengths.patch(mask).box for mask in masks], np.float32).reshape(-1, 4)
        scores, labels = np.array([one.score for one in things], np.float32), np.array([one.label for one in things], np.int64)
        return Instances(boxes, scores, labels, self.classes, self.source, self.size, self.notes, self.moment, masks=masks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the mask of each segment is COCO's run lengths of `size`."""
        whole = self.map
        rows = [
            {"id": one.id, "label": self.classes[one.label], "score": one.score, "crowd": one.crowd, "thing": one.thing, "area": area}
            | {"mask": run_lengths.from_mask(whole == one.id).counts.decode()}
            for one, area in zip(self.segments, self.areas.tolist(), strict=True)
        ]
        raw = {"source": self.source, "task": self.task, "size": list(self.size), "segments": rows}
        return raw | said_beside(self.notes, self.moment)

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
                found[inside] = _checked(row["id"])
                label, sure = classes.index(row["label"]), float(row.get("score", 1.0))
                segments.append(Segment(row["id"], label, sure, bool(row.get("crowd", False)), bool(row.get("thing", True))))
            made = cls.of(found, segments, classes, where, tuple(raw.get("notes", ())))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"not segments of an image: {error}", where=where) from None
        return replace(made, moment=Moment.found(raw))

    def coloured(self) -> NDArray[np.uint8]:
        """Each segment in the colour of its class, things of one class in different shades of it, black where there is none: uint8
        `[H, W, 3]`."""
        whole, seen = self.map, Counter[int]()
        picture = np.zeros((*self.size, 3), np.uint8)
        for one in self.segments:
            shade = SHADES[seen[one.label] % len(SHADES)]
            seen[one.label] += 1
            picture[whole == one.id] = np.round(np.array(colour(one.label + 1)) * shade).astype(np.uint8)
        return picture

    def plot(self) -> Figure:
        """`coloured`, with a legend of its classes."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        figure = Figure(figsize=(6, max(1.5, 4.5 * self.size[0] / self.size[1])), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(self.coloured(), interpolation="nearest")
        axes.axis("off")
        shown = []
        for label in self.labels.tolist():
            red, green, blue = colour(label + 1)
            shown.append(Patch(color=(red / 255, green / 255, blue / 255), label=self.classes[label]))
        for text in figure.legend(handles=shown, loc="outside right upper", fontsize=8).get_texts():
            text.set_parse_math(False)  # a class may be called "$x"
        return figure

    def png(self) -> bytes:
        """COCO's panoptic PNG: red, green and blue are the id's lowest bytes, in this order."""
        whole = self.map
        return encoding.png(np.stack([whole >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8))

    def save(self, path: str | Path) -> Path:
        """Write `png`."""
        from saccade.core.files import write_bytes

        return write_bytes(Path(path), self.png())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(self.classes[one.label])}</td><td style='text-align:right'>{one.score:.3f}</td><td>{area:,}</td></tr>"
            for one, area in list(zip(self.segments, self.areas.tolist(), strict=True))[:20]
        )
        return f"<table><caption>{html.escape(self.source)}: {len(self.segments)} segments</caption>{rows}</table>"


def _checked(identity: Any) -> int:
    """The id of a segment; raises ValueError for what a file of them cannot hold."""
    if not isinstance(identity, int) or isinstance(identity, bool) or not VOID < identity < MOST:
        raise ValueError(f"ids must be 1 to {MOST - 1}, was {identity!r}")
    return identity


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
        self._rows: list[Array] = []  # `[N, K, 4]`: by image and class sum of overlaps, matches, told for nothing, not found

    def update(self, results: Sequence[Panoptic], truths: Sequence[Panoptic]) -> None:
        """Take up answers and the truth of each, of the same size."""
        for result, truth in zip(results, truths, strict=True):
            if result.size != truth.size:
                raise ValueError(f"answer and truth must be of one size, got {result.size} and {truth.size}")
            self._rows.append(_compared(result, truth, len(self.classes))[None])

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
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, len(self.classes), 4))
        self._rows = [rows]
        total = rows.sum(0) if weights is None else np.tensordot(weights, rows, 1)
        overlap, matched, told, missed = total.T
        count = matched + told / 2 + missed / 2
        some = np.where(count > 0, count, np.nan)
        return overlap / some, np.where(matched > 0, overlap / np.maximum(matched, 1), 0.0) + 0 * some, matched / some


Pairs = dict[tuple[int, int], int]  # segments of a first and of a second map, and how many pixels are of both


def _common(first: Panoptic, second: Panoptic) -> Pairs:
    both = first.map.astype(np.int64) << 32 | second.map
    found, counts = np.unique(both, return_counts=True)
    return {(one >> 32, one & 0xFFFFFFFF): count for one, count in zip(found.tolist(), counts.tolist(), strict=True)}


def _matched(truth: Panoptic, result: Panoptic, common: Pairs) -> dict[tuple[int, int], float]:
    """The pairs of a true and a told segment that match, each with its overlap."""
    true, told = ({one.id: one for one in of.segments} for of in (truth, result))
    true_area, told_area = (dict(zip((one.id for one in of.segments), of.areas.tolist(), strict=True)) for of in (truth, result))
    found = {}
    for (right, said), count in common.items():
        if right == VOID or said == VOID or true[right].crowd or true[right].label != told[said].label:
            continue
        overlap = count / (true_area[right] + told_area[said] - count - common.get((VOID, said), 0))
        if overlap > MATCHED:
            found[right, said] = overlap
    return found


def _compared(result: Panoptic, truth: Panoptic, kinds: int) -> Array:
    """Of each class: sum of the overlaps of matches, matches, told for nothing, not found: `[K, 4]`."""
    common = _common(truth, result)
    matched = _matched(truth, result, common)
    rows = np.zeros((kinds, 4))
    label_of = {one.id: one.label for one in result.segments}
    for (_, said), overlap in matched.items():
        rows[label_of[said]] += (overlap, 1, 0, 0)
    found, right = {true for true, _ in matched}, {said for _, said in matched}
    for one in truth.segments:
        rows[one.label, 3] += not one.crowd and one.id not in found
    for one, area in zip(result.segments, result.areas.tolist(), strict=True):
        crowds = [other.id for other in truth.segments if other.crowd and other.label == one.label]
        excused = sum(common.get((other, one.id), 0) for other in (VOID, *crowds))
        rows[one.label, 2] += one.id not in right and excused <= MATCHED * area
    return rows


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
