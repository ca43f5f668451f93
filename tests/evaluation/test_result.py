"""Evaluation: what it shows, saves and says of its worst mistakes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from saccade.core.errors import UserError
from saccade.core.finish import classifications
from saccade.evaluation.evaluate import summarise
from saccade.evaluation.result import Evaluation
from saccade.tasks.classification.metrics import KEPT, ClassificationMetric


def evaluation(rows: list, truths: list[int], classes: tuple[str, ...], sources: list[str] | None = None) -> Evaluation:
    metric = ClassificationMetric(classes)
    found = classifications(
        np.array(rows, np.float32).reshape(-1, len(classes)), classes, [(17, 11)] * len(rows), sources or list("abcdefgh"[: len(rows)])
    )
    metric.update(found, truths)
    made = [metric.row(result, truth) for result, truth in zip(found, truths, strict=True)]
    return summarise(metric, made, task="classify", split="test", seconds=0.5)


WRONG = evaluation([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], [1, 1, 0, 1], ("cat", "dog"))


def test_mistakes_come_worst_first():
    worst = WRONG.mistakes()
    assert [one["source"] for one in worst] == ["b", "c", "a"]
    assert [one["margin"] for one in worst] == pytest.approx([0.8, 0.6, 0.2])
    assert [one["source"] for one in WRONG.mistakes(n=1)] == ["b"]
    assert WRONG.mistakes(0) == []
    assert "margin" not in WRONG.predictions[0]


def test_mistakes_without_scores_come_last():
    rows = [{"source": s, "truth": "cat", "label": "dog", "score": None, "correct": False} for s in "ba"]
    mixed = Evaluation("classify", "test", 3, {}, predictions=[*rows, *WRONG.predictions[:1]])
    assert [(one["source"], one["margin"]) for one in mixed.mistakes()] == [("a", pytest.approx(0.2)), ("a", None), ("b", None)]


def test_a_row_keeps_the_best_and_the_truth_and_gives_the_same_float32():
    k = 200
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(k, 0.1), 5).astype(np.float32)
    classes = tuple(f"{i:03d}" for i in range(k))
    for result in classifications(probabilities, classes, [(1, 1)] * 5, list("abcde")):
        last = int(result.labels[-1])
        scores = ClassificationMetric(classes).row(result, last)["scores"]
        assert len(scores) == KEPT + 1
        assert list(scores)[-1] == classes[last]
        assert all(np.float32(score) == result.probabilities[classes.index(name)] for name, score in scores.items())
        assert len(ClassificationMetric(classes).row(result, int(result.labels[0]))["scores"]) == KEPT


def test_to_dict_is_strict_json_and_is_what_save_writes(tmp_path):
    plain = WRONG.to_dict()
    assert list(plain) == ["task", "split", "images", "metrics", "intervals", "per_class"]
    assert plain["metrics"]["top5_accuracy"] is None
    assert plain["intervals"]["accuracy"] == list(WRONG.intervals["accuracy"])
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert json.loads(WRONG.save(tmp_path / "figures.json").read_text()) == plain
    with pytest.raises(UserError):
        WRONG.save(tmp_path / "none" / "figures.json")


def test_names_are_escaped_in_a_notebook():
    page = evaluation([[0.6, 0.4]], [1], ("<script>alert(1)</script>", "a&b"))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a&amp;b" in page
    assert "classify on test: 1 images, 2 images/s" in page


def test_a_long_class_list_is_cut_in_a_notebook():
    k = 60
    page = evaluation([np.full(k, 1 / k)], [0], tuple(f"name{i:03d}" for i in range(k)))._repr_html_()
    assert "the first 40 of 60 classes" in page
    assert "name039" in page
    assert "name040" not in page


@pytest.mark.parametrize(
    "classes", [("a", "b"), ("$\\frac$", "$x"), tuple(f"class {i}" for i in range(13)), tuple(f"{i}" for i in range(60))]
)
def test_plot_draws_with_any_names(classes: tuple[str, ...]):
    k = len(classes)
    figure = evaluation(np.eye(k)[:3].tolist(), [0, 1, 1][: min(k, 3)], classes).plot()
    figure.savefig(io.BytesIO(), format="png")
    assert figure.axes[0].get_title() == "Confusion"
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == list(classes) if k <= 40 else labels != list(classes)


def test_plot_without_scores_and_without_images():
    bare = ClassificationMetric(("a", "b"))
    bare.update_labels([0, 1], [1, 1])
    assert len(summarise(bare, [], task="classify", split="val", seconds=0).plot().axes) == 1
    empty = Evaluation("classify", "val", 0, {"accuracy": None})
    empty.plot().savefig(io.BytesIO(), format="png")
    assert empty.images_per_second is None
    assert "classify on val: 0 images" in empty._repr_html_()
