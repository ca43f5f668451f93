"""Predictions: what is written scores the same again; anybody's file is checked, each fault one line that says where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saccade.core.errors import UserError
from saccade.core.finish import classifications
from saccade.evaluation.evaluate import summarise
from saccade.evaluation.predictions import read_predictions, score, write_predictions
from saccade.evaluation.result import Evaluation
from saccade.tasks.classification.metrics import ClassificationMetric

CLASSES = ("bird", "cat", "dog")
TRUTHS = {"cat/1.png": 1, "dog/2.png": 2, "dog/3.png": 2}


def made(n: int, k: int, seed: int = 0) -> tuple[Evaluation, dict[str, int], tuple[str, ...]]:
    generator, classes = np.random.default_rng(seed), tuple(f"c{i:03d}" for i in range(k))
    probabilities = generator.dirichlet(np.full(k, 0.2), n).astype(np.float32) if n else np.zeros((0, k), np.float32)
    truths = {f"c{t:03d}/{i} é.png": int(t) for i, t in enumerate(generator.integers(0, k, n))}
    metric, found = ClassificationMetric(classes), classifications(probabilities, classes, [(1, 1)] * n, list(truths))
    metric.update(found, list(truths.values()))
    rows = [metric.row(result, truth) for result, truth in zip(found, truths.values(), strict=True)]
    return summarise(metric, rows, task="classify", split="val", seconds=1.0), truths, classes


def written(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows))
    return path


def scored(*rows: dict, truths: dict[str, int] = TRUTHS) -> Evaluation:
    return score(rows, truths, ClassificationMetric(CLASSES), split="test", where="mine.jsonl")


@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 2), (50, 3), (1500, 10), (60, 150)])
def test_what_is_written_scores_the_same_again(tmp_path: Path, n: int, k: int):
    evaluation, truths, classes = made(n, k)
    path = write_predictions(tmp_path / "run" / "predictions", evaluation)
    assert path == tmp_path / "run" / "predictions" / "val.jsonl"
    rows = read_predictions(path)
    assert rows == evaluation.predictions
    again = score(rows[::-1], truths, ClassificationMetric(classes), split="val")
    assert again.to_dict() == evaluation.to_dict()
    assert again.predictions == evaluation.predictions
    assert again.details == evaluation.details


def test_a_name_that_is_not_unicode_is_found_again(tmp_path: Path):
    rows = [{"source": "cat/\udcff.png", "truth": "cat", "label": "cat", "score": None, "correct": True}]
    path = write_predictions(tmp_path, Evaluation("classify", "val", 1, {}, predictions=rows))
    assert scored(*read_predictions(path), truths={"cat/\udcff.png": 1}).metrics["accuracy"] == 1


def test_labels_alone_give_accuracy_and_f1():
    found = scored(*({"source": source, "label": "dog"} for source in reversed(TRUTHS)))
    assert found.metrics == {
        "accuracy": pytest.approx(2 / 3),
        "top5_accuracy": None,
        "f1_macro": pytest.approx(0.4),
        "ece": None,
        "nll": None,
    }
    assert set(found.intervals) == {"accuracy", "f1_macro"}
    assert found.predictions[0] == {"source": "cat/1.png", "truth": "cat", "label": "dog", "score": None, "correct": False}
    assert [one["recall"] for one in found.per_class] == [None, 0, 1]


def test_classes_that_are_not_named_count_as_zero():
    found = scored({"source": "cat/1.png", "scores": {"dog": 0.75, "cat": 0.25}}, truths={"cat/1.png": 1})
    assert found.predictions[0]["scores"] == {"dog": 0.75, "cat": 0.25, "bird": 0.0}
    assert found.metrics["nll"] == pytest.approx(-np.log(0.25))


GOOD = [{"source": source, "label": "cat"} for source in TRUTHS]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (GOOD[:1], r"mine.jsonl: .*2 images missing, the first 'dog/2.png'.*such as 'cat/1.png'"),
        ([], "3 images missing"),
        ([*GOOD, GOOD[0]], "1 image predicted more than once, the first 'cat/1.png'"),
        ([*GOOD, {"source": "./cat/1.png", "label": "cat"}], "1 image unknown to the data, the first './cat/1.png'"),
        ([*GOOD[:2], {"source": "dog/3.png", "label": "Dog"}], "dog/3.png: unknown class 'Dog' .did you mean dog"),
        ([*GOOD[:2], {"source": "dog/3.png", "scores": {"dog": 1.0}}], "got 2 without, the first 'cat/1.png'"),
    ],
)
def test_rows_that_do_not_fit_the_data(rows: list[dict], text: str):
    with pytest.raises(UserError, match=text) as caught:
        scored(*rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        ({"scores": {"dog": 0.5}}, "true class 'cat'"),
        ({"scores": {"cat": 0.5, "cow": 0.5}}, "unknown class 'cow'"),
        ({"scores": {"cat": 0.9, "dog": 0.9}}, "sum to 1, got 1.8"),
        ({"scores": {"cat": 0.9, "dog": 0.1}, "label": "dog"}, "best score 'cat', got 'dog'"),
        ({"scores": {"cat": 0.9, "dog": 0.1}, "label": "cow"}, "best score 'cat', got 'cow'"),
    ],
)
def test_scores_that_do_not_fit(one: dict, text: str):
    with pytest.raises(UserError, match=f"mine.jsonl: cat/1.png: .*{text}"):
        scored({"source": "cat/1.png", **one}, truths={"cat/1.png": 1})


def test_a_tie_may_be_labelled_either_way():
    for label in ("cat", "dog"):
        found = scored({"source": "cat/1.png", "label": label, "scores": {"dog": 0.5, "cat": 0.5}}, truths={"cat/1.png": 1})
        assert found.predictions[0]["label"] == "cat"  # the lower class index, as everywhere


def test_another_task_cannot_be_scored():
    with pytest.raises(UserError, match="those of a classifier"):
        score([], {}, object(), split="val")  # type: ignore[arg-type]


def test_file_with_bom_blank_lines_and_further_keys(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"source": "a", "label": "cat", "note": 1}\r\n\r\n{"source": "b", "scores": {"cat": 1}}')
    assert read_predictions(path) == [{"source": "a", "label": "cat", "note": 1}, {"source": "b", "scores": {"cat": 1}}]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("nonsense", "not valid JSON"),
        ("[1]", "must be an object, got list"),
        ('{"label": "cat"}', "source must be a path, got nothing"),
        ('{"source": 7, "label": "cat"}', "source must be a path, got 7"),
        ('{"source": "a"}', "must have a label or scores, got neither"),
        ('{"source": "a", "label": 3}', "label must be the name of a class, got 3"),
        ('{"source": "a", "scores": [0.1, 0.9]}', "scores must be an object"),
        ('{"source": "a", "scores": {}}', "scores must be an object"),
        ('{"source": "a", "scores": {"cat": "0.9"}}', "'cat' must be a probability from 0 to 1"),
        ('{"source": "a", "scores": {"cat": true}}', "'cat' must be a probability"),
        ('{"source": "a", "scores": {"cat": -3.2}}', "got -3.2"),
        ('{"source": "a", "scores": {"cat": 1e999}}', "1e999 is not a number"),
        ('{"source": "a", "scores": {"cat": 1' + "0" * 400 + "}}", "'cat' must be a probability"),
        ('{"source": "a", "scores": {"cat": NaN}}', "not valid JSON"),
        ('{"source": "a", "scores": {"cat": 0.1, "cat": 0.9}}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, text: str):
    path = written(tmp_path, {"source": "ok", "label": "cat"}, line)
    with pytest.raises(UserError, match=text) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    with pytest.raises(UserError, match=r"^mine:2: "):
        read_predictions(path, "mine")


def test_files_that_cannot_be_read_or_written(tmp_path: Path):
    with pytest.raises(UserError, match="cannot read"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"must be a file|cannot read"):
        read_predictions(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        write_predictions(tmp_path / "file" / "predictions", made(1, 2)[0])
    (tmp_path / "bytes.jsonl").write_bytes(b'{"source": "\xff", "label": "cat"}\n')
    with pytest.raises(UserError, match=r"bytes.jsonl:1: not valid JSON"):
        read_predictions(tmp_path / "bytes.jsonl")
