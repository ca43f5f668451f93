"""Published sets: what is found there is so, as a look at each showed, and there is nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from saccade import data

Unpacked = Callable[[str], Path]


@pytest.mark.processes
def test_blood_cells(unpacked: Unpacked) -> None:
    """Two boxes of a pixel, and a field of view photographed twice, in train and in val."""
    facts = data.check(unpacked("bccd"))
    assert facts["counts"] == {"tiny-box": 2, "leak": 1} and facts["errors"] == 0
    places = [(found["path"], found["line"]) for found in facts["findings"]]
    assert places == [
        ("JPEGImages/BloodImage_00038.jpg", None),
        ("Annotations/BloodImage_00338.xml", 158),
        ("Annotations/BloodImage_00343.xml", 50),
    ]


@pytest.mark.processes
def test_photos_of_clothing(unpacked: Unpacked) -> None:
    assert data.check(unpacked("clothing-photos"))["findings"] == []


@pytest.mark.processes
def test_emoji(unpacked: Unpacked) -> None:
    """Five groups of files are the same pixels; tones of skin are nearly so."""
    facts = data.check(unpacked("noto-emoji-32"))
    assert facts["counts"].keys() == {"duplicate-image", "near-duplicate"} and facts["counts"]["duplicate-image"] == 5
    assert facts["counts"]["near-duplicate"] < 250
