"""All formats of objects together: each is told from the others, in folders and archives, and one becomes another."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats.labelled import close, on_disk, plain, with_split, written
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.run_lengths import Rle
from saccade.data import formats, shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.converting import convert
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree

OBJECT_FORMATS = [name for name in formats.NAMES if "detect" in formats.find(name).TASKS]
WITH_SHAPES = [name for name in OBJECT_FORMATS if "instances" in formats.find(name).TASKS]
RING = (2.0, 2.0, 9.0, 2.5, 6.0, 11.5)


def made(root: Path, task: str) -> Annotations:
    shape = (RING,) if task == "instances" else None
    box = None if shape else (2.0, 2.0, 9.0, 11.5)
    objects = [Object(1, box, shape), Object(0, None if shape else (0, 0, 11, 17), ((0, 0, 11, 0, 11, 17),) if shape else None)]
    images: dict[str, Any] = {f"{n}.png": ((17, 11), ("train", "val", "test")[n % 3], objects[: n % 3]) for n in range(7)}
    return on_disk(root, task, (("cat", "a dog"), images))


@pytest.mark.parametrize("task", ["detect", "instances"])
@pytest.mark.parametrize("first", OBJECT_FORMATS)
def test_each_is_told_from_the_others_and_becomes_them(tmp_path: Path, first: str, task: str) -> None:
    if task not in formats.find(first).TASKS:
        pytest.skip("a format of boxes")
    source = made(tmp_path / "in", task)
    expected = plain(source)
    written(source, first, tmp_path / "first")
    tree = FolderTree(tmp_path / "first")
    assert [name for name in formats.NAMES if formats.find(name).fits(tree) and name not in ("folder", "images")] == [first]
    assert formats.find(first).fits(tree)[0] == task
    for second in OBJECT_FORMATS if task == "detect" else WITH_SHAPES:
        facts = convert(tmp_path / "first", tmp_path / second, to=second, task=task)
        found = open_annotations(tmp_path / second, task=task)
        assert facts["lost"] == [] and (found.format, found.problems, found.notes) == (second, (), ())
        expected = {
            name: (split, [(label, box if task == "detect" else None, *rest) for label, box, *rest in objects])
            for name, (split, objects) in expected.items()
        }
        seen = {
            name: (split, [(label, box if task == "detect" else None, *rest) for label, box, *rest in objects])
            for name, (split, objects) in plain(found).items()
        }
        assert close(seen, expected, 1e-3)


@pytest.mark.parametrize("name", OBJECT_FORMATS)
def test_in_an_archive_as_in_a_folder(tmp_path: Path, name: str) -> None:
    if name == "webdataset":
        pytest.skip("an archive itself")
    written(made(tmp_path / "in", "detect"), name, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "out").rglob("*")):
            if path.is_file():
                archive.write(path, f"out/{path.relative_to(tmp_path / 'out')}")
    inside, outside = open_annotations(tmp_path / "set.zip"), open_annotations(tmp_path / "out")
    assert inside.format == name and not inside.problems
    assert plain(inside) == plain(outside) and inside.classes == outside.classes


@pytest.mark.parametrize("name", WITH_SHAPES)
def test_a_mask_becomes_its_outline_where_a_format_has_no_masks(tmp_path: Path, name: str) -> None:
    mask = np.zeros((17, 11), bool)
    mask[3:9, 2:7] = True
    source = on_disk(
        tmp_path / "in", "instances", (("cat",), {"1.png": ((17, 11), "train", [Object(0, shape=run_lengths.from_mask(mask))])})
    )
    written(source, name, tmp_path / "out")
    found = open_annotations(tmp_path / "out", task="instances")
    (one,) = found.items[0].objects
    assert isinstance(one.shape, Rle) == ("masks" in formats.find(name).HOLDS)
    assert np.array_equal(run_lengths.to_mask(shapes.rle(one, (17, 11), found.tree)), mask) or name not in ("coco", "cvat")
    assert shapes.box(one, (17, 11), found.tree) == pytest.approx((2, 3, 7, 9), abs=0.51)


@pytest.mark.parametrize("name", OBJECT_FORMATS)
@pytest.mark.parametrize("task", ["detect", "instances"])
def test_objects_of_nothing_are_written_somehow(tmp_path: Path, name: str, task: str) -> None:
    """Shapes that cover nothing, outlines of two points, boxes far outside, boxes turned inside out: readers take what they can."""
    if task not in formats.find(name).TASKS:
        pytest.skip("a format of boxes")
    nothing = run_lengths.from_mask(np.zeros((17, 11), bool))
    shown: list[Any] = [nothing, ((1.0, 1.0, 5.0, 5.0),), ((-1e9, -1e9, 1e9, -1e9, 0.0, 1e9),), (RING, (1.0, 1.0))]
    objects = [Object(0, shape=shape) for shape in shown] if task == "instances" else []
    objects += [Object(0, (-1e9, 5, 1e9, -5)), Object(0, (3, 3, 3, 3))]
    source = with_split(on_disk(tmp_path / "in", task, (("cat",), {"1.png": ((17, 11), "", objects)})), "train")
    written(source, name, tmp_path / "out")
    found = open_annotations(tmp_path / "out", task=task)
    assert len(found.items[0].objects) + len(found.problems) >= len(objects)


def test_an_image_that_cannot_be_read_stops_the_writing(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"rubbish")
    image = FolderTree(tmp_path).find("1.png")
    assert image
    source = Annotations("made", "detect", ("cat",), (Item(image, objects=(Object(0, (1, 2, 3, 4)),)),), FolderTree(tmp_path))
    with pytest.raises(UserError, match=r"must be an image"):
        written(source, "coco", tmp_path / "out")


def test_sizes_are_those_after_the_turn_that_exif_asks_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (11, 17)).save(tmp_path / "in/1.jpg", exif=exif)
    image = FolderTree(tmp_path / "in").find("1.jpg")
    assert image
    box = (1.0, 2.0, 16.0, 10.0)
    source = Annotations("made", "detect", ("cat",), (Item(image, "train", objects=(Object(0, box),)),), FolderTree(tmp_path / "in"))
    for name in OBJECT_FORMATS:
        written(source, name, tmp_path / name)
        found = open_annotations(tmp_path / name)
        assert found.items[0].objects[0].box == pytest.approx(box) and found.items[0].size in (None, (11, 17))
