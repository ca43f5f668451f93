"""Confident learning: an example by hand, labels that were made wrong, and what a model says of a set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import saccade
from faulty_sets import clean
from saccade import data
from saccade.cli.main import main
from saccade.core.errors import UserError
from saccade.core.progress import Progress, Silent
from saccade.core.results import Classification
from saccade.data.annotations import Annotations
from saccade.data.doctor.doubts import check, doubted
from saccade.data.findings import KINDS
from saccade.data.opening import open_annotations


def test_by_hand() -> None:
    """Thresholds are the means 0.7 and 0.55: the last one's own class is unlikely, but the other does not reach its threshold."""
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    found = doubted(said, labels)
    assert found.place.tolist() == [5, 2] and found.confidence.tolist() == [0.1, 0.4] and found.instead.tolist() == [0, 1]


@pytest.mark.parametrize("k", [2, 5])
def test_labels_made_wrong_are_found(k: int) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, k, 3000)
    scores = rng.normal(0, 1, (3000, k)) + 4 * np.eye(k)[true]
    said = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = rng.random(3000) < 0.08
    labels = np.where(wrong, (true + rng.integers(1, k, 3000)) % k, true)
    found = doubted(said, labels)
    hit = wrong[found.place]
    assert hit.mean() > 0.85 and hit.sum() > 0.75 * wrong.sum()
    assert hit[:100].mean() > 0.98 and (np.diff(found.confidence) >= 0).all()
    assert (found.instead[hit] == true[found.place[hit]]).mean() > 0.95


def test_sure_models_and_odd_input() -> None:
    labels = np.array([0, 1, 1, 0])
    assert doubted(np.eye(2)[labels], labels).place.size == 0
    assert doubted(np.full((4, 2), 0.5), labels).place.size == 0
    said = np.eye(2)[labels]
    said[1] = np.nan
    said[2] = [1, 0]
    assert doubted(said, labels).place.tolist() == [2]
    assert doubted(np.zeros((0, 3)), np.zeros(0, int)).place.size == 0
    for bad in (np.zeros((4, 1)), np.zeros((3, 2)), np.zeros(4)):
        with pytest.raises(ValueError, match="must be"):
            doubted(bad, labels)


# What a model says of a set


class Fake:
    """Says of each image what a table has, in the order of the set; None: it cannot be read."""

    def __init__(self, said: Sequence[Sequence[float] | None], classes: tuple[str, ...] = ("owl", "cat", "dog", "fox")) -> None:
        self.said, self.classes = said, classes
        self.asked: list[Any] = []

    def predict_each(self, inputs: Iterator[Any], *, progress: Progress | None = None) -> Iterator[Any]:
        for source, row in zip(inputs, self.said, strict=True):
            self.asked.append(source)
            yield "cannot be read" if row is None else answer(row, self.classes)


def answer(row: Sequence[float], classes: tuple[str, ...]) -> Classification:
    said = np.array(row, np.float32)
    order = np.argsort(-said, kind="stable")
    return Classification(order, said[order], said, classes)


def labelled(n: int = 40) -> Annotations:
    """Images of cat and dog in turns."""
    items = tuple(replace(item, objects=(), labels=(i % 2,), where="", size=None) for i, item in enumerate(clean(n).items))
    return replace(clean(), task="classify", classes=("cat", "dog"), items=items)


def surely(labels: Sequence[int]) -> list[Sequence[float] | None]:
    """Of the model's classes owl, cat, dog, fox: the label's place is one further."""
    return [[0.01, *(0.95 if label == k else 0.03 for k in range(2)), 0.01] for label in labels]


def test_labels_that_a_model_contradicts() -> None:
    """Classes are matched by name; the most doubtful first; what cannot be read, or is of another class by a little, is not doubted."""
    made = labelled()
    said = surely([i % 2 for i in range(40)])
    said[4], said[9], said[12] = [0, 0.02, 0.97, 0.01], [0, 0.98, 0.001, 0.019], None
    said[14] = [0, 0.25, 0.75, 0]
    fake = Fake(said)
    found = check(made, fake, Silent())
    assert [str(one) for one in found] == [
        "009.png: labelled dog, the model says cat (0.98) [doubted-label]",
        "004.png: labelled cat, the model says dog (0.97) [doubted-label]",
    ]
    assert fake.asked == [f"nowhere/{i:03}.png" for i in range(40)]
    assert {one.severity for one in found} == {"warning"} and not KINDS["doubted-label"].repair
    assert check(made, Fake([None] * 40), Silent()) == []


def test_other_images_are_not_held_to_what_training_images_are() -> None:
    """Of those that it has learned from the model is surer: their mean would be out of reach of a wrong label elsewhere."""
    made = labelled(160)
    items = tuple(replace(item, split="train" if i < 80 else "val") for i, item in enumerate(made.items))
    said = [
        [0, *((1.0, 0.0) if i % 2 == 0 else (0.0, 1.0)), 0] if i < 80 else row for i, row in enumerate(surely([i % 2 for i in range(160)]))
    ]
    for i in range(80, 160):
        said[i] = [0.1, *((0.79, 0.01) if i % 2 == 0 else (0.01, 0.79)), 0.1]
    said[90], said[6] = [0.1, 0.03, 0.8, 0.07], [0, 0.03, 0.8, 0.17]
    found = check(replace(made, items=items), Fake(said), Silent())
    assert [str(one) for one in found] == ["090.png: labelled cat, the model says dog (0.80) [doubted-label]"]
    assert doubted(np.array(said)[:, 1:3], np.arange(160) % 2).place.size == 0, "nor would all together doubt it"


def test_a_model_that_knows_little_doubts_little() -> None:
    """Half of its answers are wrong, none of them sure: confident learning alone would doubt them."""
    rng = np.random.default_rng(1)
    rows = rng.dirichlet((3, 3), 40)
    said: list[Sequence[float] | None] = [[0, *row, 0] for row in rows.tolist()]
    assert doubted(rows, np.arange(40) % 2).place.size > 5
    assert check(labelled(), Fake(said), Silent()) == []


def test_what_is_refused() -> None:
    made = labelled()
    with pytest.raises(UserError, match=r"--run: the model has no class 'dog' \(its classes are cat, fox\)"):
        check(made, Fake([[0.5, 0.5]] * 40, ("cat", "fox")), Silent())
    with pytest.raises(UserError, match=r"one class each, and this set is for instances \(made\)"):
        check(clean(), Fake([]), Silent())
    with pytest.raises(UserError, match="one class each, and this set is for images of several labels"):
        check(replace(made, multi=True), Fake([]), Silent())

    class Other(Fake):
        def predict_each(self, inputs: Iterator[Any], *, progress: Progress | None = None) -> Iterator[Any]:
            yield SimpleNamespace(task="detect")

    with pytest.raises(UserError, match="must be a classifier, but is for detect"):
        check(made, Other([]), Silent())


def test_in_the_report_and_on_the_page(tmp_path: Path) -> None:
    """By doubt, with thumbnails; a repaired copy leaves them where they are."""
    root = tmp_path / "set"
    data.make("shapes", out=root, n=80, size=(16, 16))
    with_labels = open_annotations(root)
    classes = with_labels.classes
    labels = [item.labels[0] for item in with_labels.items]
    table = np.full((len(labels), len(classes)), 0.01)
    table[np.arange(len(labels)), labels] = 0.9
    sure = {60: 0.001, 5: 0.002, 30: 0.003}
    for index, own in sure.items():
        table[index] = own
        table[index, (labels[index] + 1) % len(classes)] = 0.95
    fake = Fake(table.tolist(), classes)
    facts = data.check(root, run=fake, out=tmp_path / "page.html", fix=tmp_path / "fixed")
    found = [one for one in facts["findings"] if one["code"] == "doubted-label"]
    assert [one["path"] for one in found] == [with_labels.items[index].path for index in sure]
    assert facts["counts"]["doubted-label"] == 3 and facts["warnings"] >= 3 and "doubted-label" not in facts["fixed"]["repaired"]
    text = (tmp_path / "page.html").read_text("utf-8")
    shown = json.loads(text.split("const facts = ", 1)[1].split(";\n", 1)[0])
    (group,) = [one for one in shown["groups"] if one["code"] == "doubted-label"]
    assert [row["image"] for row in group["rows"]] == list(sure) and all(str(index) in shown["thumbnails"] for index in sure)
    assert [item.labels for item in open_annotations(tmp_path / "fixed").items] == [item.labels for item in with_labels.items]


@pytest.mark.slow
def test_a_real_run_finds_files_that_were_moved(digits_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One in twenty digits of each split lies in another class's folder: of those that the run has not learned from most are found."""
    root = Path(shutil.copytree(digits_folder, tmp_path / "set"))
    rng = np.random.default_rng(0)
    classes = sorted(path.name for path in (root / "train").iterdir())
    moved = set()
    for path in sorted(root.glob("*/*/*.png")):
        if rng.random() < 0.05:
            other = classes[(classes.index(path.parent.name) + int(rng.integers(1, len(classes)))) % len(classes)]
            moved.add(path.rename(path.parents[1] / other / f"moved-{path.name}").relative_to(root).as_posix())
    run = saccade.train(root, out=tmp_path / "run", epochs=12, device="cpu", images=False)
    main(["data", "check", str(root), "--run", str(run.model), "--json", "--quiet"])
    facts = json.loads(capsys.readouterr().out)
    assert data.check(root, run=run)["findings"] == facts["findings"]
    found = {one["path"] for one in facts["findings"] if one["code"] == "doubted-label"}
    unseen = {path for path in moved if not path.startswith("train/")}
    assert len(found & moved) > 0.9 * len(found) and len(found & unseen) > 0.6 * len(unseen)
