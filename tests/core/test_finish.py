"""core.finish: what a session gives, as results; an output that is not the card's is one line."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError

CLASSES = ("ant", "bee", "cat")
CARD = Card("classify", CLASSES, {"name": "toy"}, InputSpec(3, (17, 11)))


def run(rows: object, card: Card = CARD, **kwargs: object) -> list:
    count = len(rows)  # type: ignore[arg-type]
    return finish.results({"probabilities": rows}, card, [(17, 11)] * count, [f"{i}.png" for i in range(count)], **kwargs)


def test_labels_fall_by_score_and_ties_go_by_class_index():
    first, second = run(np.array([[0.2, 0.3, 0.5], [0.4, 0.2, 0.4]], np.float32), notes=[("grey",), ()])
    assert (first.label, first.labels.tolist(), first.source, first.size, first.notes) == ("cat", [2, 1, 0], "0.png", (17, 11), ("grey",))
    assert second.labels.tolist() == [0, 2, 1]
    assert second.scores.tolist() == pytest.approx([0.4, 0.4, 0.2])
    assert second.probabilities.tolist() == pytest.approx([0.4, 0.2, 0.4])


def test_ties_are_stable_among_many_classes():
    classes, levels = tuple(f"{i:03d}" for i in range(300)), np.arange(300) % 3
    rows = ((levels + 1) / 1000)[None].astype(np.float32)
    (found,) = run(rows, Card("classify", classes, {}, InputSpec(1, (8, 8))))
    assert found.labels.tolist() == [i for level in (2, 1, 0) for i in range(300) if levels[i] == level]


def test_anything_castable_goes_in():
    import torch

    for rows in ([[0.1, 0.2, 0.7]], np.array([[0.1, 0.2, 0.7]], np.float16), np.array([[0.1, 0.2, 0.7]]), torch.tensor([[0.1, 0.2, 0.7]])):
        (found,) = run(rows)
        assert found.label == "cat"
        assert found.probabilities.dtype == found.scores.dtype == np.float32


def test_empty_batch():
    assert run(np.zeros((0, 3), np.float32)) == []


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (np.ones((1, 4)) / 4, r"shape \(1, 3\).*got \(1, 4\)"),
        (np.ones((1, 3, 2)) / 3, r"got \(1, 3, 2\)"),
        (np.array([[0.5, np.nan, 0.5]]), "0.png: .*got NaN or infinity for 1 of 1"),
        (np.array([[0.2, 0.3, 0.5], [np.inf, 0, 0]]), "1.png: .*NaN or infinity for 1 of 2"),
        (np.array([[4.0, -3.0, 0.0]]), "0.png: .*-3 to 4.*softmax"),
        (np.array([[0.9, 0.9, 0.9]]), "sum 2.7"),
        ([["a", "b", "c"]], "must be numbers"),
    ],
)
def test_outputs_that_are_not_the_cards(rows: object, text: str):
    with pytest.raises(UserError, match=text) as caught:
        run(rows)
    assert "\n" not in str(caught.value)


def test_other_outputs_and_other_tasks():
    with pytest.raises(UserError, match="must give 'probabilities', it gives 'logits'"):
        finish.results({"logits": np.zeros((1, 3))}, CARD, [(1, 1)], ["a"])
    with pytest.raises(UserError, match="'poses'"):
        run(np.ones((1, 3)) / 3, Card("poses", CLASSES, {}, InputSpec(3, (8, 8))))
    with pytest.raises(UserError, match="shape"):
        run(np.ones((1, 0)), Card("classify", (), {}, InputSpec(3, (8, 8))))


def test_lists_of_different_lengths_are_our_defect():
    with pytest.raises(ValueError, match="equally many, got 2, 1 and 1"):
        finish.results({"probabilities": np.ones((1, 3)) / 3}, CARD, [(1, 1)] * 2, ["a"])
