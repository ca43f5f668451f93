"""`saccade data check`: what it prints, the code it ends with, the page and the repaired copy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from saccade import data
from saccade.cli.main import main
from saccade.core.errors import UserError

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("check") / "clean"
    data.make("shapes", out=out, task="detect", n=60, size=(48, 64), format="voc")
    return out


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """One box over the edge and one image that is no image."""
    out = tmp_path / "faulty"
    data.make("shapes", out=out, task="detect", n=60, size=(48, 64), format="voc")
    sheet = out / "Annotations/00003.xml"
    box = "<bndbox><xmin>50</xmin><ymin>3</ymin><xmax>90</xmax><ymax>20</ymax></bndbox>"
    sheet.write_text(sheet.read_text().replace("</size>", f"</size>\n\n<object>\n<name>ring</name>{box}</object>"))
    (out / "JPEGImages/00005.png").write_bytes(b"?")
    return out


def test_a_clean_set(clean: Path, capsys: Captured) -> None:
    assert main(["data", "check", str(clean), "--quiet"]) == 0
    assert "errors    0" in capsys.readouterr().out
    assert main(["data", "check", str(clean), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {}


def test_errors_are_shown_in_full_with_exit_code_2(faulty: Path, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.html"
    assert main(["data", "check", str(faulty), "--json", "--quiet", "--out", str(page)]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert (facts["errors"], facts["warnings"], facts["images"]) == (1, 1, 60)
    assert [(one["code"], one["path"], one["line"]) for one in facts["findings"]] == [
        ("unreadable-image", "JPEGImages/00005.png", None),
        ("box-over-edge", "Annotations/00003.xml", 9),
    ]
    assert facts["page"] == str(page) and page.read_text().startswith("<!doctype html>")
    assert main(["data", "check", str(faulty), "--quiet"]) == 2
    text = capsys.readouterr().out
    assert "Annotations/00003.xml:9: object 1 of JPEGImages/00003.png" in text and "box-over-edge" in text


def test_a_repaired_copy(faulty: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["data", "check", str(faulty), "--quiet", "--json", "--fix", str(tmp_path / "fixed")]) == 0
    fixed = json.loads(capsys.readouterr().out)["fixed"]
    assert fixed == {"path": str(tmp_path / "fixed"), "repaired": {"unreadable-image": 1, "box-over-edge": 1}, "errors_left": 0}
    facts = data.check(tmp_path / "fixed")
    assert (facts["findings"], facts["images"]) == ([], 59)
    assert main(["data", "check", str(faulty), "--quiet", "--fix", str(tmp_path / "again")]) == 0
    assert "repaired" in capsys.readouterr().out
    with pytest.raises(UserError, match="new or an empty folder"):
        data.check(faulty, fix=tmp_path / "fixed")


def test_errors_that_nothing_repairs(clean: Path, tmp_path: Path, capsys: Captured) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    (root / "JPEGImages/00004.png").write_bytes((root / "JPEGImages/00002.png").read_bytes())
    assert main(["data", "check", str(root), "--quiet", "--fix", str(tmp_path / "fixed")]) == 2
    assert "errors left  1" in capsys.readouterr().out


def test_images_alike_stay_in_one_split(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    for number in range(2, 60, 2):
        shutil.copy(root / f"JPEGImages/{number:05}.png", root / f"JPEGImages/{number + 1:05}.png")
    found = data.split(root, out=tmp_path / "a.splits.json", by="likeness", shares=(0.5, 0.25, 0.25))
    splits = json.loads((tmp_path / "a.splits.json").read_text())["splits"]
    split_of = {path[-9:-4]: name for name, paths in splits.items() for path in paths}
    assert all(split_of[f"{number:05}"] == split_of[f"{number + 1:05}"] for number in range(2, 60, 2))
    assert all(20 > count > 10 or count == 30 for count in found["splits"].values())


def test_archives_and_odd_names(clean: Path, tmp_path: Path, capsys: Captured) -> None:
    """Read in place, and written as a folder; a name that is no UTF-8 is said in a way that JSON holds."""
    packed = Path(shutil.make_archive(str(tmp_path / "set"), "zip", clean))
    assert data.check(packed)["findings"] == []
    assert main(["data", "check", str(packed), "--quiet", "--fix", str(tmp_path / "fixed")]) == 0
    assert data.check(tmp_path / "fixed")["images"] == 60
    odd = Path(shutil.copytree(clean, tmp_path / "odd"))
    (odd / "JPEGImages" / os.fsdecode(b"\xff 'a' \xc3\xa9.png")).write_bytes(b"?")
    (odd / "Annotations" / os.fsdecode(b"\xff 'a' \xc3\xa9.xml")).write_text("<annotation></annotation>")
    capsys.readouterr()
    assert main(["data", "check", str(odd), "--quiet", "--json", "--out", str(tmp_path / "page.html")]) == 2
    (found,) = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["severity"] == "error"]
    assert found["path"] == "JPEGImages/\\udcff 'a' é.png"
    assert main(["data", "check", str(odd), "--quiet"]) == 2


def test_a_run_that_is_none(clean: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["data", "check", str(clean), "--run", str(tmp_path / "none"), "--quiet"]) == 2
    assert "no such run or model" in capsys.readouterr().err
