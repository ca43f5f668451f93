"""The report of real runs, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import saccade
from saccade import Run
from saccade.core.progress import Silent

QUIET = Silent()


def opened(chromium: str, path: Path, tmp_path: Path) -> dict[str, Any]:
    """What Chromium says of a page, and what stands on it; nothing may be asked of the network."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        facts = {
            "text": page.inner_text("body"),
            "title": page.title(),
            "width": page.evaluate("document.documentElement.scrollWidth"),
            "pictures": page.evaluate("document.querySelectorAll('img.photo').length"),
            "undrawn": page.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"),
            "said": said,
            "asked": [url for url in asked if not url.startswith("data:")],
        }
        browser.close()
    return facts


@pytest.mark.browser
@pytest.mark.long
def test_a_real_report_opens_without_a_word(chromium: str, run: Run, tmp_path: Path) -> None:
    found = run.evaluate(split="test", progress=QUIET)
    facts = opened(chromium, run.report, tmp_path)
    assert facts["said"] == []
    assert facts["asked"] == [run.report.as_uri()]
    assert (facts["undrawn"], facts["width"]) == (0, 1100)
    wrong = sum(not row["correct"] for row in found.predictions)
    assert facts["pictures"] >= 2 * wrong > 0, "each mistake with its picture and its map"
    assert "shapes" in facts["title"]
    for word in ("circle", "triangle", "Accuracy", f"{100 * found.metrics['accuracy']:.1f}", "seed", str(run.path), "saccade predict"):
        assert word in facts["text"], word


@pytest.mark.browser
@pytest.mark.long
def test_hostile_names_do_nothing_in_a_browser(chromium: str, hostile_run: Run, tmp_path: Path) -> None:
    saccade.eval(hostile_run.path, device="cpu", progress=QUIET)
    facts = opened(chromium, hostile_run.report, tmp_path)
    assert facts["said"] == []
    assert facts["asked"] == [hostile_run.report.as_uri()]
    assert facts["undrawn"] == 0
    assert '<b onclick="x()">&\'' in facts["text"]
    assert "it's <i>data</i>" in facts["text"]
