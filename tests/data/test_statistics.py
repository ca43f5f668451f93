"""A set in figures: against numbers counted by hand, and a page that opens without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade import data
from saccade.core.progress import Silent
from saccade.data import scenes, statistics
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.tree import File, FolderTree


def small(root: Path) -> Annotations:
    """Three images of 10x20, one of 30x20 that is broken; boxes of 4x4, 40x40 and one of no area."""
    for k in range(3):
        Image.fromarray(np.full((10, 20, 3), (255, 0, 51), np.uint8)).save(root / f"{k}.png")
    (root / "3.png").write_bytes(b"x")
    objects = [(Object(0, (0, 0, 4, 4)), Object(1, (0, 0, 40, 40))), (Object(0, (1, 1, 5, 5)), Object(0, (3, 3, 3, 9))), (), ()]
    items = [Item(File(f"{k}.png", 7, 1), ("train", "train", "val", "")[k], objects=objects[k]) for k in range(4)]
    return Annotations("made", "detect", ("cat", "dog", "owl"), tuple(items), FolderTree(root), opened=root)


def test_counted_by_hand(tmp_path: Path) -> None:
    facts = statistics.measure(small(tmp_path), None, Silent())
    assert (facts["images"], facts["unreadable"], facts["bytes"]) == (4, 1, 28)
    assert facts["splits"] == {"train": 2, "val": 1, "none": 1}
    assert facts["sizes"]["height"]["quantiles"] == [10] * 5 and facts["sizes"]["aspect"]["quantiles"] == [2] * 5
    assert facts["sizes"]["common"] == [{"size": "10x20", "images": 3}]
    assert facts["colour"] == {"images": 3, "mean": [1, 0, 0.2], "deviation": [0, 0, 0]}
    assert facts["classes"][0] == {"class": "cat", "images": 2, "objects": 3, "splits": {"none": 0, "train": 2, "val": 0}}
    assert facts["classes"][2]["images"] == 0
    objects = facts["objects"]
    assert (objects["count"], objects["small"], objects["medium"], objects["large"]) == (4, 2, 1, 0)
    assert objects["side"]["quantiles"][0] == 4 and objects["side"]["quantiles"][-1] == 40
    assert facts["together"] == {"classes": ["cat", "dog"], "counts": [[2, 1], [1, 1]]}
    json.dumps(facts, allow_nan=False)


def test_an_empty_set(tmp_path: Path) -> None:
    facts = statistics.measure(Annotations("made", "detect", ("a",), (), FolderTree(tmp_path)), tmp_path / "page.html", Silent())
    assert facts["images"] == 0 and facts["sizes"]["height"]["counts"] == []


def test_photos(photos_folder: Path) -> None:
    facts = data.stats(photos_folder)
    assert facts["task"] == "classify" and len(facts["classes"]) == 3
    assert sum(row["images"] for row in facts["classes"]) == facts["images"] == facts["colour"]["images"]
    assert facts["together"]["classes"] == [] and facts["objects"]["count"] == 0


@pytest.mark.browser
@pytest.mark.processes
def test_the_page(chromium: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    made = replace(scenes.made("detect", ["train"] * 40 + ["val"] * 9, (24, 32), 0), opened=Path("<script>.zip"))
    statistics.measure(replace(made, classes=("<b>", *made.classes[1:])), tmp_path / "page.html", Silent())
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("h1").inner_text() == "<script>.zip"
        assert page.locator("svg[role=img]").count() == 7 and page.locator("#together td").count() == 36 + 6
        assert page.locator("td").first.inner_text() == "<b>"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert said == []
