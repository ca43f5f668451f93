"""What can be wrong with a data set: the codes, how bad each is, and what to do. One table for readers, training and `data check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, slots=True)
class Kind:
    """severity: an error stops training, a warning is dropped, clipped or counted, a note only said; repair: what `--fix` does, or ""."""

    severity: str
    meaning: str
    repair: str = ""


KINDS: Mapping[str, Kind] = {
    "bad-annotation": Kind(ERROR, "an annotation that cannot be understood", "left out"),
    "unknown-class": Kind(ERROR, "a class that the set does not declare", "left out"),
    "unknown-image": Kind(ERROR, "an annotation of an image that the set does not list", "left out"),
    "missing-image": Kind(ERROR, "an image that is listed but not there", "left out"),
    "duplicate-id": Kind(ERROR, "an id that stands twice", "the first stays"),
    "repeated-id": Kind(WARNING, "an annotation's id that stands twice", "ids are given anew"),
    "repeated-class": Kind(WARNING, "a class that is named twice", "they become one"),
    "repeated-image": Kind(WARNING, "an image that is listed twice", "it is listed once, with all its objects"),
    "unreadable-image": Kind(ERROR, "an image whose size cannot be read", "left out"),
    "not-finite": Kind(ERROR, "a coordinate that is no finite number", "left out"),
    "ids-from-one": Kind(ERROR, "class ids that seem to start at 1 where the format's start at 0", "one is taken off"),
    "inverted-box": Kind(ERROR, "a box whose right edge lies left of its left one, or its bottom above its top", "the edges change places"),
    "box-outside": Kind(ERROR, "a box with no part inside of its image", "left out"),
    "box-over-edge": Kind(WARNING, "a box that reaches over the edge of its image", "cut at the edge"),
    "empty-box": Kind(WARNING, "a box of no area", "left out"),
    "tiny-box": Kind(WARNING, "a box no larger than a pixel, as a slip of the hand leaves it", "left out"),
    "duplicate-object": Kind(WARNING, "the same object twice", "the first stays"),
    "short-polygon": Kind(ERROR, "a polygon of fewer than three points", "left out"),
    "crossing-polygon": Kind(WARNING, "a polygon that crosses itself"),
    "missing-mask": Kind(ERROR, "a mask that is not there", "the image is left out"),
    "mask-size": Kind(ERROR, "a mask of another size than its image", "the image is left out"),
    "mask-value": Kind(ERROR, "a mask with values that stand for no class", "they become the ignored value"),
    "stated-size": Kind(WARNING, "an image of another size than the annotation states", "the true size is written"),
    "unlabelled-image": Kind(NOTE, "an image without any label"),
    "unused-class": Kind(NOTE, "a declared class that no label names"),
    "rare-class": Kind(WARNING, "a class with too few images to be learned or measured"),
    "missing-class": Kind(WARNING, "a class that a split lacks, though others hold it"),
    "imbalanced-classes": Kind(WARNING, "one class far more frequent than another"),
    "image-in-two-splits": Kind(WARNING, "an image that several splits hold", "it stays in the first"),
    "too-large-image": Kind(ERROR, "an image of more pixels than are decoded", "left out"),
    "wrong-suffix": Kind(WARNING, "a file whose content is of another format than its name says"),
    "turned-image": Kind(NOTE, "images that EXIF data turn: programs that pass it over see them lying"),
    "stated-size-unturned": Kind(WARNING, "a stated size that passes over the turn of the image, and perhaps boxes that do so too"),
    "mixed-modes": Kind(NOTE, "images of several kinds: grey, colour, with alpha, of 16 bit"),
    "blank-image": Kind(WARNING, "an image of a single colour"),
    "duplicate-image": Kind(WARNING, "the same pixels in several files"),
    "near-duplicate": Kind(NOTE, "nearly the same picture in several files"),
    "leak": Kind(WARNING, "the same or nearly the same picture in several splits: what is measured there is too good"),
    "conflicting-labels": Kind(ERROR, "the same pixels with different labels"),
    "doubted-label": Kind(WARNING, "a label that a trained model confidently contradicts"),
    "empty-mask": Kind(WARNING, "a mask that marks nothing", "the object is left out"),
    "unlike-others": Kind(NOTE, "an image that looks unlike all others of the set"),
}
"""Codes of readers, and of the doctor, which looks at pixels too (`doctor/`)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where: path of the file, line (0: it has none), and for an object its place in the image's list."""

    code: str
    path: str
    message: str
    line: int = 0
    object: int | None = None

    @property
    def severity(self) -> str:
        """error, warning or note."""
        return KINDS[self.code].severity

    def to_dict(self) -> dict[str, Any]:
        """As `data check --json` has it."""
        place = {} if self.object is None else {"object": self.object}
        facts = {"code": self.code, "severity": self.severity, "path": self.path, "line": self.line or None, **place}
        return {**facts, "message": self.message, "repair": KINDS[self.code].repair}

    @property
    def place(self) -> str:
        """`path:line`, or `path, object 3`."""
        return self.path + (f":{self.line}" if self.line else "" if self.object is None else f", object {self.object + 1}")

    def __str__(self) -> str:
        return f"{self.place}: {self.message} [{self.code}]"
