"""YOLO: what data.yaml may say of places and names, labels of both kinds, what is wrong in a line, round trips, real files."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, with_split, written
from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import yolo
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree

NAMES = "names: [cat, dog]\n"
BOX = "0 0.5 0.5 0.5 0.25\n"  # of 17x11: 2.75, 6.375, 8.25, 10.625


def made(root: Path, files: Mapping[str, str | bytes], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(value if isinstance(value, bytes) else value.encode())
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def read(root: Path, task: str = "detect") -> Annotations:
    return yolo.read(FolderTree(root), task)


def one(tmp_path: Path, text: str | bytes, task: str = "detect", description: str = f"train: images\n{NAMES}") -> Annotations:
    return read(made(tmp_path, {"data.yaml": description, "labels/1.txt": text}, "images/1.png"), task)


def test_a_box_in_pixels(tmp_path: Path) -> None:
    found = one(tmp_path, f"\n{BOX}1 0.1 0.1 0.2 0.2\n\n")
    first, second = found.items[0].objects
    assert first == Object(0, (2.75, 6.375, 8.25, 10.625), line=2) and (second.label, second.line) == (1, 3)
    assert found.classes == ("cat", "dog") and (found.items[0].where, found.items[0].split) == ("labels/1.txt", "train")
    assert not found.problems and not found.notes


def test_outlines_and_boxes_mixed(tmp_path: Path) -> None:
    text = BOX + "1 0 0 1 0 1 0.5\n"
    found = one(tmp_path, text, "instances")
    assert found.items[0].objects[1] == Object(1, shape=((0, 0, 11, 0, 11, 8.5),), line=2)
    assert found.items[0].objects[0].box == (2.75, 6.375, 8.25, 10.625)
    assert yolo.fits(FolderTree(tmp_path)) == ("instances", "detect")
    assert [one.box for one in read(tmp_path).items[0].objects] == [(2.75, 6.375, 8.25, 10.625), (0, 0, 11, 8.5)]


def test_images_without_labels_are_background(tmp_path: Path) -> None:
    made(tmp_path, {"labels/2.txt": " \n"}, "images/2.png")
    (tmp_path / "images/3.png").write_bytes(b"no picture, and nobody looks")
    found = one(tmp_path, BOX)
    assert [len(item.objects) for item in found.items] == [1, 0, 0] and not found.problems


@pytest.mark.parametrize(
    ("description", "path", "split"),
    [
        ("train: images/train\n", "images/train/1.png", "train"),
        ("train: images/train/\n", "images/train/deep/er/1.png", "train"),
        ("path: .\ntrain: [images/a, images/train]\n", "images/train/1.png", "train"),
        ("path: ../datasets/coco8\ntrain: images/train\n", "images/train/1.png", "train"),
        ("path: /content/datasets/x\nval: images/val\n", "images/val/1.png", "val"),
        ("path: C:\\data\\x\nval: images\\val\n", "images/val/1.png", "val"),
        ("train: ../train/images\nval: ../valid/images\n", "valid/images/1.png", "val"),
        ("train: /content/x/train/images\n", "train/images/1.png", "train"),
        ("train: ''\nvalid: images\n", "images/1.png", "val"),
        ("train: null\ntest: images\n", "images/1.png", "test"),
        ("path: set\ntrain: images\n", "set/images/1.png", "train"),
        ("train: .\n", "1.png", "train"),
        ("train: pictures\n", "pictures/1.png", "train"),
        ("train: images\n", "images/images/1.png", "train"),
        ("train: a/images\n", "a/images/ä '\"%.PNG", "train"),
        ("train: ../../../etc\nval: images\n", "images/1.png", "val"),
    ],
)
def test_places(tmp_path: Path, description: str, path: str, split: str) -> None:
    sheet = {"images/images/1.png": "images/labels/1.txt"}.get(path, path.replace("images", "labels")).rpartition(".")[0]
    root = made(tmp_path, {"data.yaml": description + NAMES, f"{sheet.removesuffix('.txt')}.txt": BOX}, path)
    found = open_annotations(root)
    assert (found.format, found.task) == ("yolo", "detect")
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(path, split, 1)] and not found.problems


def test_a_list_of_images(tmp_path: Path) -> None:
    lists = {"train.txt": "./images/1.png\n/home/me/images/2.png\n\nimages/gone.png\n", "lists/val.txt": "images/3.png\r\n"}
    labels = {f"labels/{number}.txt": BOX for number in range(1, 5)}
    description = f"train: ./train.txt\nval: lists/val.txt\n{NAMES}"
    found = read(made(tmp_path, lists | labels | {"data.yaml": description}, *(f"images/{number}.png" for number in range(1, 5))))
    assert [(item.path, item.split) for item in found.items] == [
        ("images/1.png", "train"),
        ("images/2.png", "train"),
        ("images/3.png", "val"),
    ]
    assert [(problem.path, problem.line, problem.code) for problem in found.problems] == [("train.txt", 4, "missing-image")]
    assert found.notes == ("1 images without an annotation file that names them are left out",)


def test_one_folder_for_two_splits_counts_for_the_first(tmp_path: Path) -> None:
    found = one(tmp_path, BOX, description=f"train: images\nval: images\ntest: nowhere\n{NAMES}")
    assert [item.split for item in found.items] == ["train"]
    assert found.notes == (
        "data.yaml: nothing lies where it says for test: 'nowhere'",
        "data.yaml: 1 images are in several splits; each counts for the first",
    )


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: {0: a, 1: b}", ("a", "b")),
        ("names:\n  7: b\n  0: a", ("a", "b")),
        ("names:\n- yes\n- 1.0", ("yes", "1.0")),
        ("names: ['no', \"null\"]", ("no", "null")),
        ("nc: 2", ("0", "1")),
        ("nc: 2\nnames: []", ("0", "1")),
    ],
)
def test_names(tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
    found = one(tmp_path, BOX, description=f"train: images\n{names}\n")
    assert found.classes == classes and not found.problems
    assert found.ids == ((0, 7) if "7" in names else (0, 1))


def test_names_that_do_not_agree(tmp_path: Path) -> None:
    found = one(tmp_path, BOX + "2 .5 .5 .1 .1", description="train: images\nnc: 2\nnames: [a, b, a]\n")
    assert found.classes == ("a", "b") and codes(found) == ["repeated-class"] and "nc is 2" in found.notes[0]
    assert [one.label for one in found.items[0].objects] == [0, 0]


def test_ids_that_start_at_one(tmp_path: Path) -> None:
    found = one(tmp_path, "1 .5 .5 .1 .1\n2 .5 .5 .1 .1\n")
    assert found.ids == (1, 2)
    assert codes(found) == ["ids-from-one"] and [one.label for one in found.items[0].objects] == [0, 1]
    found = one(tmp_path, "0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n")
    assert codes(found) == ["unknown-class"] and [one.label for one in found.items[0].objects] == [0]
    assert (found.problems[0].path, found.problems[0].line) == ("labels/1.txt", 2)
    assert not one(tmp_path, "1 .5 .5 .1 .1\n", description="train: images\nnames: {1: a, 2: b}\n").problems


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 .5 .5 .1 .1 .9", "bad-annotation"),
        ("0 .5 .5 .1", "bad-annotation"),
        ("0", "bad-annotation"),
        ("0 .5 .5 .1 x", "bad-annotation"),
        ("cat .5 .5 .1 .1", "bad-annotation"),
        ("0.5 .5 .5 .1 .1", "bad-annotation"),
        ("nan .5 .5 .1 .1", "bad-annotation"),
        ("inf .5 .5 .1 .1", "bad-annotation"),
        ("0 .5 .5 .1 nan", "not-finite"),
        ("0 .5 .5 .1 1e999", "not-finite"),
        ("0 .5 .5 .1 1e308", "bad-annotation"),
        ("0 .5 .5 -1e7 .1", "bad-annotation"),
        ("0 0 0 1 1 1 1 1", "bad-annotation"),
        ("-1 .5 .5 .1 .1", "unknown-class"),
        ("9" * 5000 + " .5 .5 .1 .1", "bad-annotation"),
        ("5 .5 .5 .1 .1", "unknown-class"),
        ("\x00\xff", "bad-annotation"),
    ],
)
def test_what_is_wrong_with_a_line_is_found_and_the_rest_read(tmp_path: Path, line: str, code: str) -> None:
    found = one(tmp_path, f"{BOX}{line}\n{BOX}")
    assert codes(found) == [code] and len(found.items[0].objects) == 2
    assert (found.problems[0].path, found.problems[0].line) == ("labels/1.txt", 2)


def test_predictions_are_no_labels(tmp_path: Path) -> None:
    assert "confidence" in one(tmp_path, "0 .5 .5 .1 .1 .9").problems[0].message


def test_an_image_that_cannot_be_read_has_no_objects(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    (tmp_path / "images/1.png").write_bytes(b"rubbish")
    found = read(tmp_path)
    assert codes(found) == ["unreadable-image"] and found.items[0].objects == ()


def test_labels_of_no_image(tmp_path: Path) -> None:
    made(tmp_path, {"labels/gone.txt": BOX, "labels/classes.txt": "x\n", "labels/2.txt": BOX, "notes/1.txt": "x"}, "images/2.png")
    found = one(tmp_path, BOX, description=f"train: images/1.txt\nval: images\n{NAMES}")
    assert [(problem.code, problem.path) for problem in found.problems] == [("unknown-image", "labels/gone.txt")]


@pytest.mark.parametrize(
    ("files", "image", "split", "classes"),
    [
        ({"labels/train/1.txt": "3 .5 .5 .1 .1"}, "images/train/1.png", "train", ("3",)),
        ({"valid/labels/1.txt": BOX, "classes.txt": "cat\ndog\n"}, "valid/images/1.png", "val", ("cat", "dog")),
        ({"1.txt": BOX, "classes.txt": "cat\n"}, "1.png", "", ("cat",)),
        ({"test/1.txt": BOX, "test/_darknet.labels": "cat\n"}, "test/1.png", "test", ("cat",)),
        ({"obj_train_data/1.txt": BOX, "obj.names": "cat"}, "obj_train_data/1.png", "train", ("cat",)),
    ],
)
def test_without_a_description(tmp_path: Path, files: Mapping[str, str], image: str, split: str, classes: tuple[str, ...]) -> None:
    found = open_annotations(made(tmp_path, files, image))
    assert (found.format, found.classes) == ("yolo", classes) and not found.problems
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(image, split, 1)]
    assert bool(found.notes) == (classes == ("3",))


@pytest.mark.parametrize(
    ("files", "image"),
    [
        ({"1.txt": "a cat on a mat"}, "1.png"),
        ({"1.txt": BOX}, "1.png"),
        ({"a/labels/1.txt": "a cat on a mat"}, "a/images/1.png"),
        ({"a.yaml": f"train: images\n{NAMES}"}, "images/1.png"),
        ({"docker.yml": "a: &a 1\nb: *a", "readme.txt": "x"}, "images/1.png"),
        ({"labels/2.txt": BOX}, "images/1.png"),
    ],
)
def test_what_is_no_yolo_set(tmp_path: Path, files: Mapping[str, str], image: str) -> None:
    assert yolo.fits(FolderTree(made(tmp_path, files, image))) == ()


def test_points_of_a_pose_are_left_out(tmp_path: Path) -> None:
    found = one(tmp_path, "0 .5 .5 .5 .25 .1 .1 .2 .2\n", description=f"train: images\nkpt_shape: [2, 2]\n{NAMES}")
    assert found.items[0].objects[0].box == (2.75, 6.375, 8.25, 10.625)
    assert yolo.fits(FolderTree(tmp_path)) == ("detect",)


LAUGHS = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS + NAMES + "train: images", "anchors"),
        (f"train: images\ntrain: images\n{NAMES}", "twice"),
        (f"train: !!python/object/apply:os.system [ls]\n{NAMES}", "plain"),
        ("train: [", "YAML"),
        ("[" * 1200, "YAML"),
        (b"train: \xff\n", "YAML"),
        ("\0", "YAML"),
        ("train: images\nnames: 5", "names must be"),
        ("train: images\nnames: {a: b}", "names must be"),
        ("train: images\nnames: [[a]]", "must name a class"),
        ("train: images\nnames: ['']", "must name a class"),
        ("train: images\nnc: -1", "nc must be"),
        ("train: images\nnc: 999999", "nc must be"),
        ("train: nowhere\nnc: 1", "there are none"),
        (b"#" * (1 << 20) + b"\n\n", "1 MiB"),
    ],
)
def test_descriptions_that_are_none(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        one(tmp_path, BOX, description=text)  # type: ignore[arg-type]
    assert "data.yaml" in caught.value.where and "\n" not in str(caught.value)
    if words == "YAML":
        with pytest.raises(UserError, match=words):
            open_annotations(tmp_path)


def test_nothing_is_labelled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no YOLO labels"):
        read(tmp_path)


@given(sets(yolo.HOLDS, "detect"))
def test_boxes_come_back_within_a_thousandth_of_a_pixel(drawn: Any) -> None:
    round_trip(drawn, "detect")


@given(sets(yolo.HOLDS, "instances"))
def test_outlines_come_back_within_a_thousandth_of_a_pixel(drawn: Any) -> None:
    round_trip(drawn, "instances")


def round_trip(drawn: Any, task: str) -> None:
    with folder() as place:
        source = with_split(on_disk(place / "in", task, drawn), "train")
        output = written(source, "yolo", place / "out")
        found = yolo.read(FolderTree(place / "out"), task)
        if task == "instances":  # an outline has no box of its own
            items = tuple(replace(item, objects=tuple(replace(one, box=None) for one in item.objects)) for item in source.items)
            source = replace(source, items=items)
        assert found.classes == source.classes and not found.problems and not found.notes
        assert close(plain(found, ndigits=9), plain(source, output, ndigits=9), 1e-3)
        assert open_annotations(place / "out").format == "yolo"


def test_precision_in_a_large_image() -> None:
    """Nine decimals at 50,000 pixels."""
    box, size = (12345.678, 0.001, 49999.999, 49999.5), (50_000, 50_000)
    with folder() as place:
        image = FolderTree(picture(place / "1.png", (17, 11)).parent).find("1.png")
        assert image
        item = Item(image, objects=(Object(0, box),))
        (line,) = yolo._lines(item, Annotations("made", "detect", ("a",), (item,), FolderTree(place)), size)
    again = yolo._object(yolo._line(line.split(), 1, False), 0, size, "detect").box
    assert again and np.abs(np.subtract(again, box)).max() < 1e-3


def test_what_is_written(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.png", (10, 20))
    tree = FolderTree(tmp_path / "in")
    image = tree.find("1.png")
    assert image
    mask = np.zeros((10, 20), bool)
    mask[1:3, 1:3] = mask[5:9, 10:18] = True
    small, large = (0.0, 0.0, 1.0, 0.0, 1.0, 1.0), (0.0, 0.0, 20.0, 0.0, 20.0, 10.0)
    drawn = [(small, large), run_lengths.from_mask(mask), None, (small[:4],)]
    objects = tuple(Object(1, (5, 5, 10, 10), shape) for shape in drawn)
    written(Annotations("made", "instances", ("no", "a: b"), (Item(image, objects=objects),), tree), "yolo", tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text()) == {"train": "images/train", "names": {0: "no", 1: "a: b"}}
    first, second, third, fourth = read(tmp_path / "out", "instances").items[0].objects
    assert first.shape == (large,)
    assert isinstance(second.shape, tuple) and min(second.shape[0][::2]) > 9  # the larger piece alone
    assert third.shape == fourth.shape == ((5, 5, 10, 5, 10, 10, 5, 10),)  # a box, in a set of outlines


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_one_line_or_findings(seed: int) -> None:
    files = {"data.yaml": f"path: .\ntrain: images\nval: [images, x]\nnc: 2\n{NAMES}", "labels/1.txt": BOX + "1 0 0 .5 .5 1 .1\n"}
    victim = sorted(files)[seed % 2]
    with folder() as place:
        made(place, files | {victim: mutated(files[victim].encode(), seed)}, "images/1.png")
        with contextlib.suppress(UserError):
            yolo.fits(FolderTree(place))
            assert all("\n" not in str(problem) for problem in read(place, "instances").problems)


def test_the_excerpt_of_coco(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    source = unpacked("coco-excerpt")
    assert yolo.fits(FolderTree(source)) == ()  # its labels lie in folders of other names
    shutil.copytree(source / "images", tmp_path / "images")
    shutil.copytree(source / "labels-detect", tmp_path / "labels")
    shutil.copy(source / "config-detect.yaml", tmp_path)
    found = open_annotations(tmp_path)
    assert (found.format, found.task, len(found.classes), found.problems) == ("yolo", "detect", 80, ())
    assert Counter(item.split for item in found.items) == {"train": 29, "val": 33}
    counts = Counter(item.split for item in found.items for _ in item.objects)
    assert counts == {"train": 192, "val": 227}
    assert [item.path for item in found.items if not item.objects] == ["images/train2017/000000000508.jpg"]
    for path in ("labels", "config-detect.yaml"):
        (shutil.rmtree if path == "labels" else Path.unlink)(tmp_path / path)
    shutil.copytree(source / "labels-instance", tmp_path / "labels")
    shutil.copy(source / "config-instance.yaml", tmp_path)
    found = open_annotations(tmp_path)
    assert (found.task, len(found.classes), found.classes[0]) == ("instances", 80, "person")
    assert sum(len(item.objects) for item in found.items if item.split == "val") == 228
