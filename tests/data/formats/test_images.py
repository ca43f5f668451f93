"""Images alone: with and without classes and splits, pairs, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.formats.labelled import codes, picture, written
from saccade.core.errors import UserError
from saccade.data.converting import convert
from saccade.data.opening import open_annotations, open_dataset


def made(root: Path, *paths: str) -> Path:
    for path in paths:
        picture(root / path, (17, 11))
    return root


@pytest.mark.parametrize(
    ("paths", "classes", "said"),
    [
        (("1.png",), (), [("1.png", "", ())]),
        (("1.png", "in/2.png"), (), [("1.png", "", ()), ("in/2.png", "", ())]),
        (("images/1.png", "images/in/2.png"), (), [("images/1.png", "", ()), ("images/in/2.png", "", ())]),
        (("cat/1.png", "dog/in/2.png"), ("cat", "dog"), [("cat/1.png", "", (0,)), ("dog/in/2.png", "", (1,))]),
        (("train/1.png", "valid/2.png"), (), [("train/1.png", "train", ()), ("valid/2.png", "val", ())]),
        (("test/a/1.png", "train/b/2.png"), ("a", "b"), [("test/a/1.png", "test", (0,)), ("train/b/2.png", "train", (1,))]),
        (("train/a/1.png", "train/2.png"), (), [("train/2.png", "train", ()), ("train/a/1.png", "train", ())]),
    ],
)
def test_any_folder(tmp_path: Path, paths: tuple[str, ...], classes: tuple[str, ...], said: list[object]) -> None:
    found = open_annotations(made(tmp_path, *paths), task="generate")
    assert (found.format, found.task, found.classes) == ("images", "generate", classes)
    assert [(item.path, item.split, item.labels) for item in found.items] == said
    dataset = open_dataset(tmp_path, task="generate")
    assert [dataset[place].target for place in range(len(dataset))] == [item.labels[0] if classes else None for item in found.items]


def test_a_flat_folder_is_for_generation_unless_something_else_is_asked(tmp_path: Path) -> None:
    assert open_annotations(made(tmp_path, "1.png", "2.png")).task == "generate"
    with pytest.raises(UserError, match="must hold a folder per class"):
        open_annotations(tmp_path, task="classify")


@pytest.mark.parametrize(
    ("first", "second", "split"),
    [
        ("input/1.png", "target/1.jpg", ""),
        ("A/in/1.png", "B/in/1.png", ""),
        ("train/a/1.png", "train/b/1.png", "train"),
        ("inputs/val/1.PNG", "targets/val/1.png", "val"),
    ],
)
def test_pairs(tmp_path: Path, first: str, second: str, split: str) -> None:
    found = open_annotations(made(tmp_path / "in", first, second), task="generate")
    assert [(item.path, item.pair, item.split) for item in found.items] == [(first, second, split)] and found.classes == ()
    written(found, "images", tmp_path / "out")
    again = open_annotations(tmp_path / "out", task="generate")
    assert [(item.split, Path(item.path).name, Path(item.pair).suffix) for item in again.items] == [
        (split, Path(first).name, Path(second).suffix)
    ]
    assert convert(tmp_path / "out", tmp_path / "there", to="webdataset", task="generate")["lost"] == [
        {"what": "what an image becomes", "count": 1}
    ]


def test_one_without_a_partner_is_named(tmp_path: Path) -> None:
    found = open_annotations(made(tmp_path, "A/1.png", "A/2.png", "B/1.png"), task="generate")
    assert codes(found) == ["missing-image"] and found.problems[0].path == "A/2.png" and len(found.items) == 1


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UserError, match="holds no images"):
        open_annotations(tmp_path, format="images")


def test_classes_and_splits_come_back(tmp_path: Path) -> None:
    found = open_annotations(made(tmp_path / "in", "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/b/2.png"), task="generate")
    written(found, "images", tmp_path / "out")
    again = open_annotations(tmp_path / "out", task="generate")
    assert [(item.split, again.classes[item.labels[0]]) for item in again.items] == [
        ("test", "b"),
        ("train", "a"),
        ("train", "b"),
        ("train", "c"),
    ]
