"""The page of findings: one file, at most so many images, and nothing of a set's names is taken for HTML."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from faulty_sets import FAULTS, clean
from saccade.core.progress import Silent
from saccade.data import doctor
from saccade.data.annotations import Annotations, Object
from saccade.data.doctor import page
from saccade.data.findings import Finding
from saccade.data.tree import File, FolderTree


def faulty(root: Path) -> Annotations:
    """Every fault of an object in one image each, with hostile names."""
    made = clean()
    items = list(made.items)
    objects = [one for group in FAULTS.values() for one in group]
    for place, one in enumerate(objects):
        items[place] = replace(items[place], objects=(*items[place].objects, one, Object(0), Object(0, shape=((),))))
    items[0] = replace(items[0], image=File("</script><b>&.png", 1, 1))
    for item in items[:-1]:
        (root / item.path).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((100, 80)).save(root / item.path)
    problem = Finding("bad-annotation", "caf\udce9.txt", "<img src=x onerror=alert(1)>", 3)
    return replace(
        made, items=tuple(items), tree=FolderTree(root), opened=Path("<i>set"), classes=("<u>", "dog", "owl"), problems=(problem,)
    )


def facts_of(path: Path) -> dict[str, Any]:
    found = re.search(r"const facts = (.*);\n", path.read_text("utf-8"))
    assert found
    facts: dict[str, Any] = json.loads(found[1], parse_constant=lambda word: pytest.fail(word))
    return facts


def test_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = faulty(tmp_path)
    report = doctor.examine(annotations, progress=Silent())
    facts = facts_of(page.write(tmp_path / "page.html", annotations, report))
    assert {group["code"]: group["count"] for group in facts["groups"]} == report.to_dict()["counts"]
    by_code = {group["code"]: group for group in facts["groups"]}
    assert by_code["bad-annotation"]["rows"][0]["path"] == "caf\\udce9.txt"
    assert facts["thumbnails"]["0"]["width"] == 100 and facts["thumbnails"]["0"]["src"].startswith("data:image/jpeg;base64,")
    assert all(math.isfinite(v) for one in facts["thumbnails"].values() for box in one["boxes"] for v in box["box"])
    monkeypatch.setattr(page, "THUMBNAILS", 5)
    monkeypatch.setattr(page, "ROWS", 2)
    facts = facts_of(page.write(tmp_path / "page.html", annotations, report))
    # Five were chosen, one of them cannot be read.
    assert len(facts["thumbnails"]) == 4 and max(len(group["rows"]) for group in facts["groups"]) == 2


def test_nothing_found(tmp_path: Path) -> None:
    report = doctor.Report((), "made", "detect", 0)
    assert facts_of(page.write(tmp_path / "page.html", replace(clean(), items=()), report))["groups"] == []


@pytest.mark.browser
@pytest.mark.processes
def test_the_page(chromium: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    annotations = faulty(tmp_path)
    report = doctor.examine(annotations, progress=Silent())
    path = page.write(tmp_path / "page.html", annotations, report)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(path.as_uri())
        assert opened.locator("h1").inner_text() == "<i>set"
        assert opened.locator("details").count() == len(report.to_dict()["counts"])
        assert opened.locator("rect.meant").count() > 10
        assert "<img src=x" in opened.locator("details", has_text="bad-annotation").inner_text()
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert said == []
