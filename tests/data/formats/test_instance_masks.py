"""Masks of objects: a picture for each, or one for each image; Cityscapes, Penn-Fudan, nuclei; round trips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from data.formats.labelled import codes, folder, on_disk, picture, sets, written
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.data import shapes
from saccade.data.annotations import Annotations, Picture
from saccade.data.formats import instance_masks
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.pictures import stem
from saccade.data.tree import FolderTree

SIZE = (17, 11)


def mask(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return path


def blob(top: int, value: int = 255, kind: Any = np.uint8) -> np.ndarray:
    found = np.zeros(SIZE, kind)
    found[top : top + 4, 2:7] = value
    return found


def read(root: Path) -> Annotations:
    return instance_masks.read(FolderTree(root), "instances")


@pytest.mark.parametrize("place", ["7f/images/7f.png: 7f/masks/1", "images/a.png: masks/disc/a"], ids=["objects", "classes that overlap"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png"])
def test_tones_that_jpeg_leaves_are_of_no_object(place: str, suffix: str, tmp_path: Path) -> None:
    down, across = np.mgrid[:60, :80]
    inside = np.hypot(down - 30, across - 40) < 20
    image, _, at = place.partition(": ")
    picture(tmp_path / image, inside.shape)
    written_as = mask(tmp_path / f"{at}{suffix}", inside.astype(np.uint8) * 255)
    if suffix != ".png":
        assert (np.asarray(Image.open(written_as)) != 0).sum() > 1.2 * inside.sum()
    target = open_dataset(tmp_path)[0].target
    told = target if isinstance(target, np.ndarray) else run_lengths.to_mask(target.masks[0])
    assert (told.astype(bool) != inside).sum() <= (0 if suffix == ".png" else 0.02 * inside.sum())


def test_a_picture_for_each_object(tmp_path: Path) -> None:
    picture(tmp_path / "train/7f/images/7f.png", SIZE)
    mask(tmp_path / "train/7f/masks/1.png", blob(0))
    mask(tmp_path / "train/7f/masks/2.png", blob(2, 1))
    picture(tmp_path / "train/8a/images/8a.png", SIZE)
    found = open_annotations(tmp_path)
    assert (found.format, found.task, found.classes) == ("instance_masks", "instances", ("object",))
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [
        ("train/7f/images/7f.png", "train", 2),
        ("train/8a/images/8a.png", "train", 0),
    ]
    target = open_dataset(tmp_path)[0].target
    assert target.boxes.tolist() == [[2, 0, 7, 4], [2, 2, 7, 6]] and len(target.masks) == 2
    np.testing.assert_array_equal(run_lengths.to_mask(target.masks[1]), blob(2) > 0)
    boxes = open_dataset(tmp_path, task="detect")
    assert boxes.schema.task == "detect" and "around the masks" in boxes.annotations.notes[0]
    assert boxes[0].target.boxes.tolist() == target.boxes.tolist() and boxes[0].target.masks == ()


def test_a_mask_of_the_images_name_is_one_of_classes(tmp_path: Path) -> None:
    picture(tmp_path / "1/images/1.png", SIZE)
    mask(tmp_path / "1/masks/1.png", blob(0))
    assert open_annotations(tmp_path).format == "masks"


def test_cityscapes(tmp_path: Path) -> None:
    picture(tmp_path / "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png", SIZE)
    values = np.maximum(blob(0, 26001, np.int32), blob(6, 24003, np.int32))
    values[15] = 7
    mask(tmp_path / "gtFine/val/ulm/ulm_1_gtFine_instanceIds.png", values.astype(np.uint16))
    mask(tmp_path / "gtFine/val/ulm/ulm_1_gtFine_labelIds.png", (values // 1000).astype(np.uint8))
    found = open_annotations(tmp_path)
    assert (found.format, found.classes, found.items[0].split) == ("instance_masks", ("person", "car"), "val")
    assert [(one.label, one.shape.value) for one in found.items[0].objects if isinstance(one.shape, Picture)] == [(0, 24003), (1, 26001)]
    assert open_dataset(tmp_path)[0].target.boxes.tolist() == [[2, 6, 7, 10], [2, 0, 7, 4]]
    assert open_annotations(tmp_path, task="segment").format == "masks"


@pytest.mark.parametrize(("images", "masks", "ending"), [("PNGImages", "PedMasks", "_mask"), ("images", "instances", "")])
def test_penn_fudan(tmp_path: Path, images: str, masks: str, ending: str) -> None:
    picture(tmp_path / f"{images}/P1.png", SIZE)
    mask(tmp_path / f"{masks}/P1{ending}.png", np.maximum(blob(0, 1), blob(6, 2)))
    mask(tmp_path / f"{masks}/P2{ending}.png", blob(0, 1))
    found = open_annotations(tmp_path)
    assert (found.format, found.classes, codes(found)) == ("instance_masks", ("object",), ["missing-image"])
    assert [one.shape for one in found.items[0].objects] == [Picture(f"{masks}/P1{ending}.png", 1), Picture(f"{masks}/P1{ending}.png", 2)]
    (tmp_path / "classes.txt").write_text("person\n")
    assert read(tmp_path).classes == ("person",)


def test_classes_by_folder(tmp_path: Path) -> None:
    picture(tmp_path / "1/images/1.png", SIZE)
    for kind in (0, 1, 5):
        mask(tmp_path / f"1/masks/{kind}/1.png", blob(kind))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    found = read(tmp_path)
    assert [one.label for one in found.items[0].objects] == [0, 1] and codes(found) == ["unknown-class"]


def test_what_holds_none(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", SIZE)
    assert instance_masks.fits(FolderTree(tmp_path)) == ()
    with pytest.raises(UserError, match="holds no masks of single objects"):
        read(tmp_path)


@given(sets(instance_masks.HOLDS, "instances"))
def test_what_is_written_is_read_back(drawn: Any) -> None:
    """Every object keeps its class and its pixels; its box follows from them."""
    with folder() as root:
        made = on_disk(root, "instances", drawn)
        if not any(item.objects for item in made.items):
            return
        output = written(made, "instance_masks", root / "out")
        back = open_annotations(root / "out")
        assert (back.format, back.classes, codes(back)) == ("instance_masks", made.classes, [])
        found = {stem(item.path.rpartition("/")[2]): item for item in back.items}
        for item in made.items:
            other, size = found[stem(output.name(item))], output.size(item)
            assert other.split == item.split and [one.label for one in other.objects] == [one.label for one in item.objects]
            for one, its in zip(other.objects, item.objects, strict=True):
                np.testing.assert_array_equal(
                    run_lengths.to_mask(shapes.rle(one, size, back.tree)), run_lengths.to_mask(shapes.rle(its, size, made.tree))
                )


def test_a_real_set(unpacked: Callable[[str], Path]) -> None:
    found = open_annotations(unpacked("nuclei"))
    assert (found.format, len(found.items), sum(len(item.objects) for item in found.items)) == ("instance_masks", 200, 6142)
    assert found.problems == ()
