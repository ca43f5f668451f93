"""From anything a user gives to a list of single images."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.prediction.sources import expand


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
