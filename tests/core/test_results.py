"""What predict returns: checked, there and back through JSON, drawn, saved."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.core.errors import UserError
from saccade.core.results import Classification

CLASSES = ("a", "b", "c")


def result(scores: tuple[float, ...] = (0.25, 0.5, 0.125), classes: tuple[str, ...] = CLASSES, **more: Any) -> Classification:
    probabilities = np.array(scores, np.float32)
    labels = np.argsort(-probabilities, kind="stable")
    return Classification(labels, probabilities[labels], probabilities, classes, **more)


def equal(first: Classification, second: Classification) -> bool:
    arrays = all(np.array_equal(getattr(first, n), getattr(second, n)) for n in ("labels", "scores", "probabilities"))
    return arrays and all(getattr(first, n) == getattr(second, n) for n in ("classes", "source", "size", "notes"))


def test_fields() -> None:
    one = result()
    assert one.label == "b" and one.score == 0.5 and one.task == "classify"
    assert one.to_dict() == {
        "source": "",
        "task": "classify",
        "label": "b",
        "score": 0.5,
        "labels": ["b", "a", "c"],
        "scores": [0.5, 0.25, 0.125],
        "size": [0, 0],
    }


@pytest.mark.parametrize(
    "one",
    [result(), result(source="ä/ß.jpg", size=(17, 11), notes=("turned by EXIF",)), result((1.0,), ("only",)), result((0.1, 0.1, 0.1))],
)
def test_round_trip_through_json(one: Classification) -> None:
    back = Classification.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)), one.classes)
    assert equal(one, back)
    assert (back.labels.dtype, back.scores.dtype, back.probabilities.dtype) == (np.int64, np.float32, np.float32)


def test_a_round_trip_keeps_every_bit_of_a_score() -> None:
    scores = np.random.Generator(np.random.Philox(0)).dirichlet(np.ones(50)).astype(np.float32)
    one = result(tuple(scores.tolist()), tuple(f"c{i}" for i in range(50)))
    assert equal(one, Classification.from_dict(json.loads(json.dumps(one.to_dict())), one.classes))


@pytest.mark.parametrize("name", ["labels", "scores", "probabilities"])
def test_shapes_must_agree(name: str) -> None:
    with pytest.raises(ValueError, match="shape"):
        replace(result(), **{name: getattr(result(), name)[:2]})
    with pytest.raises(ValueError, match="shape"):
        replace(result(), classes=("a", "b"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["scores", "probabilities"])
def test_figures_must_be_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        replace(result(), **{name: np.array([value, 0, 0], np.float32)})


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["a", "b"]},
        {"labels": ["a", "b", "d"]},
        {"labels": ["a", "a", "b"]},
        {"labels": []},
        {"labels": [1, 2, 3]},
        {"labels": None},
        {"labels": [None, "a", 1]},
        {"scores": [0.5]},
        {"scores": [0.5, 0.25, 0.125, 0]},
        {"scores": None},
        {"scores": ["x", "y", "z"]},
        {"scores": [float("nan"), 0, 0]},
        {"scores": [[0.5], [0.2], [0.1]]},
        {"size": [1]},
        {"size": None},
        {"size": "ab"},
    ],
)
def test_what_is_no_result_is_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        Classification.from_dict(result(source="x.png").to_dict() | change, CLASSES)
    assert str(caught.value).startswith("x.png: ")


@pytest.mark.parametrize("missing", ["labels", "scores"])
def test_what_lacks_a_part_is_refused(missing: str) -> None:
    raw = result().to_dict()
    del raw[missing]
    with pytest.raises(UserError, match=missing):
        Classification.from_dict(raw, CLASSES)


class Tags(HTMLParser):
    """The names of all tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_escaped() -> None:
    name = "<script>alert('1')</script>&amp;"
    page = Tags(result((0.25, 0.75), (name, "b"), source=f"{name}.png")._repr_html_())
    assert page.tags == {"table", "caption", "tr", "td"}
    assert page.text == f"{name}.pngb0.750{name}0.250"
    assert result(tuple([0.1] * 9), tuple("abcdefghi"))._repr_html_().count("<tr>") == 5


@pytest.mark.parametrize("classes", [("only",), CLASSES, tuple(f"c{i}" for i in range(12)), ("$\\frac{$", "a$b$", "x_^{")])
def test_plot_shows_the_best_by_name(classes: tuple[str, ...], tmp_path: Path) -> None:
    scores = tuple(1 / (i + 2) for i in range(len(classes)))
    figure = result(scores, classes).plot()
    figure.savefig(tmp_path / "plot.png")
    axes = figure.axes[0]
    best = classes[:5]
    assert tuple(label.get_text() for label in axes.get_yticklabels()) == best
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(scores[:5])
    assert len(result(scores, classes).plot(top=2).axes[0].patches) == min(2, len(classes))


def test_save_writes_the_same_object(tmp_path: Path) -> None:
    one = result(source="ü.png", size=(17, 11))
    path = one.save(tmp_path / "one.json")
    assert json.loads(path.read_text("utf-8")) == one.to_dict()
    assert one.save(str(tmp_path / "two.json")).read_bytes() == path.read_bytes()
