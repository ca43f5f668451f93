"""Tables of labels: columns of many names, several labels, a column for each class, what cannot be right, round trips."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.labelled import CLASSES, codes, folder, labelled_sets, mutated, picture, said, written
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations
from saccade.data.converting import convert
from saccade.data.formats import table
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.tree import FolderTree


def made(root: Path, tables: dict[str, str | bytes], *images: str) -> Path:
    for name in images or ("1.png", "2.png", "3.png"):
        picture(root / name, (17, 11))
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def labels(found: Annotations) -> dict[str, list[str]]:
    return {item.path: [found.classes[label] for label in item.labels] for item in found.items}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n1.png,cat\n2.png,dog\n",
        "label;filename\ncat;1.png\ndog;2.png\n",
        "Id\tSpecies\n1\tcat\n2\tdog\n",
        "image_id,label\n1,cat\n2,dog\n",
        "\ufeffFile Name,Class\n1.png,cat\n2.png,dog\n",
        "path,class_name,label\nC:\\photos\\1.png,cat,0\n/home/x/2.png,dog,1\n",
        "1.png,cat\n2.png,dog\n",
        "image,labels\n1.png,cat\n2.png,dog\n",
        "image,width,cat,dog\n1.png,11,1,0\n2.png,11,0,1\n".replace("width,", "").replace(",11,", ","),
        "image,label\r\n1.png,cat\r\n\r\n2.png,dog",
    ],
)
def test_one_class_each_by_columns_of_many_names(tmp_path: Path, text: str) -> None:
    found = open_annotations(made(tmp_path, {"train.tsv" if "\t" in text else "train.csv": text}))
    assert (found.format, found.task, found.multi, found.problems) == ("table", "classify", False, ())
    assert labels(found) == {"1.png": ["cat"], "2.png": ["dog"]} and {item.split for item in found.items} == {"train"}
    assert found.notes == ("1 images without an annotation file that names them are left out",)


@pytest.mark.parametrize(
    "text",
    [
        'image,labels\n1.png,"[""cat"", ""dog""]"\n2.png,[]\n3.png,"[""dog""]"\n',
        "image,labels\n1.png,\"['cat', 'dog']\"\n2.png,[]\n3.png,['dog']\n",
        "image,tags\n1.png,cat|dog\n2.png,\n3.png,dog\n",
        "image,tags\n1.png,cat; dog\n2.png,\n3.png,dog\n",
        'image,tags\n1.png,"cat, dog"\n2.png,\n3.png,dog\n',
        "image,labels\n1.png,cat\n1.png,dog\n2.png,\n3.png,dog\n",
        "image,cat,dog\n1.png,1,1\n2.png,0,0\n3.png,0,1\n",
        "image,cat,dog\n1.png,1.0,1.0\n2.png,-1,-1\n3.png,False,TRUE\n",
    ],
)
def test_several_labels(tmp_path: Path, text: str) -> None:
    found = open_annotations(made(tmp_path, {"labels.csv": text}))
    assert found.multi and not found.problems and found.classes == ("cat", "dog")
    assert labels(found) == {"1.png": ["cat", "dog"], "2.png": [], "3.png": ["dog"]}
    assert open_dataset(tmp_path).targets.tolist() == [[True, True], [False, False], [False, True]]


def test_splits_by_a_column_by_tables_and_by_folders(tmp_path: Path) -> None:
    found = open_annotations(made(tmp_path / "1", {"labels.csv": "image,label,split\n1.png,a,train\n2.png,a,valid\n3.png,b,\n"}))
    assert [item.split for item in found.items] == ["train", "val", ""]
    tables: dict[str, str | bytes] = {"train.csv": "image,label\n1.png,a\n", "test.csv": "image,label\n1.png,b\n"}
    found = open_annotations(made(tmp_path / "2", tables, "train/1.png", "test/1.png"))
    assert [(item.path, item.split, found.classes[item.labels[0]]) for item in found.items] == [
        ("test/1.png", "test", "b"),
        ("train/1.png", "train", "a"),
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("image,label\n1.png,\n2.png,a\n", ["bad-annotation"]),
        ("image,label\n9.png,a\n2.png,a\n", ["missing-image"]),
        ("image,label\n1.png,a\n1.png,b\n", ["conflicting-labels"]),
        ("image,label\n1.png,a\n1.png,a\n", ["repeated-image"]),
        ("image,label\n1.png,a\n2.png\n", ["bad-annotation"]),
        ("image,a,b\n1.png,1,0\n2.png,1,0\n3.png,0\n", ["bad-annotation"]),
        ('image,labels\n1.png,"[""a""]"\n2.png,[1e999]\n', ["bad-annotation"]),
    ],
)
def test_what_cannot_be_right_is_found_and_the_rest_read(tmp_path: Path, text: str, wanted: Sequence[str]) -> None:
    found = table.read(FolderTree(made(tmp_path, {"labels.csv": text})), "classify")
    assert codes(found) == wanted
    assert all(problem.path == "labels.csv" and problem.line for problem in found.problems)
    assert 1 <= len(found.items) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n",
        "image,label\n8.png,a\n9.png,b\n",
        "image,age\n1.png,20\n2.png,31\n",
        "image,x1,y1,x2,y2,class\n1.png,1,2,3,4,a\n",
        "",
    ],
)
def test_tables_of_other_kinds_are_none(tmp_path: Path, text: str) -> None:
    fits = table.fits(FolderTree(made(tmp_path, {"a.csv": text})))
    assert fits == (("classify",) if text == "image,label\n" else ())


def test_a_form_for_answers_is_no_table_of_labels(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {"train.csv": "id,label\n1,a\n", "sample_submission.csv": "id,label\n2,a\n3,a\n"}
    assert labels(open_annotations(made(tmp_path, tables))) == {"1.png": ["a"]}


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no table of labels") as caught:
        open_annotations(made(tmp_path, {}), format="table")
    assert "image, label" in caught.value.fix


@pytest.mark.parametrize("multi", [False, True])
@given(data=st.data())
def test_labels_come_back(multi: bool, data: Any) -> None:
    with folder() as place:
        source = data.draw(labelled_sets(place / "in", multi=multi))
        output = written(source, "table", place / "out")
        found = table.read(FolderTree(place / "out"), "classify")
        assert not found.problems and said(found) == said(source, output)
        assert found.multi == multi or not any(len(item.labels) != 1 for item in source.items)
        assert open_annotations(place / "out").format == "table"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_any_name_is_no_formula_and_comes_back(tmp_path: Path, name: str) -> None:
    found = open_annotations(made(tmp_path / "in", {"labels.csv": "image,label\n1.png,a\n"}))
    written(replace(found, classes=(name,)), "table", tmp_path / "out")
    line = (tmp_path / "out/labels.csv").read_text().splitlines()[1]
    assert line.split(",")[1][0] not in "=+-@"
    assert open_annotations(tmp_path / "out").classes == (name,)


def test_one_of_several_labels_in_a_folder_is_said_to_be_lost(tmp_path: Path) -> None:
    made(tmp_path / "in", {"labels.csv": "image,labels\n1.png,a|b\n2.png,\n3.png,b\n"})
    lost = convert(tmp_path / "in", tmp_path / "out", to="folder")["lost"]
    assert lost == [{"what": "further labels of an image", "count": 1}, {"what": "images without a label", "count": 1}]


@given(st.integers(0, 2**32))
def test_damaged_tables_end_in_one_line_or_findings(seed: int) -> None:
    good = 'image,labels,split\n1.png,"[""a"", ""b""]",train\n2.png,[],\n3.png,"[""c""]",val\n'
    with folder() as place, contextlib.suppress(UserError):
        found = table.read(FolderTree(made(place, {"labels.csv": mutated(good.encode(), seed)})), "classify")
        assert all("\n" not in str(problem) for problem in found.problems)
