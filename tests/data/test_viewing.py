"""The contact sheet in a real browser: every image, every label, any page, without a word in the console."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import scenes, shapes, viewing
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.opening import open_annotations
from saccade.data.tree import File, FolderTree


def rows(out: Path, number: int) -> list[dict[str, Any]]:
    text = (out / f"pages/{number}.js").read_text()
    found: list[dict[str, Any]] = json.loads(re.fullmatch(r"page\(\d+, (.*)\);\n", text, re.DOTALL)[1])  # type: ignore[index]
    return found


def hard_set(root: Path) -> Annotations:
    """Odd names and shapes, an image that no browser shows, one that cannot be read, a box that is none."""
    names = ["rot & weiß #1%.png", "</script><b>.png", "a'b\"c.png", "deep/er/1.png", "scan.tif", "broken.png"]
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((11 + k, 17, 3), 40 * k, np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"none")
    objects = (Object(1, (2, 3, 9, 8)), Object(0, shape=((1.0, 1.0, 6.0, 1.0, 6.0, 6.0),), crowd=True), Object(1, (float("nan"), 0, 1, 1)))
    items = [Item(File(name, 1, 1), "train", objects=objects if name.startswith("rot") else ()) for name in sorted(names)]
    return Annotations("made", "instances", ("<i>cat</i>", "犬"), tuple(items), FolderTree(root), opened=root)


def test_every_image_of_a_large_set_is_on_a_page(tmp_path: Path) -> None:
    made = replace(scenes.made("detect", ["train"] * 100 + ["val"] * 31, (24, 32), 0), opened=Path("shapes"))
    told = viewing.view(made, tmp_path / "out", progress=Silent())
    assert told == {"page": str(tmp_path / "out/index.html"), "images": 131, "pages": 3}
    shown = [row for number in (1, 2, 3) for row in rows(tmp_path / "out", number)]
    assert [row["path"] for row in shown] == [item.path for item in made.items]
    assert all(row["src"].startswith("data:image/jpeg") for row in shown)  # these lie in no file
    for row, item in zip(shown, made.items, strict=True):
        assert [one["label"] for one in row["objects"]] == [one.label for one in item.objects]
        boxes = [shapes.box(one, (24, 32), made.tree) for one in item.objects]
        np.testing.assert_allclose([one["box"] for one in row["objects"]], boxes, atol=0.051)


def test_images_stay_where_they_are(tiny_folder: Path, tmp_path: Path) -> None:
    viewing.view(open_annotations(tiny_folder), tmp_path / "out", progress=Silent())
    row = rows(tmp_path / "out", 1)[-1]
    assert row["src"].startswith("../tiny/rot%20%26%20wei%C3%9F/") and row["labels"] == [2]
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*")) < 40_000


def test_an_out_that_holds_something_is_left_alone(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="new or an empty folder"):
        viewing.view(open_annotations(tiny_folder), tiny_folder, progress=Silent())


@pytest.mark.browser
@pytest.mark.processes
def test_in_a_browser(chromium: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    viewing.view(hard_set(tmp_path / "set"), tmp_path / "out", progress=Silent())
    made = replace(scenes.made("segment", ["train"] * 70 + ["val"] * 70, (24, 32), 0), opened=Path("many"))
    viewing.view(made, tmp_path / "many", progress=Silent())
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "out/index.html").as_uri())
        page.wait_for_selector("figure")
        assert page.locator("figure").count() == 6 and page.locator("figure svg").count() == 1
        assert page.locator(".error").inner_text().startswith("must be an image")
        assert page.locator(".chip").all_inner_texts() == ["犬 ×2", "<i>cat</i>"]
        assert page.locator("svg path").get_attribute("d") == "M1 1L6 1L6 6Z"
        for image in page.locator(".frame img").all():
            image.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('.frame img')].every((one) => one.complete && one.naturalWidth === 17)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto((tmp_path / "many/index.html").as_uri() + "#3")
        page.wait_for_function("document.querySelectorAll('figure').length === 20")
        assert page.locator(".frame img.mask").count() == 20 and page.locator("#next").is_disabled()
        page.select_option("#split", "val")
        page.wait_for_function("document.querySelectorAll('figure').length === 60")
        assert "70 chosen; 1 to 60" in page.locator("#about").inner_text()
        assert page.locator(".path").first.inner_text().startswith("images/00071.png")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelectorAll('figure').length === 10")
        page.locator(".frame").first.click()
        assert page.locator("dialog img.mask").is_visible()
        browser.close()
    assert said == []
