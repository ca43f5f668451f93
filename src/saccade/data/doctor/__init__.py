"""`data check`: everything that is wrong with a labelled set, whatever format it was read from, each thing named once, with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saccade.core.progress import Progress
from saccade.data.annotations import Annotations
from saccade.data.doctor import boxes, classes, headers, likeness, look, pixels
from saccade.data.doctor.flat import Flat
from saccade.data.findings import ERROR, NOTE, WARNING, Finding

_ORDER = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Report:
    """What was found, errors first; images: how many there are."""

    findings: tuple[Finding, ...]
    format: str
    task: str
    images: int

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(found.severity == ERROR for found in self.findings)

    def with_doubts(self, found: Sequence[Finding]) -> Report:
        """With what a model doubts, in the order given: the most doubtful is to be looked at first."""
        return replace(self, findings=_sorted([*self.findings, *found]))

    def to_dict(self) -> dict[str, Any]:
        """As `data check --json` has it."""
        counts = Counter(found.code for found in self.findings)
        return {
            "findings": [found.to_dict() for found in self.findings],
            "counts": dict(counts.most_common()),
            "errors": self.errors,
            "warnings": sum(found.severity == WARNING for found in self.findings),
            "images": self.images,
            "format": self.format,
            "task": self.task,
        }


def quick(annotations: Annotations) -> tuple[Finding, ...]:
    """What the annotations alone tell, without crossings of polygons: seconds for millions of objects."""
    return _sorted([*annotations.problems, *_labels(annotations, Flat(annotations))])


def before_training(annotations: Annotations, progress: Progress, workers: int = 2) -> tuple[Finding, ...]:
    """What is known before an image is decoded: `quick`, and what the headers of masks tell."""
    found = quick(annotations)
    return _sorted([*found, *_unknown(headers.check(annotations, progress, workers), annotations)])


def examine(annotations: Annotations, *, progress: Progress, workers: int = 2) -> Report:
    """Look at every label and every image, in `workers` threads; labels are measured against the images' true sizes."""
    looks = list(look.at_all(annotations, progress, workers))
    sizes = [one.size or item.size for one, item in zip(looks, annotations.items, strict=True)]
    flat = Flat(annotations, sizes)
    found = [*_labels(annotations, flat), *boxes.crossings(flat), *pixels.check(annotations, looks)]
    found += pixels.check_masks(annotations, sizes, progress, workers)
    found = _unknown(found, annotations)
    return Report(_sorted([*annotations.problems, *found]), annotations.format, annotations.task, len(annotations.items))


def alike(annotations: Annotations, progress: Progress, workers: int = 2) -> list[list[int]]:
    """Groups of images, by their indices, that show the same or nearly so: those that one split must keep together."""
    looks = list(look.at_all(annotations, progress, workers))
    same = likeness.exact(annotations, looks)
    near = likeness.near(looks, same)
    joined = {index for group in near for index in group}
    return sorted([*near, *(group for group in same if group[0] not in joined)])


def _labels(annotations: Annotations, flat: Flat) -> list[Finding]:
    return [*boxes.check(flat), *classes.check(annotations, flat)]


def _unknown(found: Iterable[Finding], annotations: Annotations) -> list[Finding]:
    """Those that the reader has not seen as well."""
    known = {(one.code, one.path, one.line, one.object) for one in annotations.problems}
    return [one for one in found if (one.code, one.path, one.line, one.object) not in known]


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """By severity, code and place; doubted labels stay in the order of doubt."""
    return tuple(sorted(found, key=lambda one: (_ORDER.index(one.severity), one.code, *_place(one))))


def _place(one: Finding) -> tuple[str, int, int]:
    return ("", 0, 0) if one.code == "doubted-label" else (one.path, one.line, one.object or 0)
