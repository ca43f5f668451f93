"""Single objects in the report: each of its kind, each cut out where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from saccade.api import gallery
from saccade.core.results import Detections
from saccade.data.sample import Objects
from saccade.data.tree import FolderTree

CLASSES = ("ant", "bee")


def found(boxes: list[list[float]], scores: list[float], labels: list[int], source: str = "a.png") -> Detections:
    shape = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(shape, np.array(scores, np.float32), np.array(labels, np.int64), CLASSES, source, (60, 80))


def truth(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Objects:
    marks = np.array(crowd or [False] * len(boxes), bool)
    return Objects(np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), marks, np.zeros_like(marks))


A, B, C, FAR = [0.0, 0, 20, 20], [30.0, 0, 50, 20], [0.0, 30, 30, 60], [60.0, 40, 75, 55]


def test_what_is_right_wrong_and_missed() -> None:
    answer = found([A, A, B, FAR, C], [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 1, 1, 0])
    right, false, missed = gallery.matched(answer, truth([A, B, C], [0, 0, 0], [False, False, True]))
    assert (right, false, missed) == ([0], [1, 2, 3], [1]), "twice, of another class, of nothing; in a crowd neither"
    assert gallery.matched(found([], [], []), truth([A], [0])) == ([], [], [0])
    assert gallery.matched(found([A], [0.9], [0]), truth([], [])) == ([], [0], [])


def test_sheets_of_each_kind(tmp_path: Path) -> None:
    pixels = np.full((60, 80, 3), 200, np.uint8)
    pixels[40:55, 60:75] = (0, 160, 0)  # what is at FAR
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    answers = [
        (found([A, B, FAR], [0.9, 0.7, 0.6], [0, 1, 1]), truth([A, B, C], [0, 0, 0])),
        (found([A], [0.8], [0], "gone.png"), truth([A], [0])),
        (found([], [], [], "b.png"), truth([FAR], [1])),
    ]
    sheets = list(gallery.sheets(answers, FolderTree(tmp_path), 3))
    assert [(one["title"], one["text"].split(";")[0]) for one in sheets] == [
        ("Found", "2 objects were found"),
        ("Found, but not there", "2 detections are of no object, or of another class"),
        ("Missed", "3 objects were missed"),
    ]
    wide = [one["picture"].shape for one in sheets]
    assert wide == [(168, 150, 3), (168, 306, 3), (168, 462, 3)], "one image has gone"
    middle = sheets[2]["picture"][75, 2 * 156 + 75].tolist()  # the third and smallest that was missed
    assert middle[1] > 140 and middle[0] < 60, "the object lies in the middle of its picture"
    assert [one["picture"].dtype for one in sheets] == [np.uint8] * 3


def test_kinds_that_are_not_there_have_no_sheet(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "a.png")
    assert list(gallery.sheets([(found([], [], []), truth([], []))], FolderTree(tmp_path), 1)) == []
    (only,) = gallery.sheets([(found([[70.0, 50, 80, 60]], [0.5], [1]), truth([[70, 50, 80, 60]], [1]))], FolderTree(tmp_path), 1)
    assert only["title"] == "Found" and only["picture"].shape == (168, 150, 3), "at the image's edge, grey"
