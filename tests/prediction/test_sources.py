"""From anything a user gives to a list of single images."""

from __future__ import annotations

import io
import itertools
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.core.errors import UserError
from saccade.core.images import SUFFIXES
from saccade.prediction import sources
from saccade.prediction.sources import count, expand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/10.JPG", "a.png", "notes.txt", ".hidden.png", ".git/x.png", "b/é [1].webp", "c/.x/y.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(inputs: object) -> list[str]:
    return [source.name for source in expand(inputs)]


def test_a_folder_gives_its_images_sorted_without_hidden_ones(folder: Path) -> None:
    expected = [str(folder / name) for name in ("a.png", "b/10.JPG", "b/2.png", "b/é [1].webp")]
    assert names(folder) == names(str(folder)) == expected
    assert names([folder / "b", folder / "a.png"]) == [*expected[1:], expected[0]]
    assert names(iter([folder / "a.png"])) == [expected[0]]
    assert names(folder / "c") == []


def test_globs(folder: Path) -> None:
    assert names(f"{folder}/b/*.png") == [str(folder / "b/2.png")]
    assert names(f"{folder}/*a*") == [str(folder / "a.png")]
    assert names(f"{folder}/**/*.JPG") == [str(folder / "b/10.JPG")]
    assert names(f"{folder}/[b]") == [str(folder / f"b/{name}") for name in ("10.JPG", "2.png", "é [1].webp")], "a folder found is opened"
    assert names(f"{folder}/*.gif") == [f"{folder}/*.gif"], "what matches nothing is reported as it was typed"


def test_a_file_of_that_very_name_comes_before_a_glob(tmp_path: Path) -> None:
    for name in ("x[1].png", "x1.png"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path / "x[1].png") == [str(tmp_path / "x[1].png")]


def test_missing_files_and_addresses_are_left_for_the_reader_to_refuse() -> None:
    assert names(["no such.png", "https://example.org/a?b=[1].png"]) == ["no such.png", "https://example.org/a?b=[1].png"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"pixels")))
    (source,) = expand("-")
    assert (source.content, source.name) == (b"pixels", "-")


def test_arrays_pictures_bytes_and_batches(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (3, 2)).save(path)
    with Image.open(path) as opened:
        inputs = [np.zeros((2, 3, 3), np.uint8), opened, Image.new("L", (3, 2)), b"123", np.zeros((2, 4, 5, 3), np.uint8)]
        found = list(expand([*inputs, torch.zeros(2, 3, 4, 5), torch.zeros(3, 4, 5)]))
    expected = ["input 0", str(path), "input 2", "input 3", "input 4[0]", "input 4[1]", "input 5[0]", "input 5[1]", "input 6"]
    assert [source.name for source in found] == expected
    assert [np.shape(source.content) for source in found[4:]] == [(4, 5, 3)] * 2 + [(3, 4, 5)] * 3


def test_a_picture_opened_by_a_path_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("L", (3, 2)).save(path)
    with Image.open(os.fsencode(path)) as opened:
        assert names(opened) == [str(path)]


def test_one_of_anything_and_none() -> None:
    assert names(np.zeros((2, 2), np.uint8)) == ["input 0"]
    assert names([]) == names(()) == names(np.zeros((0, 4, 5, 3), np.uint8)) == []


def plain(folder: Path) -> list[str]:
    """The images of a folder by a walk of the plainest kind, all of them held, sorted by the parts of their paths."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not os.path.islink(os.path.join(parent, name))]
        found += [Path(parent, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
    return [str(path) for path in sorted(found, key=lambda path: path.parts)]


NAMES = [
    "a",
    "A",
    "b",
    "a.png",
    "a.png.png",
    "a b",
    "a-",
    "a0",
    "1",
    "10",
    "2",
    "é",
    "e\u0301",
    ".h",
    ".h.png",
    "x.JPG",
    "x.jpg",
    "[a]",
    "Z",
    "日本",
]


@pytest.mark.parametrize("seed", range(12))
def test_the_order_is_that_of_the_parts_of_the_paths(tmp_path: Path, seed: int) -> None:
    draw, folders = random.Random(seed), [tmp_path]
    for _ in range(150):
        path = draw.choice(folders) / (draw.choice(NAMES) + draw.choice(["", "", ".png", ".jpeg", ".txt", ".TIF"]))
        if path.exists():
            continue
        if draw.random() < 0.35:
            path.mkdir()
            folders.append(path)
        else:
            path.write_bytes(b"x")
    expected = plain(tmp_path)
    assert len(expected) > 10
    assert names(tmp_path) == names(f"{tmp_path}/") == expected
    assert count(tmp_path) == len(expected)


@pytest.mark.parametrize("name", ["Thumbs.db", "x.png.txt", "png", ".png", "x.", "x", "x.pngx"])
def test_what_is_no_image_by_its_name_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "good.webp").write_bytes(b"x")
    assert names(tmp_path) == [str(tmp_path / "good.webp")]


def test_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "far.png").write_bytes(b"x")
    (tmp_path / "in" / "file.png").symlink_to(tmp_path / "out" / "far.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "gone")
    assert names(tmp_path / "in") == [str(tmp_path / "in" / name) for name in ("broken.png", "file.png")], (
        "what is broken is reported later"
    )
    assert names(tmp_path / "in" / "folder") == [str(tmp_path / "in" / "folder" / "far.png")], "a link that was given is followed"


def test_a_folder_that_is_called_like_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x.png" / "y.png").write_bytes(b"x")
    assert names(tmp_path) == [str(tmp_path / "x.png" / "y.png")]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name in (b"\xff.png", b"a.png", b"\xc3\xa9.png", b"z\x80\n.jpg"):
        with open(folder + b"/" + name, "wb"):
            pass
    found = names(tmp_path)
    assert found == plain(tmp_path)
    assert [os.path.basename(os.fsencode(name)) for name in found] == [b"a.png", b"z\x80\n.jpg", b"\xc3\xa9.png", b"\xff.png"]
    assert count(tmp_path) == count(os.fsencode(tmp_path).decode()) == 4
    assert all(os.path.isfile(name) for name in found)


def test_a_folder_that_may_not_be_read_is_one_line_when_it_is_come_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read anything (root) reads it: so the system's answer is a pretended one."""
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(folder / "b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(sources.os, "scandir", refuse)
    found = expand(folder)
    assert next(found).name == str(folder / "a.png")
    with pytest.raises(UserError, match="cannot list the folder: permission denied") as caught:
        next(found)
    assert caught.value.where == str(folder / "b")
    with pytest.raises(UserError, match="cannot list"):
        count(folder)


def test_folders_are_read_when_they_are_come_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, scan = [], os.scandir
    monkeypatch.setattr(sources.os, "scandir", lambda path: seen.append(Path(path).name) or scan(path))
    found = expand(folder)
    assert seen == []
    next(found)
    assert seen == [folder.name]
    next(found)
    assert seen == [folder.name, "b"]


def test_folders_in_folders_as_deep_as_the_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = "/".join("a" * 1200)
    for depth in range(1200):
        os.mkdir(deep[: 2 * depth + 1])
    Path(deep, "x.png").write_bytes(b"x")
    try:
        assert names("a") == [f"{deep}/x.png"]
    finally:  # pytest's own clearing would not get so deep
        os.unlink(f"{deep}/x.png")
        os.removedirs(deep)


def test_the_count_is_that_of_what_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.BytesIO(b"pixels")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    batch = np.zeros((3, 4, 5, 3), np.uint8)
    given = [
        folder,
        str(folder),
        [folder, folder / "b", folder / "a.png", "gone.png"],
        [],
        (),
        [folder / "c"],
        f"{folder}/b/*.png",
        [f"{folder}/*", f"{folder}/**/*.png"],
        b"x",
        batch,
        [batch, batch[0], torch.zeros(2, 3, 4, 5), torch.zeros(0, 3, 4, 5), Image.new("L", (2, 2)), b""],
        5,
    ]
    for inputs in given:
        assert count(inputs) == len(list(expand(inputs))), inputs
    assert count(["-", folder]) == 5
    assert stdin.tell() == 0, "counting reads nothing of standard input"
    assert [source.content for source in expand("-")] == [b"pixels"]


def test_what_can_be_gone_through_once_is_not_counted() -> None:
    inputs = (np.zeros((2, 2), np.uint8) for _ in range(3))
    assert count(inputs) is None
    assert names(inputs) == ["input 0", "input 1", "input 2"]
    endless = expand(itertools.repeat(b"x"))
    assert [source.name for source in itertools.islice(endless, 3)] == ["input 0", "input 1", "input 2"]
