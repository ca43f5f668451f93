"""Images alone: with and without classes and splits, pairs, and what is missing."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.formats.labelled import codes, picture, written
from saccade import data
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.converting import convert
from saccade.data.doctor import before_training
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


@pytest.mark.parametrize(
    ("paths", "outside", "classes", "totals"),
    [
        (("1.png", "2.png", "3.png"), (), (), {"train": 2, "val": 1}),
        (("train/1.png", "train/2.png", "val/3.png"), ("README.md", "docs/LICENSE"), (), {"train": 2, "val": 1}),
        (("train/1.png", "val/3.png", "test/1.png"), (), (), {"train": 1, "val": 1, "test": 1}),
        (("train/cat/1.png", "train/dog/1.png", "val/cat/3.png"), ("labels.txt",), ("cat", "dog"), {"train": 2, "val": 1}),
        (("train/1.png", "1.png"), (), (), {"train": 1, "val": 1}),
        (("cat/1.png", "cat/2.png", "dog/1.png"), ("README.md",), ("cat", "dog"), {"train": 2, "val": 1}),
        (("png/1.png", "png/2.png", "png/3.png"), ("LICENSE",), (), {"train": 2, "val": 1}),
    ],
)
def test_splits_and_classes_whatever_else_lies_there(
    tmp_path: Path, paths: tuple[str, ...], outside: tuple[str, ...], classes: tuple[str, ...], totals: dict[str, int]
) -> None:
    made(tmp_path, *paths)
    for name in outside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    dataset = open_dataset(tmp_path, task="generate")
    assert (dataset.schema.task, dataset.schema.classes, dataset.schema.images) == ("generate", classes, totals)
    assert {name: len(indices) for name, indices in dataset.splits.items()} == totals and len(dataset.targets) == len(classes and paths)
    assert all((dataset[i].target is None) == (not classes) for i in range(len(dataset)))
    assert [found for found in before_training(dataset.annotations, Silent()) if found.code != "rare-class"] == []


def test_classes_count_where_all_images_have_one(tmp_path: Path) -> None:
    made(tmp_path / "set", *(f"{i}.png" for i in range(5)))
    for i in range(4):
        (tmp_path / f"set/{i}.cls").write_text("ab"[i % 2])
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(tmp_path / "set", ".")
    dataset = open_dataset(tmp_path / "packed.tar", task="generate")
    assert (dataset.schema.classes, dataset.targets.shape, dataset.schema.images) == ((), (0,), {"train": 4, "val": 1})
    assert [dataset[i].target for i in range(5)] == [None] * 5
    assert dataset.annotations.notes[-1] == "4 of 5 images have a class: classes are passed over"
    assert before_training(dataset.annotations, Silent()) == ()


def test_masks_are_pictures_too_and_that_is_said(tmp_path: Path) -> None:
    data.make("shapes", out=tmp_path / "boxes", task="detect", n=18, size=(40, 56))
    found = open_annotations(tmp_path / "boxes", task="generate")
    assert found.notes == ("read as images (generate), every picture there is, masks too; it is also coco (detect)",)


def test_emoji(unpacked: Callable[[str], Path]) -> None:
    dataset = open_dataset(unpacked("noto-emoji-32"), task="generate")
    assert (dataset.schema.channels, dataset.schema.size, dataset.schema.uniform, len(dataset)) == (4, (32, 32), True, 3583)
    assert dataset.schema.images == {"train": 3225, "val": 358} and dataset.schema.classes == ()
    image = dataset[100].image
    assert image.shape == (32, 32, 4) and (image[..., :3] <= image[..., 3:]).all() and image[..., 3].min() == 0
    assert before_training(dataset.annotations, Silent()) == ()


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
