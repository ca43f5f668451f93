"""From a path to a Dataset: splits, sizes, channels, fingerprint, and one line for what is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade import data
from saccade.core.errors import UserError
from saccade.data.dataset import Dataset
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.sample import Schema


def write(path: Path, size: tuple[int, int] = (17, 11), *, grey: bool = False, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if grey else (*size, 3)
    pixels = np.full(shape, value, np.uint8)
    if not grey:
        pixels[..., 0] = 200
    Image.fromarray(pixels).save(path)
    return path


def make(root: Path, *paths: str, grey: bool = False) -> Path:
    for path in paths:
        write(root / path, grey=grey)
    return root


def names(dataset: Dataset, split: str) -> list[str]:
    return [dataset.paths[i] for i in dataset.splits[split]]


def test_a_folder_without_splits(tiny_folder: Path) -> None:
    dataset = open_dataset(tiny_folder)
    assert dataset.schema.classes == ("blue squares", "green", "rot & weiß") and dataset.annotations.format == "folder"
    assert len(dataset) == 24 and list(dataset.paths) == sorted(dataset.paths)
    assert set(dataset.splits) == {"train", "val"} and dataset.schema.counts == {"train": (7, 7, 7), "val": (1, 1, 1)}
    both = np.concatenate([dataset.split("train"), dataset.split("val")])
    assert sorted(both.tolist()) == list(range(24))
    assert (np.diff(dataset.split("train")) > 0).all()
    assert not dataset.schema.uniform and dataset.schema.channels == 3
    assert dataset.schema.size == (27, 27)  # the medians of TINY_SIZES, each of its own
    assert [dataset.schema.classes[t] for t in dataset.targets] == [path.split("/")[0] for path in dataset.paths]
    assert [item.image.bytes for item in dataset.annotations.items] == [(tiny_folder / path).stat().st_size for path in dataset.paths]


def test_a_sample(tiny_folder: Path) -> None:
    dataset = open_dataset(tiny_folder)
    index = dataset.paths.index("green/0.png")
    sample = dataset[index]
    assert sample.image.shape == (17, 11, 3) and sample.image.dtype == np.uint8
    assert (sample.target, sample.index, sample.source) == (1, index, "green/0.png")
    assert np.array_equal(sample.image, np.asarray(Image.open(tiny_folder / "green/0.png")))


@pytest.mark.parametrize("val", ["val", "valid"])
def test_splits_of_the_folders_are_kept(tmp_path: Path, val: str) -> None:
    dataset = open_dataset(make(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/b/2.png", "test/a/3.png", "test/c/4.png"))
    assert list(dataset.splits) == ["train", "val", "test"]
    assert names(dataset, "train") == ["train/a/1.png", "train/b/1.png"] and names(dataset, "val") == [f"{val}/b/2.png"]
    assert dataset.schema.classes == ("a", "b", "c")
    assert dataset.schema.counts == {"train": (1, 1, 0), "val": (0, 1, 0), "test": (1, 0, 1)}
    assert dataset.schema.images == {"train": 2, "val": 1, "test": 2}


def test_validation_comes_from_train_where_only_test_is_given(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, *[f"train/a/{i}.png" for i in range(5)], "test/a/1.png"))
    assert list(dataset.splits) == ["train", "val", "test"] and dataset.schema.images == {"train": 4, "val": 1, "test": 1}
    assert all(name.startswith("train/") for name in names(dataset, "val"))


def test_a_folder_of_test_images_alone(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, "test/a/1.png", "test/b/1.png"))
    assert list(dataset.splits) == ["test"]
    with pytest.raises(UserError, match=r"unknown split 'train' \(did you mean test"):
        dataset.split("train")


def test_one_image(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, "a/1.png", grey=True))
    assert dataset.schema.counts == {"train": (1,), "val": (0,)} and dataset.schema.channels == 1
    assert dataset.schema.size == (17, 11) and dataset.schema.uniform
    assert dataset[0].image.shape == (17, 11, 1)


def test_a_class_called_train_and_unicode(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, "train/1.png", "犬/1.png", "ä/1.png", "Z/1.png"))
    assert dataset.schema.classes == ("Z", "train", "ä", "犬")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    dataset = open_dataset(make(tmp_path, *[f"{folder}/{i}.png" for i in range(4)]))
    assert dataset.schema.counts == {"train": (3,), "val": (1,)}
    assert len(dataset.fingerprint()) == 64 and dataset[0].image.shape == (17, 11, 3)


def test_grey_only_where_all_are_grey(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "a/2.png", grey=True)
    assert open_dataset(tmp_path).schema.channels == 1
    make(tmp_path, "a/3.png")
    mixed = open_dataset(tmp_path)
    assert mixed.schema.channels == 3 and mixed[0].image.shape == (17, 11, 3)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L, colour", "RGB"])
def test_four_channels_only_to_make_more_of_images_with_alpha(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png", grey=True)
    image = Image.fromarray(np.arange(17 * 11, dtype=np.uint8).reshape(17, 11))
    extra = {"P": {"transparency": 3}, "L, colour": {"transparency": 7}}.get(kind, {})
    image.convert(kind.partition(",")[0]).save(tmp_path / "dog/2.png", **extra)
    made, told = open_dataset(tmp_path, task="generate"), open_dataset(tmp_path, task="classify")
    assert made.schema.channels == (3 if kind == "RGB" else 4) and made[0].image.shape == (17, 11, made.schema.channels)
    assert told.schema.channels == (3 if kind in ("RGB", "RGBA") else 1)
    assert (made[2].image[..., -1].min() < 255) == bool(extra) or kind == "RGB"
    assert made.schema.classes == told.schema.classes == ("cat", "dog")


def test_images_are_counted_whatever_is_in_them(tmp_path: Path) -> None:
    data.make("shapes", out=tmp_path / "boxes", task="detect", n=18, size=(40, 56))
    boxes = open_dataset(tmp_path / "boxes")
    counted = {name: len(indices) for name, indices in boxes.splits.items()}
    assert boxes.schema.images == counted != {name: sum(counts) for name, counts in boxes.schema.counts.items()}
    less = boxes.without(boxes.split("train")[:2])
    assert less.schema.images == {**counted, "train": counted["train"] - 2}
    assert boxes.relabelled((*reversed(boxes.schema.classes), "more")).schema.images == counted
    flat = open_dataset(make(tmp_path / "flat", *(f"{i}.png" for i in range(20))), task="generate")
    assert flat.schema.images == {"train": 17, "val": 3} and flat.schema.counts == {"train": (), "val": ()}
    assert flat.without(flat.split("val")[:1]).schema.images == {"train": 17, "val": 2}
    assert Schema("classify", ("a", "b"), {"train": (3, 4)}, 3, (8, 8), True).images == {"train": 7}


def test_bad_headers_do_not_stop_the_opening(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", grey=True)
    (tmp_path / "a/2.png").write_bytes(b"no image")
    (tmp_path / "a/3.png").write_bytes(b"")
    (tmp_path / "a/4.png").symlink_to("gone.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.schema.size, dataset.schema.channels, len(dataset)) == ((17, 11), 1, 4)
    for index, words in ((1, "image"), (2, "empty"), (3, "no such file")):
        with pytest.raises(UserError, match=words):
            dataset[index]


def test_only_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"x")
    assert open_dataset(tmp_path).schema.channels == 3


def test_what_is_no_image_is_counted(tiny_folder: Path) -> None:
    (tiny_folder / "green/notes.txt").write_text("x")
    (tiny_folder / "green/.hidden.png").write_text("x")
    dataset = open_dataset(tiny_folder)
    assert dataset.annotations.ignored == 1 and len(dataset) == 24


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "no user", "too long", "nul"])
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    paths = {"no user": "~no-such-user/x", "too long": "x" * 5000, "nul": "a\0b"}
    path = paths.get(kind) or tmp_path / {"missing": "gone", "file": "file.png", "empty": "empty"}[kind]
    words = {"file": "another file", "empty": "no folders"}.get(kind, "no such folder")
    with pytest.raises(UserError, match=words) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tiny_folder: Path) -> None:
    (tiny_folder / "green").chmod(0)
    try:
        with pytest.raises(UserError, match="permissions") as caught:
            open_dataset(tiny_folder)
        assert "green" in caught.value.where
    finally:
        (tiny_folder / "green").chmod(0o755)


def test_a_relative_path_and_one_with_a_link(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = open_dataset("tiny")
    assert relative.root == tiny_folder and relative.fingerprint() == open_dataset(tiny_folder).fingerprint()
    (tmp_path / "link").symlink_to(tiny_folder)
    assert open_dataset("link").fingerprint() == relative.fingerprint()


def relabel(root: Path) -> None:
    shutil.move(root / "green", root / "grün")


def grow(root: Path) -> None:
    with open(root / "green/0.png", "ab") as file:
        file.write(b"x")


def rename(root: Path) -> None:
    (root / "green/0.png").rename(root / "green/00.png")


def remove(root: Path) -> None:
    (root / "green/0.png").unlink()


def move(root: Path) -> None:
    (root / "green/0.png").rename(root / "rot & weiß/x.png")


@pytest.mark.parametrize("change", [relabel, grow, rename, remove, move])
def test_the_fingerprint_follows_label_size_and_path(tiny_folder: Path, change: Callable[[Path], None]) -> None:
    before = open_dataset(tiny_folder).fingerprint()
    change(tiny_folder)
    assert open_dataset(tiny_folder).fingerprint() != before


def test_the_fingerprint_is_that_of_a_copy_elsewhere(tiny_folder: Path, tmp_path: Path) -> None:
    before = open_dataset(tiny_folder)
    shutil.copytree(tiny_folder, tmp_path / "copy")
    os.utime(tmp_path / "copy/green/0.png", (1, 1))
    assert open_dataset(tmp_path / "copy").fingerprint() == before.fingerprint()
    other = replace(before, schema=replace(before.schema, classes=("a", "b", "c")))
    assert other.fingerprint() != before.fingerprint()


def test_without_leaves_bad_images_out_everywhere(tiny_folder: Path) -> None:
    dataset = open_dataset(tiny_folder)
    bad = np.array([dataset.split("val")[0], dataset.split("train")[0], dataset.split("train")[-1]])
    less = dataset.without(bad)
    assert less.schema.counts == {"train": (6, 7, 6), "val": (0, 1, 1)}
    assert not np.isin(bad, np.concatenate(list(less.splits.values()))).any()
    assert dataset.schema.counts == {"train": (7, 7, 7), "val": (1, 1, 1)} and less.paths == dataset.paths


def test_real_photos(photos_folder: Path) -> None:
    dataset = open_dataset(photos_folder)
    assert dataset.schema.classes == ("hat", "pants", "shoes")
    assert dataset.schema.images == {"train": 21, "val": 3, "test": 12}
    assert dataset.schema.channels == 3 and min(dataset.schema.size) > 100


def test_a_task_that_the_set_is_not_for(tmp_path: Path) -> None:
    data.make("shapes", out=tmp_path / "boxes", task="detect", n=18, size=(40, 56))
    with pytest.raises(UserError, match=r"is read as coco .detect., and nothing there is for segment"):
        open_annotations(tmp_path / "boxes", task="segment")
