"""Tables of boxes: columns of every name, rows that are wrong, formulas, round trips, hostile files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import close, codes, folder, mutated, on_disk, picture, plain, sets, written
from saccade.core.errors import UserError
from saccade.data import tables
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import csv_boxes
from saccade.data.opening import open_annotations
from saccade.data.tree import FolderTree

HEADER = "image,xmin,ymin,xmax,ymax,class\n"


def made(root: Path, files: Mapping[str, str | bytes], *pictures: str) -> Path:
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(value if isinstance(value, bytes) else value.encode())
    for name in pictures:
        picture(root / name, (17, 11))
    return root


def read(root: Path) -> Annotations:
    return csv_boxes.read(FolderTree(root), "detect")


def one(tmp_path: Path, text: str | bytes) -> Annotations:
    return read(made(tmp_path, {"a.csv": text}, "1.png"))


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "1.png,1,2,5,6,cat\n",
        "Filename,Width,Height,Class,XMin,YMin,XMax,YMax\n1.png,11,17,cat,1,2,5,6",
        "label;x1;y1;x2;y2;path\r\ncat;1;2;5;6;C:\\data\\1.png\r\n",
        "file_name\tx\ty\twidth\theight\tname\n./1.png\t1\t2\t4\t4\tcat\n",
        "image_path,left,top,right,bottom,category\n/home/me/1.png,1,2,5,6,cat\n",
        "\ufeffimage,left,top,width,height,label\n1.png,1,2,4,4,cat\n",
        '"image" , xmin, ymin, xmax, ymax, class\n1.png, 1, 2.0, 5, 6 , cat\n'.replace('" ,', '",'),
        "source,label,score,x1,y1,x2,y2,category_id\n1.png,cat,0.93,1,2,5,6,90\n",  # as `predict --format csv` writes it
        "1.png,1,2,5,6,cat\n",
        ",,,,,\n1.png,1,2,5,6,cat\n".replace(",,,,,", "1.png,,,,,"),
    ],
)
def test_columns(tmp_path: Path, text: str) -> None:
    found = open_annotations(made(tmp_path, {"a.csv": text}, "1.png"))
    assert (found.format, found.task, found.classes) == ("csv", "detect", ("cat",)) and not found.problems and not found.notes
    (item,) = found.items
    assert [(one.label, one.box) for one in item.objects] == [(0, (1, 2, 5, 6))]
    assert item.objects[0].line in (1, 2) and (item.size == (17, 11)) == ("Width" in text)


@pytest.mark.parametrize(
    "text",
    ["image,class\n1.png,cat\n", "cat,0\ndog,1\n", "a,b,c,d,e,f\n", "", "\n\n", "image,xmin,ymin,class\n", "\0\0", '"', "1.png,1,2,5,6,\n"],
)
def test_what_is_no_table_of_boxes(tmp_path: Path, text: str) -> None:
    assert csv_boxes.fits(FolderTree(made(tmp_path, {"a.csv": text}, "1.png"))) == ()
    with pytest.raises(UserError, match="no table of boxes"):
        read(tmp_path)


def test_splits_from_a_column_the_name_or_the_folder(tmp_path: Path) -> None:
    files = {
        "all.csv": "image,x1,y1,x2,y2,class,split\n1.png,1,2,3,4,a,valid\n2.png,1,2,3,4,b,Train\n1.png,,,,,,valid\n3.png,,,,,,",
        "b/test.csv": HEADER + "4.png,1,2,3,4,c\n",
        "valid/_annotations.csv": HEADER + "5.png,1,2,3,4,a\n",
    }
    found = read(made(tmp_path, files, "1.png", "2.png", "images/3.png", "b/images/4.png", "valid/5.png"))
    expected = [
        ("1.png", "val", 1),
        ("2.png", "train", 1),
        ("b/images/4.png", "test", 1),
        ("images/3.png", "", 0),
        ("valid/5.png", "val", 1),
    ]
    assert [(item.path, item.split, len(item.objects)) for item in found.items] == expected
    assert found.classes == ("a", "b", "c") and not found.problems


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("1.png,1,2,3,x,cat", "bad-annotation"),
        ("1.png,1,2,3,,cat", "bad-annotation"),
        ("1.png,1,2,3,4,", "bad-annotation"),
        ("1.png,1,2,3", "bad-annotation"),
        ("1.png,,,,,cat", "bad-annotation"),
        ("1.png,1,2,3,nan,cat", "not-finite"),
        ("1.png,1,2,3,1e999,cat", "not-finite"),
        ("1.png,1,2,3,1_0,cat", "bad-annotation"),
        ("gone.png,1,2,3,4,cat\ngone.png,1,2,3,4,cat", "missing-image"),
        (",1,2,3,4,cat", "missing-image"),
    ],
)
def test_what_is_wrong_with_a_row_is_found_and_the_rest_read(tmp_path: Path, row: str, code: str) -> None:
    found = one(tmp_path, f"{HEADER}1.png,1,2,3,4,cat\n{row}\n\n1.png,1,2,3,4,cat\n")
    assert codes(found) == [code] and len(found.items[0].objects) == 2
    assert (found.problems[0].path, found.problems[0].line) == ("a.csv", 3)


def test_an_image_of_two_tables_counts_once(tmp_path: Path) -> None:
    row = "1.png,1,2,3,4,cat\n"
    found = read(made(tmp_path, {"all.csv": HEADER + row, "train.csv": HEADER + row * 2}, "1.png"))
    assert codes(found) == ["repeated-image"] and len(found.items[0].objects) == 1


def test_fractions_are_asked_about(tmp_path: Path) -> None:
    assert "fractions" in one(tmp_path, HEADER + "1.png,0.1,0,1,1,cat\n").notes[0]
    assert not one(tmp_path, HEADER + "1.png,0,0,1,1,cat\n").notes


@pytest.mark.parametrize("tail", ['1.png,1,2,3,4,"cat\n', f"1.png,1,2,3,4,{'x' * 200_000}\n", '1.png,1,2,3,4,"a"b\n'])
def test_files_that_are_none(tmp_path: Path, tail: str) -> None:
    with pytest.raises(UserError, match="not a valid CSV") as caught:
        one(tmp_path, f"{HEADER}1.png,1,2,3,4,cat\n" * 2000 + tail)
    assert "a.csv, line" in caught.value.where


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "'=1", "''-1", "'quoted'", "a=1"])
def test_formulas_are_written_as_text_and_come_back(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "in/1.png", (17, 11))
    tree = FolderTree(tmp_path / "in")
    image = tree.find("1.png")
    assert image
    item = Item(image, "train", objects=(Object(0, (-1, 2, 5, 6)),))
    written(Annotations("made", "detect", (text,), (item,), tree), "csv", tmp_path / "out")
    line = (tmp_path / "out/annotations.csv").read_text().splitlines()[1]
    assert line.startswith("images/1.png,-1.0,2.0,5.0,6.0,")  # numbers stay numbers
    assert line.split(",")[5][0] not in "=+-@"
    assert read(tmp_path / "out").classes == (text,)


def test_a_formula_cannot_hide_behind_tab_or_return() -> None:
    assert tables.safe("\t=1") == "'\t=1" and tables.safe("\r=1") == "'\r=1"


@given(sets(csv_boxes.HOLDS, "detect"))
def test_boxes_come_back(drawn: Any) -> None:
    with folder() as place:
        source = on_disk(place / "in", "detect", drawn)
        output = written(source, "csv", place / "out")
        found = csv_boxes.read(FolderTree(place / "out"), "detect")
        assert not found.problems
        assert close(plain(found, ndigits=12), plain(source, output, ndigits=12), 0)
        assert open_annotations(place / "out").format == "csv"


@given(st.integers(0, 2**32))
def test_damaged_files_end_in_one_line_or_findings(seed: int) -> None:
    good = HEADER + '1.png,1,2,3.5,4,"a, b"\n1.png,,,,,\n2.png,1,2,3,4,cat\n'
    with folder() as place, contextlib.suppress(UserError):
        found = one(place, mutated(good.encode(), seed))
        assert all("\n" not in str(problem) for problem in found.problems)
