"""Faults put one by one into files of a clean set on the disk: each is found exactly once, with file and line, and nothing else is."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from saccade.core import bands, run_lengths
from saccade.core.progress import Silent
from saccade.core.run_lengths import Rle
from saccade.data import doctor, formats, scenes
from saccade.data.annotations import Annotations, Object, Picture
from saccade.data.findings import Finding
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree
from saccade.data.writing import Output, new_folder

SPLITS = ["train"] * 60 + ["val"] * 30
IMAGE = "JPEGImages/00007.png"
SHEET = "Annotations/00007.xml"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up set of 90 images of 64x80 as VOC: a file of annotations for each, with lines."""
    return written("voc", scenes.made("detect", SPLITS, (64, 80), 0), tmp_path_factory.mktemp("clean") / "set")


def written(name: str, annotations: Annotations, out: Path) -> Path:
    with new_folder(out) as folder:
        formats.find(name).write(annotations, Output(folder, annotations))
    return out


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "set"))


def examined(annotations: Annotations) -> tuple[Finding, ...]:
    return doctor.examine(annotations, progress=Silent()).findings


def test_clean_sets(clean: Path, tmp_path: Path) -> None:
    assert examined(open_annotations(clean)) == ()
    for task in ("instances", "segment"):
        assert examined(scenes.made(task, SPLITS, (64, 80), 0)) == ()
    made = scenes.made("detect", SPLITS, (64, 80), 0)
    assert examined(open_annotations(written("coco", made, tmp_path / "coco"))) == ()


def test_an_empty_set(tmp_path: Path) -> None:
    report = doctor.examine(Annotations("made", "detect", (), (), FolderTree(tmp_path)), progress=Silent())
    assert report.to_dict() == {"findings": [], "counts": {}, "errors": 0, "warnings": 0, "images": 0, "format": "made", "task": "detect"}


# Files of images


def pixels(root: Path, path: str = IMAGE) -> Image.Image:
    with Image.open(root / path) as image:
        return image.convert("RGB")


def cut(root: Path) -> None:
    data = (root / IMAGE).read_bytes()
    (root / IMAGE).write_bytes(data[: len(data) // 2])


def cut_jpeg(root: Path) -> None:
    large = pixels(root).resize((800, 640), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG")
    (root / IMAGE).unlink()
    (root / IMAGE).with_suffix(".jpg").write_bytes(file.getvalue()[: len(file.getvalue()) * 2 // 3])


def rubbish(root: Path) -> None:
    (root / IMAGE).write_bytes(b"no image at all")


def nothing(root: Path) -> None:
    (root / IMAGE).write_bytes(b"")


def far_too_large(root: Path) -> None:
    data = bytearray((root / IMAGE).read_bytes())
    data[16:24] = (8000).to_bytes(4, "big") + (8000).to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (root / IMAGE).write_bytes(bytes(data))


def beyond_pillow(root: Path) -> None:
    data = bytearray((root / IMAGE).read_bytes())
    data[16:24] = (80000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (root / IMAGE).write_bytes(bytes(data))


def other_content(root: Path) -> None:
    pixels(root).save(root / IMAGE, "BMP")


def other_name(root: Path) -> None:
    (root / IMAGE).rename((root / IMAGE).with_suffix(".jpg"))


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels(root).save(root / IMAGE, exif=exif)


def stated_otherwise(root: Path) -> None:
    edit(root, "<width>80</width>", "<width>81</width>")


def one_grey(root: Path) -> None:
    pixels(root).convert("L").save(root / IMAGE)


def one_with_alpha(root: Path) -> None:
    image = pixels(root)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(root / IMAGE)


def one_of_16_bit(root: Path) -> None:
    Image.fromarray(np.asarray(pixels(root).convert("L")).astype(np.uint16) * 257).save(root / IMAGE)


def one_of_a_palette(root: Path) -> None:
    pixels(root).quantize(64).save(root / IMAGE)


def blank(root: Path) -> None:
    Image.new("RGB", (80, 64), (9, 9, 9)).save(root / IMAGE)


def edit(root: Path, old: str, new: str, path: str = SHEET) -> None:
    text = (root / path).read_text("utf-8")
    assert old in text
    (root / path).write_text(text.replace(old, new, 1), "utf-8")


def names(root: Path, number: int) -> list[str]:
    return re.findall("<name>(.*)</name>", (root / f"Annotations/{number:05}.xml").read_text())


def copied(to: int, change: Callable[[Image.Image], Image.Image] = lambda image: image, labels: bool = True) -> Callable[[Path], None]:
    """Image 7, perhaps changed, in place of another one; its labels as well, if asked."""

    def inject(root: Path) -> None:
        change(pixels(root)).save(root / f"JPEGImages/{to:05}.png")
        if labels:
            shutil.copy(root / SHEET, root / f"Annotations/{to:05}.xml")
            edit(root, "00007.png", f"{to:05}.png", f"Annotations/{to:05}.xml")
        else:
            assert names(root, 7) != names(root, to)

    return inject


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.06)


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


def unlike(root: Path) -> None:
    noise = np.zeros((64, 80, 3), np.uint8)
    noise[::, :40] = (255, 0, 255)
    noise[20:40, 40:] = (255, 255, 0)
    Image.fromarray(noise).save(root / IMAGE)


OTHER, LEAKED = "JPEGImages/00009.png", "JPEGImages/00070.png"
IMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (cut, "unreadable-image", IMAGE),
    (cut_jpeg, "unreadable-image", "JPEGImages/00007.jpg"),
    (rubbish, "unreadable-image", IMAGE),
    (nothing, "unreadable-image", IMAGE),
    (far_too_large, "too-large-image", IMAGE),
    (beyond_pillow, "too-large-image", IMAGE),
    (other_content, "wrong-suffix", IMAGE),
    (other_name, "wrong-suffix", "JPEGImages/00007.jpg"),
    (turned, "turned-image", IMAGE),
    (stated_otherwise, "stated-size", IMAGE),
    (one_grey, "mixed-modes", IMAGE),
    (one_with_alpha, "mixed-modes", IMAGE),
    (one_of_16_bit, "mixed-modes", IMAGE),
    (one_of_a_palette, "mixed-modes", IMAGE),
    (blank, "blank-image", IMAGE),
    (copied(9), "duplicate-image", OTHER),
    (copied(70), "leak", LEAKED),
    (copied(9, labels=False), "conflicting-labels", OTHER),
    (copied(70, labels=False), "conflicting-labels", LEAKED),
    (copied(9, brighter), "near-duplicate", OTHER),
    (copied(9, recompressed), "near-duplicate", OTHER),
    (copied(70, recompressed), "leak", LEAKED),
    (unlike, "unlike-others", IMAGE),
]


@pytest.mark.parametrize(("inject", "code", "path"), IMAGES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_images(root: Path, inject: Callable[[Path], None], code: str, path: str) -> None:
    inject(root)
    (found,) = examined(open_annotations(root))
    assert (found.code, found.path) == (code, path), str(found)
    assert json.loads(json.dumps(found.to_dict()))["message"] == found.message


def test_a_size_stated_as_if_not_turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels(root).save(root / IMAGE, exif=exif)
    edit(root, re.findall("<object>.*</object>", (root / SHEET).read_text(), re.DOTALL)[0], "")
    found = examined(open_annotations(root))
    assert [one.code for one in found] == ["stated-size-unturned", "turned-image", "unlabelled-image"]


def test_large_jpegs_are_told_apart_by_all_their_pixels(tmp_path: Path) -> None:
    """At the reduced size they are the same."""
    image = np.asarray(Image.effect_mandelbrot((512, 512), (-2, -1.5, 1, 1.5), 80)).copy()
    for name, shift in (("a", 0), ("b", 0), ("c", 8)):
        image[100, 100] += shift
        (tmp_path / "x").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "x" / f"{name}.jpg", quality=95)
    annotations = open_annotations(tmp_path)
    from saccade.data.doctor import likeness, look

    looks = list(look.at_all(annotations, Silent(), 1))
    assert likeness.exact(annotations, looks) == [[0, 1]]
    assert doctor.alike(annotations, Silent()) == [[0, 1, 2]]


def test_bands_are_the_same_where_all_of_them_are(tmp_path: Path) -> None:
    """Of those that differ only in the last, or in their scale, people are shown the same picture. b is a, d is e; none is near another."""
    shape = np.linspace(20, 60, 17 * 11).reshape(17, 11, 1) * np.ones(5)
    last = np.where(np.arange(5) == 4, 255 - shape, shape)
    (tmp_path / "x").mkdir()
    for name, values in (("a", shape), ("b", shape), ("c", last), ("d", shape * 2), ("e", shape * 2)):
        (tmp_path / "x" / f"{name}.tif").write_bytes(bands.encoded(values.astype(np.uint8)))
    annotations = open_annotations(tmp_path)
    assert doctor.alike(annotations, Silent()) == [[0, 1], [3, 4]]
    assert [one.code for one in examined(annotations)].count("duplicate-image") == 2


def test_bands_are_unlike_others_in_any_of_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    for number in range(50):
        values = 90 + generator.integers(-4, 5, (4, 4, 40)).repeat(4, 0).repeat(4, 1)
        values[:8, :, 38:] += 140 * (number == 7)
        (tmp_path / "x" / f"{number:02}.tif").write_bytes(bands.encoded(values.astype(np.uint8)))
    assert [one.path for one in examined(open_annotations(tmp_path)) if one.code == "unlike-others"] == ["x/07.tif"]


def test_bands_are_blank_where_all_of_them_are(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    values = np.full((17, 11, 5), 9, np.uint8)
    (tmp_path / "x" / "blank.tif").write_bytes(bands.encoded(values))
    values[3, 4, 4] = 200
    (tmp_path / "x" / "last.tif").write_bytes(bands.encoded(values))
    assert [one.path for one in examined(open_annotations(tmp_path)) if one.code == "blank-image"] == ["x/blank.tif"]


def test_a_pattern_finer_than_the_reduced_size_is_not_blank(tmp_path: Path) -> None:
    """Decoded at an eighth it has a single colour."""
    (tmp_path / "x").mkdir()
    Image.fromarray((np.indices((512, 512)).sum(0) % 2 * 60 + 90).astype(np.uint8)).save(tmp_path / "x" / "fine.jpg", quality=95)
    Image.new("L", (512, 512), 90).save(tmp_path / "x" / "plain.jpg")
    found = examined(open_annotations(tmp_path))
    assert [(one.code, one.path) for one in found if one.code == "blank-image"] == [("blank-image", "x/plain.jpg")]


# Annotations, with lines


def boxed(left: Any, top: Any, right: Any, bottom: Any) -> Callable[[Path], None]:
    """One more object, in line 9 of the file."""
    edges = zip(("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom), strict=True)
    text = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges)
    return lambda root: edit(root, "</size>", f"</size>\n\n<object>\n<name>ring</name><bndbox>{text}</bndbox></object>")


def twice(root: Path) -> None:
    one = re.findall("\t<object>.*?</object>\n", (root / SHEET).read_text(), re.DOTALL)[0]
    edit(root, one, one + one)


LINES: list[tuple[Callable[[Path], None], str, int | None]] = [
    (boxed("nan", 3, 20, 20), "not-finite", 9),
    (boxed(3, 3, "inf", 20), "not-finite", 9),
    (boxed(3, 3, "wide", 20), "bad-annotation", 9),
    (boxed(40, 3, 20, 20), "inverted-box", 9),
    (boxed(4, 30, 20, 20), "inverted-box", 9),
    (boxed(100, 3, 120, 20), "box-outside", 9),
    (boxed(4, 3, 120, 20), "box-over-edge", 9),
    (boxed(4, 3, 20, 67), "box-over-edge", 9),
    (boxed(21, 3, 20, 20), "empty-box", 9),
    (boxed(20, 20, 20, 20), "tiny-box", 9),
    (twice, "duplicate-object", None),
]


@pytest.mark.parametrize(("inject", "code", "line"), LINES)
def test_annotations(root: Path, inject: Callable[[Path], None], code: str, line: int | None) -> None:
    inject(root)
    (found,) = examined(open_annotations(root))
    assert (found.code, found.path) == (code, SHEET)
    assert found.line == line if line else found.line > 9


def test_files_that_are_not_there(root: Path) -> None:
    (root / IMAGE).unlink()
    found = examined(open_annotations(root))
    assert {one.code for one in found} == {"missing-image"}


# Masks


@pytest.fixture
def segmented(tmp_path: Path) -> Annotations:
    """Scenes with masks of classes, in files."""
    made = scenes.made("segment", SPLITS, (32, 40), 0)
    for item in made.items:
        for path in (item.path, item.mask):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(made.tree.read(path))
    return replace(made, tree=FolderTree(tmp_path))


def mask_gone(path: Path) -> None:
    path.unlink()


def mask_broken(path: Path) -> None:
    path.write_bytes(b"?")


def mask_of_another_size(path: Path) -> None:
    Image.new("L", (40, 31), 1).save(path)


def mask_of_unknown_values(path: Path) -> None:
    Image.new("L", (40, 32), 77).save(path)


def mask_of_nothing(path: Path) -> None:
    Image.new("L", (40, 32), 255).save(path)


MASKS = [
    (mask_gone, "missing-mask"),
    (mask_broken, "missing-mask"),
    (mask_of_another_size, "mask-size"),
    (mask_of_unknown_values, "mask-value"),
    (mask_of_nothing, "empty-mask"),
]


@pytest.mark.parametrize(("inject", "code"), MASKS)
def test_masks(segmented: Annotations, inject: Callable[[Path], None], code: str) -> None:
    inject(segmented.tree.root / "masks/00005.png")
    legend = replace(segmented.legend, ignored=frozenset({255}))
    (found,) = examined(replace(segmented, legend=legend))
    assert (found.code, found.path) == (code, "masks/00005.png")


def shaped(shape: Rle | Picture) -> Annotations:
    made = scenes.made("instances", SPLITS, (32, 40), 0)
    items = list(made.items)
    items[4] = replace(items[4], objects=(*items[4].objects, Object(0, shape=shape)))
    return replace(made, items=tuple(items))


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (run_lengths.from_mask(np.zeros((32, 40), bool)), "empty-mask"),
        (run_lengths.from_mask(np.ones((40, 32), bool)), "mask-size"),
        (Picture("masks/00005.png", 77), "empty-mask"),
        (Picture("masks/00005.png"), ""),
    ],
)
def test_masks_of_objects(shape: Rle | Picture, code: str) -> None:
    made = shaped(shape)
    last = len(made.items[4].objects) - 1
    found = examined(made)
    assert [(one.code, one.path, one.object) for one in found] == ([(code, "images/00005.png", last)] if code else [])
