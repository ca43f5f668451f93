"""Answers written where earlier ones are: what belongs to those goes, what does not stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from saccade.api import predicting
from saccade.core import folders
from saccade.core.class_masks import Packed
from saccade.core.layers import Layers
from saccade.core.segmentation import Segmentation

CLASSES = ("sky", "sea")


def answers(*names: str, layers: bool = False) -> list[Segmentation]:
    packed = Packed.of(np.zeros((4, 6), np.uint8))
    kind = Layers if layers else Segmentation
    return [kind(packed, CLASSES, f"{name}.jpg", doubt=packed) for name in names]


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def test_masks_of_an_earlier_answer_go(tmp_path: Path) -> None:
    list(predicting._with_masks(iter(answers("a", "b", "c")), tmp_path))
    (tmp_path / "classes/notes.png").write_bytes(b"mine")
    (tmp_path / "classes/000007-link.png").symlink_to(tmp_path / "classes/notes.png")
    (tmp_path / "classes/000008-text.txt").write_bytes(b"mine")
    list(predicting._with_masks(iter(answers("b")), tmp_path))
    mine = ["classes/000007-link.png", "classes/000008-text.txt", "classes/notes.png"]
    assert written(tmp_path) == sorted([*mine, "classes/000000-b.png", "uncertainty/000000-b.png"])
    part = predicting._with_masks(iter(answers("x", "y")), tmp_path)
    next(part)
    part.close()  # type: ignore[attr-defined]
    assert "classes/000000-b.png" in written(tmp_path), "of what is not whole nothing is known to be stale"


def test_folders_of_layers_go_too(tmp_path: Path) -> None:
    list(predicting._with_masks(iter(answers("a", "b", layers=True)), tmp_path))
    assert len(written(tmp_path / "classes")) == 4
    (tmp_path / "classes/000001-b/notes.txt").write_bytes(b"mine")
    list(predicting._with_masks(iter(answers("a", layers=True)), tmp_path))
    assert {Path(one).parent.name for one in written(tmp_path / "classes") if one.endswith(".png")} == {"000000-a"}
    assert (tmp_path / "classes/000001-b/notes.txt").read_bytes() == b"mine"


def test_nothing_is_taken_away_where_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/000000-a.png").write_bytes(b"mine")
    assert list(predicting._with_masks(iter(()), tmp_path)) == []
    assert written(tmp_path) == ["classes/000000-a.png"]
    folders.clear(tmp_path / "none", ())
