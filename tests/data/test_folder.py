"""Listing class folders: layouts, odd names, what is passed over, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saccade.core.errors import UserError
from saccade.data.annotations import Annotations
from saccade.data.formats import folder
from saccade.data.tree import FolderTree


def touch(root: Path, *paths: str) -> Path:
    """Files of a few bytes; nothing is decoded here."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * len(path))
    return root


def read(root: Path) -> Annotations:
    return folder.read(FolderTree(root), "classify")


def rows(root: Path) -> list[tuple[str, str, str]]:
    found = read(root)
    return [(item.path, found.classes[item.labels[0]], item.split) for item in found.items]


def test_without_splits(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/2.PNG", "dog/1.jpeg")
    assert rows(tmp_path) == [("cat/1.jpg", "cat", "train"), ("cat/2.PNG", "cat", "train"), ("dog/1.jpeg", "dog", "train")]
    image = read(tmp_path).items[0].image
    stat = (tmp_path / "cat/1.jpg").stat()
    assert (image.bytes, image.modified) == (9, stat.st_mtime_ns)


@pytest.mark.parametrize("val", ["val", "valid"])
def test_with_splits(tmp_path: Path, val: str) -> None:
    touch(tmp_path, "train/a/1.png", f"{val}/a/1.png", "test/b/1.png")
    assert rows(tmp_path) == [("test/b/1.png", "b", "test"), ("train/a/1.png", "a", "train"), (f"{val}/a/1.png", "a", "val")]


def test_train_alone_is_a_split(tmp_path: Path) -> None:
    assert rows(touch(tmp_path, "train/a/1.png")) == [("train/a/1.png", "a", "train")]


def test_a_class_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.png", "train/1.png", "train/old/2.png")
    assert rows(tmp_path) == [("bus/1.png", "bus", "train"), ("train/1.png", "train", "train"), ("train/old/2.png", "train", "train")]
    inner = touch(tmp_path / "split", "train/train/1.png", "test/train/1.png")
    assert rows(inner) == [("test/train/1.png", "train", "test"), ("train/train/1.png", "train", "train")]


def test_both_val_and_valid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both"):
        read(touch(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png"))


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2020/may/1.jpg", "cat/1.jpg", "cat/train/3.jpg")
    assert [(path, label) for path, label, _ in rows(tmp_path)] == [
        ("cat/1.jpg", "cat"),
        ("cat/2020/may/1.jpg", "cat"),
        ("cat/train/3.jpg", "cat"),
    ]


def test_what_is_hidden_is_not_seen_and_what_is_no_image_is_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, ".git/1.png", "a/.DS_Store", "a/._1.png", "a/.thumbs/1.png", "a/notes.txt", "a/deep/x.csv", "a/1.png", "a/noext", "a/png"
    )
    found = read(tmp_path)
    assert [item.path for item in found.items] == ["a/1.png"]
    assert found.ignored == 4


def test_order_by_code_point_whatever_the_locale_or_the_disk(tmp_path: Path) -> None:
    names = [
        "b/1.png",
        "B/1.png",
        "a b/1.png",
        "a/1.png",
        "a/10.png",
        "a/2.png",
        "a-b/1.png",
        "ä/1.png",
        "z/1.png",
        "犬/1.png",
        "a/b/1.png",
        "Ω/1.png",
    ]
    touch(tmp_path, *reversed(names))
    assert [path for path, *_ in rows(tmp_path)] == sorted(names)


def test_names_of_every_kind(tmp_path: Path) -> None:
    names = ["rot & weiß/1 2.png", "new\nline/1.png", "q'uote\"s/#1.png", "%41/1.png", "-x/-1.png", os.fsdecode(b"caf\xe9/\xff.png")]
    touch(tmp_path, *names)
    assert [(path, label) for path, label, _ in rows(tmp_path)] == sorted((name, name.split("/")[0]) for name in names)


def test_one_class_and_an_empty_class(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert rows(touch(tmp_path, "a/1.png")) == [("a/1.png", "a", "train")]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "no folders"),
        (["1.png"], "no folders"),
        ([".hidden/1.png"], "no folders"),
        (["a/notes.txt"], "no images"),
        (["train/1.png"], "no images"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, paths: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(touch(tmp_path, *paths))
    assert str(tmp_path) in str(caught.value) and "expected CLASS/*.jpg" in caught.value.fix


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "far", "2.png")
    touch(tmp_path / "data", "a/1.png")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/b").symlink_to(tmp_path / "far")
    assert [path for path, *_ in rows(tmp_path / "data")] == ["a/1.png", "b/2.png"]


def test_a_link_to_nothing_is_listed_so_that_it_is_named_with_the_bad_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "a/2.png").symlink_to(tmp_path / "gone.png")
    assert [(item.path, item.image.bytes) for item in read(tmp_path).items] == [("a/1.png", 7), ("a/2.png", 0)]


def test_a_root_with_a_slash_at_its_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    assert rows(Path(f"{tmp_path}//")) == [("a/1.png", "a", "train")]
