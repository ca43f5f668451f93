"""Training on what data sets come as: archives, lists of splits; and a clear word for what cannot be learned from yet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import saccade
from saccade import data
from saccade.core.errors import UserError

OPTIONS = {"epochs": 1, "size": 16, "device": "cpu", "images": False}


def shapes(out: Path, task: str = "classify") -> Path:
    data.make("shapes", out=out, task=task, n=36, size=(16, 16))
    return out


def test_an_archive_and_a_list_of_splits_are_data_sets(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "set")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    data.split(folder, out=tmp_path / "my.splits.json", shares=(0.5, 0.25, 0.25))
    runs = [saccade.train(source, out=tmp_path / f"run{k}", **OPTIONS) for k, source in enumerate((folder, archive))]
    assert runs[0].metrics == runs[1].metrics
    listed = saccade.train(tmp_path / "my.splits.json", out=tmp_path / "run2", **OPTIONS)
    told = json.loads((tmp_path / "run2/run.json").read_text())["data"]
    assert told["path"] == str(tmp_path / "my.splits.json")
    assert {name: sum(counts) for name, counts in told["counts"].items()} == {"train": 18, "val": 12, "test": 6}
    assert listed.evaluate().images == 6
    archive.unlink()
    with pytest.raises(UserError, match="no such"):
        saccade.train(out=tmp_path / "run1", resume=True)
