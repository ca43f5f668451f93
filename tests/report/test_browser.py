"""The page in a real browser: silent console, no request, nothing wider than a phone, every picture drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.report.page import ReportData, write

pytestmark = [pytest.mark.browser, pytest.mark.processes]


@pytest.mark.parametrize("which", ["digits", "attacked", "gan", "vae"])
def test_opens_offline_without_a_word(chromium: str, tmp_path: Path, which: str, request: pytest.FixtureRequest) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    data: ReportData = request.getfixturevalue(which)
    address = write(tmp_path / "report.html", data).as_uri()
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, scheme in ((1200, "light"), (360, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.on("request", lambda sent: asked.append(sent.url))
            page.goto(address)
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).length") == 0
            assert page.evaluate("document.images.length") >= {"gan": 9, "vae": 5}.get(which, 10)
            page.close()
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address, address]
