"""Trained runs that the tests of the API share: drawn shapes, and a set whose every name is hostile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.core.progress import Silent

MODEL = "small_resnet_8px"
CLASSES = ("-rf", '<b onclick="x()">&\'', "a cat", "kätzchen 猫")
NAMES = (
    "-dash.png",
    "it's.png",
    'quo"te.png',
    "two words.png",
    "ünï→猫.png",
    "line\nbreak.png",
    "<script>alert(1)<script>.png",
    "*[1]?.png",
    "$(touch x).png",
    "%s{}.png",
)
NOT_UNICODE = os.fsdecode(b"byte\xff.png")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images are kept for this session, not in the home of whoever tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder of its own: what lands there by default is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 drawn shapes of six classes, 33x20 pixels, in train/, val/ and test/; read-only."""
    target = tmp_path_factory.mktemp("data") / "shapes"
    facts = saccade.data.make("shapes", n=120, size=(33, 20), out=target, seed=3)
    assert facts["splits"] == {"train": 84, "val": 18, "test": 18}
    return target


@pytest.fixture(scope="session")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> saccade.Run:
    """Two passes over the shapes; read-only but for what verbs write into a run."""
    out = tmp_path_factory.mktemp("runs") / "first run"
    return saccade.train(
        shapes, model=MODEL, epochs=2, batch=16, size=(33, 20), workers=0, device="cpu", seed=5, out=out, progress=Silent()
    )


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of eleven grey and coloured images each, every name an attack on something; read-only."""
    target = tmp_path_factory.mktemp("hostile") / "it's <i>data</i>"
    generator = np.random.Generator(np.random.Philox(1))
    for shade, label in enumerate(CLASSES):
        (target / label).mkdir(parents=True)
        for number, name in enumerate((*NAMES, NOT_UNICODE)):
            pixels = generator.integers(0, 60, (12 + number, 17, 3)).astype(np.uint8) + np.uint8(60 * shade)
            Image.fromarray(pixels).save(target / label / name)
    return target


@pytest.fixture(scope="session")
def hostile_run(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> saccade.Run:
    """One pass over the hostile set, into a folder with a hostile name."""
    out = tmp_path_factory.mktemp("runs") / "run & <u>co</u>"
    return saccade.train(hostile_folder, model=MODEL, epochs=1, batch=8, size=16, device="cpu", out=out, progress=Silent())


@pytest.fixture(scope="session")
def page() -> type[Page]:
    """`page(html)` -> its tags, attributes, text and faults."""
    return Page


VOID = {"br", "img", "hr", "meta", "link", "input", "source", "col", "wbr"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and gathers what is there."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text += data
