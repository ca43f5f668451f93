"""The worst mistakes and their causes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from saccade.explanation.mistakes import worst


def row(source: str, truth: str, **scores: float) -> dict[str, Any]:
    label = max(scores, key=lambda name: scores[name])
    return {"source": source, "truth": truth, "label": label, "score": scores[label], "scores": scores, "correct": label == truth}


def test_worst_first_then_by_source_and_only_mistakes() -> None:
    rows = [
        row("d", "cat", cat=0.9, dog=0.1),
        row("b", "cat", cat=0.2, dog=0.8),
        row("c", "cat", cat=0.05, dog=0.95),
        row("a", "dog", cat=0.8, dog=0.2),
    ]
    assert [one["source"] for one in worst(rows, 10)] == ["c", "a", "b"]
    assert [one["source"] for one in worst(rows, 1)] == ["c"]
    assert worst(rows, 0) == worst(rows, -1) == worst([], 5) == []
    assert worst(rows, 1)[0]["truth_score"] == 0.05


def test_each_cause_in_plain_words() -> None:
    right = [row(f"r{i}", "cat", cat=0.9, dog=0.1) for i in range(23)]
    assert worst([row("x", "cat", cat=0.01, dog=0.99)], 1)[0]["cause"] == "confidently wrong (0.99): check the label"
    assert worst([row("x", "cat", cat=0.38, dog=0.41)], 1)[0]["cause"] == "unsure: 0.41 against 0.38"
    often = [row(f"x{i}", "cat", cat=0.2, dog=0.8) for i in range(7)]
    assert worst(right + often, 1)[0]["cause"] == "the two classes are often confused (7 of 30)"
    plain = worst([*right, row("x", "cat", cat=0.3, dog=0.7)], 1)[0]["cause"]
    assert plain == "looks more like dog: 0.70 against 0.30 for cat"


def test_size_is_a_cause_only_where_it_is_unusual() -> None:
    large = [{**row(f"r{i}", "cat", cat=0.9, dog=0.1), "size": [300, 400]} for i in range(5)]
    small = {**row("x", "cat", cat=0.3, dog=0.7), "size": [30, 40]}
    assert worst([*large, small], 1)[0]["cause"] == "small: 40x30 px"
    assert "small" not in worst([{**one, "size": [28, 28]} for one in [*large, small]], 1)[0]["cause"]


def test_causes_are_joined() -> None:
    rows = [row(f"x{i}", "cat", cat=0.01, dog=0.99) for i in range(3)]
    assert worst(rows, 1)[0]["cause"] == "confidently wrong (0.99): check the label; the two classes are often confused (3 of 3)"


@pytest.mark.parametrize("scores", [None, {}])
def test_answers_without_scores(scores: object) -> None:
    rows = [{"source": "a", "truth": "cat", "label": "dog", "score": None, "scores": scores}, row("b", "cat", cat=0.3, dog=0.7)]
    found = worst(rows, 5)
    assert [one["source"] for one in found] == ["b", "a"]
    assert found[1]["truth_score"] is None
    assert found[1]["cause"] == "no plain cause"


def test_a_truth_that_the_scores_do_not_name() -> None:
    assert worst([row("a", "owl", cat=0.6, dog=0.3, eel=0.1)], 1)[0]["cause"]


@pytest.mark.processes
def test_no_torch() -> None:
    code = "import sys, saccade.explanation.mistakes, saccade.explanation.overlay; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
