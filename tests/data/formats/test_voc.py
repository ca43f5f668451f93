"""Pascal VOC: layouts and lists of splits, where pixels count from, what is wrong in an XML, round trips, hostile XML, a real set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, written
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import voc
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree


def thing(name: str = "cat", edges: Any = (1, 2, 5, 6), more: str = "") -> str:
    box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=False))
    return f"<object>\n<name>{name}</name><bndbox>{box}</bndbox>{more}</object>\n"


def xml(*objects: str, head: str = "<filename>x.jpg</filename><size><width>11</width><height>17</height></size>") -> str:
    return f"<annotation>\n{head}\n{''.join(objects)}</annotation>"


def made(root: Path, files: Mapping[str, str | bytes], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(value if isinstance(value, bytes) else value.encode())
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def read(root: Path) -> Annotations:
    return voc.read(FolderTree(root), "detect")


def one(tmp_path: Path, text: str | bytes) -> Annotations:
    return read(made(tmp_path, {"1.xml": text}, "1.png"))


def test_boxes_count_from_one_and_hold_their_last_pixel(tmp_path: Path) -> None:
    found = one(tmp_path, xml(thing(), thing("a dog", (1.5, 2, 11, 17), "<difficult>1</difficult><part><name>x</name></part>")))
    assert found.classes == ("a dog", "cat") and not found.notes and not found.problems
    assert found.items[0].objects == (
        Object(1, (0, 1, 5, 6), line=3),
        Object(0, (0.5, 1, 11, 17), difficult=True, line=5),
    )
    assert (found.items[0].size, found.items[0].where) == ((17, 11), "1.xml")


@pytest.mark.parametrize("edges", [(0, 3, 5, 6), (3, 0, 5, 6), (0.5, 3, 5, 6)])
def test_an_edge_at_zero_tells_for_the_whole_set(tmp_path: Path, edges: Any) -> None:
    root = made(tmp_path, {"1.xml": xml(thing()), "2.xml": xml(thing(edges=edges))}, "1.png", "2.png")
    found = read(root)
    assert [item.objects[0].box for item in found.items] == [(1, 2, 5, 6), edges]
    assert "counted from 0" in found.notes[0]


def test_edges_before_the_image_tell_nothing(tmp_path: Path) -> None:
    assert one(tmp_path, xml(thing(edges=(-3, 1, 4, 4)))).items[0].objects[0].box == (-4, 0, 4, 4)


@pytest.mark.parametrize(
    ("sheet", "image", "split"),
    [
        ("Annotations/1.xml", "JPEGImages/1.png", ""),
        ("Annotations/1.xml", "images/1.png", ""),
        ("Annotations/1.xml", "1.png", ""),
        ("VOCdevkit/VOC2007/Annotations/1.xml", "VOCdevkit/VOC2007/JPEGImages/1.png", ""),
        ("train/1.xml", "train/1.png", "train"),
        ("valid/a.b.XML", "valid/a.b.PNG", "val"),
        ("xml/test/1.xml", "pictures/test/1.png", "test"),
        ("Annotations/other.xml", "JPEGImages/x.jpg", ""),
        ("Annotations/ä '\".xml", "JPEGImages/ä '\".png", ""),
    ],
)
def test_layouts(tmp_path: Path, sheet: str, image: str, split: str) -> None:
    found = open_annotations(made(tmp_path, {sheet: xml(thing())}, image))
    assert (found.format, found.task) == ("voc", "detect")
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == [(image, split, 1)] and not found.problems


def test_lists_of_splits(tmp_path: Path) -> None:
    lists = {"train": "1\n2  1\n", "val": "3 -1\r\na b\n\n", "trainval": "1\n2\n3\na b\n5\n", "test": "4", "cat_train": "9 1"}
    files = {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()}
    names = ["1", "2", "3", "4", "5", "6", "a b"]
    made(tmp_path, files | {f"Annotations/{name}.xml": xml() for name in names}, *(f"JPEGImages/{name}.png" for name in names))
    found = read(tmp_path)
    assert [item.split for item in found.items] == ["train", "train", "val", "test", "train", "", "val"] and not found.problems
    (tmp_path / "ImageSets/Main/test.txt").write_text("4\n1\ngone\n")
    assert [(str(problem).partition(":")[0], problem.line, problem.code) for problem in read(tmp_path).problems] == [
        ("ImageSets/Main/test.txt", 2, "repeated-image"),
        ("ImageSets/Main/test.txt", 3, "missing-image"),
    ]


def test_two_years_keep_their_own_lists(tmp_path: Path) -> None:
    files = {}
    for year, split in (("2007", "train"), ("2012", "val")):
        files |= {f"VOC{year}/Annotations/1.xml": xml(thing()), f"VOC{year}/ImageSets/Main/{split}.txt": "1\n"}
    found = read(made(tmp_path, files, "VOC2007/JPEGImages/1.png", "VOC2012/JPEGImages/1.png"))
    assert [item.split for item in found.items] == ["train", "val"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (thing(" "), "bad-annotation"),
        (thing(edges=(1, 2, 3)), "bad-annotation"),
        (thing(edges=(1, 2, 3, "x")), "bad-annotation"),
        (thing(edges=(1, 2, 3, "")), "bad-annotation"),
        (thing(edges=(1, 2, 3, "1_0")), "bad-annotation"),
        (thing(edges=(1, 2, 3, "nan")), "not-finite"),
        (thing(edges=(1, 2, 3, "-inf")), "not-finite"),
        (thing(edges=(1, 2, 3, "1e999")), "not-finite"),
        ("<object/>", "bad-annotation"),
        ("<object><name>cat</name></object>", "bad-annotation"),
    ],
)
def test_what_is_wrong_with_an_object_is_found_and_the_rest_read(tmp_path: Path, text: str, code: str) -> None:
    found = one(tmp_path, xml(thing(), text, thing()))
    assert codes(found) == [code] and [one.box for one in found.items[0].objects] == [(0, 1, 5, 6)] * 2
    assert found.problems[0].path == "1.xml" and found.problems[0].line == (5 if text.startswith("<object>\n") else 0)


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>" + xml(thing("&b;"))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB.encode("utf-16"),
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>" + xml(),
        "<annotation>",
        "<annotation>" + "<a>" * 100_000,
        b"<annotation>\xff</annotation>",
        b"<?xml version='1.0' encoding='klingon'?><annotation/>",
        "",
        "<annotation>&x;</annotation>",
    ],
)
def test_what_is_no_plain_xml_is_found(tmp_path: Path, text: str | bytes) -> None:
    found = read(made(tmp_path, {"1.xml": text, "2.xml": xml(thing())}, "1.png", "2.png"))
    assert codes(found) == ["bad-annotation"] and [item.path for item in found.items] == ["2.png"]


def test_other_xml_is_passed_over_and_images_without_one_are_counted(tmp_path: Path) -> None:
    found = read(made(tmp_path, {"1.xml": xml(), "pom.xml": "<project/>", "gone.xml": xml()}, "1.png", "2.png"))
    assert [item.path for item in found.items] == ["1.png"] and codes(found) == ["missing-image"]
    assert found.notes == ("1 images without an annotation file that names them are left out",)


def test_two_xmls_of_one_image(tmp_path: Path) -> None:
    found = read(made(tmp_path, {"a/1.xml": xml(thing()), "b/1.xml": xml()}, "a/1.png"))
    assert codes(found) == ["repeated-image"] and len(found.items[0].objects) == 1


def test_nothing_there(tmp_path: Path) -> None:
    assert voc.fits(FolderTree(tmp_path)) == ()
    with pytest.raises(UserError, match="no VOC"):
        read(tmp_path)


@given(sets(voc.HOLDS, "detect"))
def test_boxes_come_back_within_a_billionth_of_a_pixel(drawn: Any) -> None:
    with folder() as place:
        source = on_disk(place / "in", "detect", drawn)
        output = written(source, "voc", place / "out")
        found = voc.read(FolderTree(place / "out"), "detect")
        assert set(found.classes) == {source.classes[one.label] for item in source.items for one in item.objects}
        assert not found.problems and not found.notes
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 1e-9)
        assert open_annotations(place / "out").format == "voc"


def test_what_is_written(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.png", (17, 11))
    tree = FolderTree(tmp_path / "in")
    image = tree.find("1.png")
    assert image
    objects = (Object(0, (0, 0.5, 11, 17), difficult=True), Object(0, (-0.5, -1, 3, 3)), Object(0, (-3, 2, 4, 4)))
    names = (os.fsdecode(b"<\xff\x01&>"),)
    written(Annotations("made", "detect", names, (Item(image, "val", objects=objects),), tree), "voc", tmp_path / "out")
    text = (tmp_path / "out/Annotations/1.xml").read_text()
    assert "<xmin>1</xmin>\n\t\t\t<ymin>1.5</ymin>\n\t\t\t<xmax>11</xmax>\n\t\t\t<ymax>17</ymax>" in text
    assert "<width>11</width>\n\t\t<height>17</height>" in text and "<name>&lt;??&amp;&gt;</name>" in text
    assert (tmp_path / "out/ImageSets/Main/val.txt").read_text() == "1\n"
    found = read(tmp_path / "out")
    assert [one.box for one in found.items[0].objects] == [(0, 0.5, 11, 17), (0, 0, 3, 3), (-3, 2, 4, 4)]
    assert not found.notes  # a box that starts before the image does not make the set one that counts from 0


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_findings(seed: int) -> None:
    good = xml(thing(), thing("dog", (1.5, 2, 3, 4), "<difficult>1</difficult>"), head="<?xml version='1.0'?><filename>x</filename>")
    with folder() as place:
        found = read(made(place, {"1.xml": mutated(good.encode(), seed), "2.xml": xml()}, "1.png", "2.png"))
        assert len(found.items) + len(found.problems) >= 2 or len(found.items) == 1
        assert all("\n" not in str(problem) for problem in found.problems)


def test_blood_cells(unpacked: Callable[[str], Path]) -> None:
    found = open_annotations(unpacked("bccd"))
    assert (found.format, found.task, found.classes) == ("voc", "detect", ("Platelets", "RBC", "WBC"))
    counts = Counter(found.classes[one.label] for item in found.items for one in item.objects)
    assert counts == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert Counter(item.split for item in found.items) == {"train": 205, "val": 87, "test": 72}
    assert not found.problems and not found.notes and all(item.size == (480, 640) for item in found.items)
    assert all(one.line for item in found.items for one in item.objects)
