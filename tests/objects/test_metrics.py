"""The room's figures: the best threshold, the confusion with the background and errors by kind, on cases counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.core.errors import UserError
from saccade.core.results import Detections
from saccade.data.sample import Objects
from saccade.objects.metrics import ObjectsMetric

CLASSES = ("a", "b")


def found(*rows: tuple[float, str, list[float]]) -> Detections:
    boxes = np.array([box for _, _, box in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for score, _, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([CLASSES.index(name) for _, name, _ in rows], np.int64), CLASSES, "x.png", (100, 100))


def there(*rows: tuple[str, list[float]], crowd: Any = (), difficult: Any = ()) -> Objects:
    boxes = np.array([box for _, box in rows], np.float64).reshape(-1, 4)
    flags = [np.array([place in chosen for place in range(len(rows))], bool) for chosen in (crowd, difficult)]
    return Objects(boxes, np.array([CLASSES.index(name) for name, _ in rows], np.int64), *flags)


ONE, TWO, FAR = [0.0, 0, 20, 20], [40.0, 40, 60, 60], [80.0, 0, 95, 15]
MOVED = [0.0, 8, 20, 28]  # overlaps ONE by 240 / 560


def metric(*pairs: tuple[Detections, Objects]) -> ObjectsMetric:
    made = ObjectsMetric(CLASSES)
    for result, truth in pairs:
        made.update([result], [truth])
    return made


def test_all_right() -> None:
    made = metric((found((0.9, "a", ONE), (0.8, "b", TWO)), there(("a", ONE), ("b", TWO))))
    figures = made.compute()
    assert [figures[name] for name in ("map", "map_50", "mar_100", "f1", "precision", "recall")] == pytest.approx([1] * 6)
    assert figures["threshold"] == pytest.approx(0.4), "between the last right one and nothing"
    assert figures["map_medium"] is None
    assert made.details()["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert set(made.details()["errors"].values()) == {0}
    assert made.details()["curves"] == [[1.0] * 101] * 2


def test_the_threshold_leaves_out_what_is_more_often_wrong() -> None:
    made = metric((found((0.9, "a", ONE), (0.5, "a", TWO), (0.3, "a", FAR)), there(("a", ONE), ("a", TWO))))
    figures = made.compute()
    assert figures["threshold"] == pytest.approx(0.4)
    assert (figures["precision"], figures["recall"], figures["f1"]) == pytest.approx((1, 1, 1))
    assert made.details()["errors"]["background"] == 0, "below the threshold nothing is told"


def test_rare_and_frequent_classes_by_themselves() -> None:
    made = metric((found((0.9, "a", ONE), (0.8, "b", FAR)), there(("a", ONE), ("b", TWO))))
    names = ("map_rare", "map_common", "map_frequent")
    assert not set(names) & set(made.compute())
    for images, values in (((10, 11), (1, 0, None)), ((101, 100), (None, 0, 1)), ((1, 5000), (1, None, 0))):
        made.by_frequency(images)
        assert tuple(made.compute()[name] for name in names) == pytest.approx(values), images
    for images in ((0, 5), (3, 4), (0, 0)):
        made.by_frequency(images)
        assert not set(names) & set(made.compute()), "where all are alike there is nothing to tell"
    assert made.compute()["map_voc07"] == made.compute()["map_voc12"] == pytest.approx(0.5)


def test_a_model_keeps_its_threshold() -> None:
    """That of other images: nothing is tuned on those that are measured."""
    pairs = [(found((0.9, "a", ONE), (0.5, "a", TWO), (0.3, "a", FAR)), there(("a", ONE), ("a", TWO)))]
    made = ObjectsMetric(CLASSES, 0.6)
    made.update(*map(list, zip(*pairs, strict=True)))  # type: ignore[arg-type]
    figures = made.compute()
    assert (figures["threshold"], figures["precision"], figures["recall"]) == pytest.approx((0.6, 1, 0.5))
    assert figures["f1"] == pytest.approx(2 / 3)
    assert made.per_class()[0]["recall"] == pytest.approx(0.5)
    assert made.details()["errors"]["missed"] == 1
    assert metric(*pairs).compute()["threshold"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ((0.9, "b", ONE), "classification"),
        ((0.9, "a", MOVED), "localization"),
        ((0.9, "b", MOVED), "both"),
        ((0.9, "a", FAR), "background"),
    ],
)
def test_kinds_of_error(wrong: tuple[float, str, list[float]], kind: str) -> None:
    """Beside a right one of the same score, so that both are told."""
    made = metric((found(wrong, (0.9, "a", TWO)), there(("a", ONE), ("a", TWO))))
    assert {name: count for name, count in made.details()["errors"].items() if count} == {kind: 1, "missed": 1}


def test_doubles_are_errors_and_crowds_are_not() -> None:
    made = metric((found((0.9, "a", ONE), (0.9, "a", ONE), (0.9, "a", TWO)), there(("a", ONE), ("a", TWO), crowd=[1])))
    assert {name: count for name, count in made.details()["errors"].items() if count} == {"duplicate": 1}
    assert made.compute()["recall"] == 1
    hard = metric((found((0.9, "a", ONE)), there(("a", ONE), ("a", TWO), difficult=[1])))
    assert hard.compute()["map"] == pytest.approx(1), "what is difficult need not be found"
    assert hard.per_class()[0]["objects"] == 1


def test_confusion_counts_objects() -> None:
    made = metric(
        (found((0.9, "b", ONE), (0.9, "a", FAR), (0.9, "a", TWO)), there(("a", ONE), ("a", TWO))),
        (found((0.9, "b", ONE)), there(("b", ONE), ("b", TWO))),
    )
    assert made.details()["confusion"] == [[1, 1, 0], [0, 1, 1], [1, 0, 0]], "rows: a, b, nothing there; columns: a, b, missed"


def test_per_class_at_one_threshold_for_all() -> None:
    made = metric((found((0.9, "a", ONE), (0.9, "b", FAR)), there(("a", ONE), ("b", TWO))))
    a, b = made.per_class()
    assert (a["map"], a["precision"], a["recall"], a["f1"]) == pytest.approx((1, 1, 1, 1))
    assert (b["map"], b["precision"], b["recall"], b["f1"]) == pytest.approx((0, 0, 0, 0))


def test_per_class_at_a_threshold_of_its_own() -> None:
    """Below 0.9 nothing of a is right, of b all is: together they are told best from between."""
    made = metric((found((0.9, "a", ONE), (0.5, "a", FAR), (0.4, "a", FAR), (0.3, "b", TWO)), there(("a", ONE), ("b", TWO))))
    a, b = made.per_class()
    assert [a[f"best_{name}"] for name in ("f1", "precision", "recall")] == [1, 1, 1]
    assert [b[f"best_{name}"] for name in ("f1", "precision", "recall")] == [1, 1, 1]
    assert 0.5 < a["best_threshold"] < 0.9 and 0 < b["best_threshold"] < 0.3
    none = metric((found((0.9, "a", ONE)), there(("a", ONE)))).per_class()[1]
    assert none["best_f1"] is none["best_threshold"] is None, "there is nothing of it to be found"


def test_nothing_at_all() -> None:
    assert set(ObjectsMetric(CLASSES).compute().values()) == {None}
    empty = metric((found(), there()))
    assert set(empty.compute().values()) == {None}
    missed = metric((found(), there(("a", ONE))))
    assert missed.compute()["map"] == missed.compute()["f1"] == 0
    assert missed.compute()["threshold"] is None
    assert missed.details()["errors"]["missed"] == 1
    invented = metric((found((0.9, "a", ONE)), there()))
    assert invented.compute()["map"] is None


def test_a_thousand_objects_and_images_that_are_all_crowd() -> None:
    corners = np.mgrid[0:40, 0:25].reshape(2, -1).T * 20.0
    many = [("a", [x, y, x + 15, y + 15]) for x, y in corners.tolist()]
    figures = metric((found(*((0.9, name, box) for name, box in many[:300])), there(*many))).compute()
    assert figures["mar_100"] == pytest.approx(0.1) and figures["recall"] == pytest.approx(0.3) and figures["precision"] == 1
    crowd = metric((found((0.9, "a", ONE)), there(("a", [0.0, 0, 90, 90]), crowd=[0])))
    assert crowd.compute()["map"] is None and crowd.details()["errors"]["background"] == 0, "what lies in a crowd is no error"
    assert sum(map(sum, crowd.details()["confusion"])) == 0


def test_weights_repeat_images() -> None:
    pairs = [
        (found((0.9, "a", ONE), (0.4, "b", FAR)), there(("a", ONE), ("b", TWO))),
        (found((0.7, "b", TWO)), there(("a", ONE))),
        (found((0.8, "a", MOVED)), there(("a", ONE))),
    ]
    weights = np.array([2, 0, 3])
    twice = metric(*[pair for pair, n in zip(pairs, weights, strict=True) for _ in range(n)])
    assert metric(*pairs).compute(weights) == pytest.approx(twice.compute())
    assert metric(*pairs).resamples == 1000


def test_a_row_is_all_that_a_report_needs() -> None:
    made = metric()
    row = made.row(found((0.9, "a", ONE)), there(("a", ONE), ("b", TWO), crowd=[1]))
    assert row["labels"] == ["a"] and row["truth"] == {"boxes": [ONE, TWO], "labels": ["a", "b"], "ignored": [False, True]}
    again = Detections.from_dict(row, CLASSES)
    assert again.to_dict() == found((0.9, "a", ONE)).to_dict()
    numbered = Detections.from_dict(row | {"category_ids": [7]}, CLASSES, (7, 90))
    assert numbered.to_dict()["category_ids"] == [7] and numbered.class_ids == (7, 90)
    with pytest.raises(UserError, match="its category_ids are not those of its labels"):
        Detections.from_dict(row | {"category_ids": [90]}, CLASSES, (7, 90))
