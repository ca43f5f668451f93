"""Masks of classes: folders of many names, legends of many kinds, values without a legend, what is missing, round trips, a real set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.formats.labelled import CLASSES, NAMES, SIZES, SPLITS, codes, folder, mutated, picture, written
from saccade.core import class_masks
from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.data import shapes
from saccade.data.annotations import Annotations, Item, Legend
from saccade.data.formats import masks
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.pictures import stem
from saccade.data.tree import FolderTree

SIZE = (17, 11)


def mask(path: Path, values: Any, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    image = Image.frombytes("P", (array.shape[1], array.shape[0]), array.tobytes()) if mode == "P" else Image.fromarray(array)
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)
    return path


def striped(*values: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Rows of these values (numbers or colours) by turns."""
    rows = [values[k % len(values)] for k in range(size[0])]
    return np.stack([np.broadcast_to(np.asarray(row, np.uint8), (size[1], *np.shape(row))) for row in rows])


def pair(root: Path, image: str, at: str, *values: Any, mode: str = "L") -> None:
    picture(root / image, SIZE)
    mask(root / at, striped(*values), mode)


def read(root: Path) -> Annotations:
    return masks.read(FolderTree(root), "segment")


@pytest.mark.parametrize(
    ("image", "at", "split"),
    [
        ("images/a.jpg", "masks/a.png", ""),
        ("train/images/a.jpg", "train/masks/a.png", "train"),
        ("images/val/a.JPG", "labels/val/a.PNG", "val"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", ""),
        ("img/a.jpg", "gt/a_gt.png", ""),
        ("Images/deep/er/a.jpg", "Masks/deep/er/a_mask.png", ""),
        ("leftImg8bit/train/ulm/a_leftImg8bit.png", "gtFine/train/ulm/a_gtFine_labelIds.png", "train"),
        ("images/test2017/a.jpg", "masks-semantic/test2017/a.png", "test"),
    ],
)
def test_folders_of_many_names(tmp_path: Path, image: str, at: str, split: str) -> None:
    pair(tmp_path, image, at, 0, 1, 2)
    found = open_annotations(tmp_path)
    assert (found.format, found.task, found.classes) == ("masks", "segment", ("0", "1", "2"))
    assert [(item.path, item.mask, item.split) for item in found.items] == [(image, at, split)]


def test_vocs_lists_tell_the_splits(tmp_path: Path) -> None:
    for name in "abc":
        pair(tmp_path, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", 0, 1, mode="P")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    assert [item.split for item in read(tmp_path).items] == ["train", "val", ""]


@pytest.mark.parametrize(
    ("name", "text", "values", "expected"),
    [
        ("classes.txt", "sky\nrot & weiß\n", (0, 1), {"sky": 0, "rot & weiß": 1}),
        ("classes.json", '["sky", "sea"]', (0, 1), {"sky": 0, "sea": 1}),
        ("classes.json", '{"7": "sky", "9": "sea"}', (7, 9), {"sky": 7, "sea": 9}),
        ("classes.json", '{"sky": 7, "sea": 0}', (7, 0), {"sky": 7, "sea": 0}),
        ("classes.json", '{"sky": [255, 0, 1]}', ((255, 0, 1),), {"sky": 0xFF0001}),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nsky:0,0,0::\nsea:0,128,0::\n",
            ((0, 0, 0), (0, 128, 0)),
            {"sky": 0, "sea": 0x8000},
        ),
        ("class_dict.csv", "name, r, g, b\nsky, 1, 2, 3\nsea, 4, 5, 6\n", ((1, 2, 3), (4, 5, 6)), {"sky": 0x10203, "sea": 0x40506}),
        ("legend.csv", "value,name\n3,sky\n1,sea\n", (3, 1), {"sky": 3, "sea": 1}),
    ],
)
def test_legends(tmp_path: Path, name: str, text: str, values: tuple[Any, ...], expected: dict[str, int]) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", *values)
    (tmp_path / name).write_text(text)
    found = read(tmp_path)
    assert {found.classes[label]: value for value, label in found.legend.values.items()} == expected
    classes = shapes.classes_of(found.items[0], found)
    assert classes[: len(values), 0].tolist() == list(range(len(values)))


def test_what_was_read_is_not_passed_over(tmp_path: Path) -> None:
    for number in range(2):
        pair(tmp_path, f"images/{number}.png", f"masks/{number}.png", 0, 1)
    (tmp_path / "classes.txt").write_text("ground\nsea\n")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("0\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("1\n")
    assert [item.split for item in read(tmp_path).items] == ["train", "val"] and read(tmp_path).ignored == 0
    (tmp_path / "legend.csv").write_text("value,name\n0,sky\n")  # classes.txt comes first
    (tmp_path / "README").touch()
    assert read(tmp_path).ignored == 2


def test_a_palette_by_its_colours(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 0, 2, 1, mode="P")
    (tmp_path / "labelmap.txt").write_text("sky:0,0,0::\nsea:0,128,0::\n")
    found = read(tmp_path)
    assert shapes.classes_of(found.items[0], found)[:3, 0].tolist() == [0, 1, IGNORED]


@pytest.mark.parametrize(
    ("values", "classes", "ignored"),
    [
        ((0, 255), ("background", "foreground"), set()),
        ((0, 1), ("background", "foreground"), {255}),
        ((0,), ("background", "foreground"), {255}),
        ((0, 1, 255), ("background", "foreground"), {255}),
        ((0, 4, 9, 255), ("0", "4", "9"), {255}),
        ((0, 85, 170, 255), ("0", "85", "170", "255"), set()),
        (((0, 0, 0), (128, 0, 0), (224, 224, 192)), ("#000000", "#800000"), {0xE0E0C0}),
        (((0, 0, 0), (9, 9, 9), (128, 0, 0)), ("#000000", "#090909", "#800000"), {0xE0E0C0}),
        (((0, 0, 0), (0, 0, 255), (128, 0, 0)), ("#000000", "#0000ff", "#800000"), {0xE0E0C0}),
    ],
)
def test_values_without_a_legend(tmp_path: Path, values: tuple[Any, ...], classes: tuple[str, ...], ignored: set[int]) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", *values)
    found = read(tmp_path)
    assert found.classes == classes and found.legend.ignored == ignored


def test_one_bit_is_white_and_black(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png", SIZE)
    (tmp_path / "masks").mkdir()
    Image.fromarray(striped(0, 255)).convert("1").save(tmp_path / "masks/a.png")
    found = read(tmp_path)
    assert shapes.classes_of(found.items[0], found)[:2, 0].tolist() == [0, 1]


def discs(root: Path, *, names: str = "", white: int = 255) -> np.ndarray:
    """Two images with a mask each, black with a white disc, and none; returns where the disc is: bool `[H, W]`."""
    down, across = np.mgrid[:60, :80]
    inside: np.ndarray = np.hypot(down - 30, across - 40) < 20
    for name, shape in (("a", np.zeros_like(inside)), ("b", inside)):
        picture(root / f"images/{name}.png", inside.shape)
        mask(root / f"masks/{name}.png", shape * white)
    if names:
        (root / "classes.txt").write_text(names)
    return inside


def resaved(root: Path, change: Callable[[Image.Image], Image.Image], suffix: str = ".png") -> None:
    """Each mask changed, under another suffix."""
    for path in sorted((root / "masks").iterdir()):
        with Image.open(path) as image:
            made = change(image)
        path.unlink()
        made.save(path.with_suffix(suffix))


def softened(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 3, image.height * 3), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BILINEAR)


def of_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


@pytest.mark.parametrize("names", ["", "ground\ndisc\n"])
@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (lambda image: image.copy(), ".png"),
        (lambda image: image.copy(), ".jpg"),
        (lambda image: image.convert("RGB"), ".jpg"),
        (lambda image: image.convert("RGBA"), ".png"),
        (softened, ".png"),
        (of_16_bits, ".png"),
    ],
    ids=["png", "jpeg", "colour jpeg", "alpha", "scaled", "16 bits"],
)
def test_black_and_white(tmp_path: Path, names: str, change: Callable[[Image.Image], Image.Image], suffix: str) -> None:
    """Whatever tones stand between, and whether or not classes are named."""
    inside = discs(tmp_path, names=names)
    resaved(tmp_path, change, suffix)
    found = read(tmp_path)
    assert found.classes == (tuple(names.split()) or ("background", "foreground")) and not found.legend.ignored
    assert not shapes.classes_of(found.items[0], found).any()
    told = shapes.classes_of(found.items[1], found)
    assert set(np.unique(told)) == {0, 1} and (told == inside).mean() > 0.99
    plain = suffix == ".png" and change is not softened
    assert bool(found.notes) is bool(names or not plain), found.notes
    assert open_dataset(tmp_path).annotations.legend == found.legend


def test_indices_of_two_named_classes(tmp_path: Path) -> None:
    """White does not count beside ones, nor in pictures with a palette, even where no pixel is of the second class."""
    inside = discs(tmp_path, names="ground\ndisc\n", white=1)
    resaved(tmp_path, lambda image: Image.fromarray(np.maximum(np.asarray(image), np.eye(60, 80, dtype=np.uint8) * 255)))
    found = read(tmp_path)
    assert found.legend == Legend({0: 0, 1: 1}, ignored=frozenset({255})) and found.notes == ()
    assert (shapes.classes_of(found.items[1], found) == 1).sum() == (inside & ~np.eye(60, 80, dtype=bool)).sum()
    (tmp_path / "masks/b.png").unlink()
    (tmp_path / "masks/a.png").write_bytes(class_masks.png(np.array([[0, 255]], np.uint8)))
    assert read(tmp_path).legend.ignored == {255}


def test_many_indices_are_no_black_and_white(tmp_path: Path) -> None:
    """As of ADE20K: most pixels are of the first ones, some count for nothing."""
    values = np.zeros((100, 100), np.uint8)
    values[0, :] = np.arange(100) * 1.5
    values[1, :] = 255
    picture(tmp_path / "images/a.png", (100, 100))
    mask(tmp_path / "masks/a.png", values)
    found = read(tmp_path)
    assert len(found.classes) == 100 and found.legend.ignored == {255} and found.notes == ()


def test_masks_that_are_white_alone(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 255)
    with pytest.raises(UserError, match="all pixels of all masks are 255"):
        read(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 0, 1)
    picture(tmp_path / "images/b.png", SIZE)
    mask(tmp_path / "masks/c.png", striped(0, 1))
    found = read(tmp_path)
    assert [(p.code, p.path) for p in found.problems] == [("missing-mask", "images/b.png"), ("missing-image", "masks/c.png")]
    assert [item.path for item in found.items] == ["images/a.png"]


def test_a_dataset_gives_classes_by_pixel(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 0, 4, 255)
    sample = open_dataset(tmp_path)[0]
    assert sample.image.shape == (*SIZE, 3) and sample.target.dtype == np.uint8 and sample.target[:3, 0].tolist() == [0, 1, 255]
    mask(tmp_path / "masks/a.png", striped(0, 4, size=(5, 6)))
    with pytest.raises(UserError, match=r"must have the size of its image, 17x11 \(height x width\), was 5x6"):
        open_dataset(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("classes.txt", "", "must name classes"),
        ("classes.txt", "a\n\nb\n", "without a name"),
        ("classes.txt", "a\na\n", "'a' twice"),
        ("classes.txt", "".join(f"{k}\n" for k in range(256)), "at most 255"),
        ("classes.json", "{", "JSON"),
        ("classes.json", "[1]", "must be a list of names"),
        ("classes.json", '{"x": "sky"}', "whole number, was 'x'"),
        ("classes.json", '{"sky": [1, 2]}', "three numbers"),
        ("classes.json", '{"sky": 1, "sea": 1}', "same value"),
        ("labelmap.txt", "sky:0,0\n", "three numbers from 0 to 255, was '0,0'"),
        ("labelmap.txt", "sky:0,0,256\n", "0 to 255"),
        ("class_dict.csv", "a,b\n1,2\n", "must have a header"),
        ("class_dict.csv", "name,r,g,b\nsky,1,2\n", "4 cells, was 3"),
        ("legend.csv", "name,value\nsky,-1\n", "whole number, was '-1'"),
    ],
)
def test_legends_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 0, 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path)
    assert name in caught.value.where


@pytest.mark.parametrize(("legend", "other", "named"), [("ground\nthing\n", 7, "7"), ("ground,0,0,0\nthing,9,9,9\n", (8, 0, 1), "#080001")])
def test_values_that_no_legend_names_are_told_of(tmp_path: Path, legend: str, other: Any, named: str) -> None:
    """Where a network is about to learn, too: such pixels count in nothing. 255, or what the legend leaves out, is meant."""
    coloured = isinstance(other, tuple)
    ground, thing, void = ((0, 0, 0), (9, 9, 9), ()) if coloured else (0, 1, 255)
    for number in range(8):
        values = (ground, thing, other) if number in (2, 5) else (ground, thing, *([] if coloured else [void]))
        pair(tmp_path, f"images/{number}.png", f"masks/{number}.png", *values)
    (tmp_path / ("classes.csv" if coloured else "classes.txt")).write_text("name,r,g,b\n" * coloured + legend)
    dataset = open_dataset(tmp_path, task="segment")
    held = {dataset.paths[place] for place in dataset.split("val").tolist()}
    there = sum(f"images/{number}.png" not in held for number in (2, 5))
    said = f"{there} of {8 - len(held)} masks looked at hold values of no class, which count in nothing: {named}"
    assert dataset.unnamed() == f"{said}; saccade data check lists them"
    for number in (2, 5):
        pair(tmp_path, f"images/{number}.png", f"masks/{number}.png", ground, thing)
    assert open_dataset(tmp_path, task="segment").unnamed() == ""


def test_photos_are_no_masks(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png", (64, 48))
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    mask(tmp_path / "masks/a.png", noise)
    with pytest.raises(UserError, match="different values, more than classes could be"):
        read(tmp_path)
    (tmp_path / "masks/a.png").write_bytes(b"none")
    with pytest.raises(UserError, match="no mask can be read"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["classes.json", "classes.txt", "labelmap.txt", "class_dict.csv"])
def test_damaged_legends_are_one_line(kind: str) -> None:
    texts = {"classes.json": '{"0": "sky", "1": "sea"}', "classes.txt": "sky\nsea\n", "labelmap.txt": "sky:0,0,0::\nsea:0,0,1::\n"}
    data = texts.get(kind, "name,r,g,b\nsky,1,2,3\nsea,4,5,6\n").encode()
    with folder() as root:
        pair(root, "images/a.png", "masks/a.png", 0, 1)
        for seed in range(150):
            (root / kind).write_bytes(mutated(data, seed))
            try:
                read(root)
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017


@given(st.data())
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    """Every pixel keeps its class, and what is left out stays so."""
    classes = tuple(data.draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True)))
    with folder() as root:
        items = []
        for number, name in enumerate(data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))):
            size = data.draw(st.sampled_from(SIZES))
            picture(root / "photos" / name, size)
            values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, len(classes) + 1, size)
            values[values == len(classes)] = 255
            mask(root / f"truth/{number}.png", values)
            split = data.draw(st.sampled_from(SPLITS))
            items.append(Item(FolderTree(root).find(f"photos/{name}"), split, mask=f"truth/{number}.png"))  # type: ignore[arg-type]
        items.sort(key=lambda item: item.path)
        legend = Legend({value: value for value in range(len(classes))}, ignored=frozenset({255}))
        made = Annotations("made", "segment", classes, tuple(items), FolderTree(root), legend=legend)
        output = written(made, "masks", root / "out")
        back = open_annotations(root / "out")
        assert (back.format, back.classes, codes(back)) == ("masks", classes, [])
        found = {stem(item.path.rpartition("/")[2]): item for item in back.items}
        for item in items:
            other = found[stem(output.name(item))]
            assert other.split == item.split
            np.testing.assert_array_equal(shapes.classes_of(other, back), shapes.classes_of(item, made))


def test_more_classes_than_a_mask_holds(tmp_path: Path) -> None:
    made = Annotations("made", "segment", tuple(map(str, range(256))), (), FolderTree(tmp_path))
    with pytest.raises(UserError, match="at most 255 classes, this set has 256"):
        written(made, "masks", tmp_path / "out")


def test_the_palette_is_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(class_masks.png(np.array([[0, 1, 255]], np.uint8)))
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        assert image.convert("RGB").getpixel((2, 0)) == (255, 255, 255) != image.convert("RGB").getpixel((1, 0))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    pair(tmp_path, f"images/{name}.png", f"masks/{name}.png", 0, 1)
    assert read(tmp_path).items[0].path == f"images/{name}.png"


def test_a_real_set(unpacked: Callable[[str], Path]) -> None:
    found = open_annotations(unpacked("coco-excerpt"), task="segment")
    assert len(found.items) == 62 and found.problems == () and {item.split for item in found.items} == {"train", "val"}
    dataset = open_dataset(unpacked("coco-excerpt"), task="segment")
    assert dataset[0].target.shape == dataset[0].image.shape[:2]


def test_json_of_a_mapping(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", 0, 1)
    wanted: Mapping[str, int] = {"sky": 0, "sea": 1}
    (tmp_path / "classes.json").write_text(json.dumps(wanted))
    assert read(tmp_path).classes == ("sky", "sea")
