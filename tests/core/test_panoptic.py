"""Panoptic results and their quality: by hand, by panopticapi's rules as a plain program states them, void, crowds, weights by image."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.core.panoptic import Panoptic, PanopticQuality, Segment
from saccade.tasks.segmentation.drawing import drawn

CLASSES = ("cat", "dog", "grass")
THINGS = (0, 1)


def made(rows: list[list[int]], labels: dict[int, int], crowds: tuple[int, ...] = ()) -> Panoptic:
    return Panoptic.of(np.array(rows, np.int32), tuple(Segment(i, k, crowd=i in crowds) for i, k in labels.items()), CLASSES)


def quality(*pairs: tuple[Panoptic, Panoptic]) -> PanopticQuality:
    metric = PanopticQuality(CLASSES, THINGS)
    for said, right in pairs:
        metric.update([said], [right])
    return metric


def test_by_hand() -> None:
    right = made([[1, 1, 1, 1, 2, 2, 3, 3, 3, 3]], {1: 0, 2: 0, 3: 2})
    said = made([[5, 5, 5, 6, 6, 6, 7, 7, 7, 0]], {5: 0, 6: 0, 7: 2})
    # cat: 3 of 4 and 2 of 3 are met; grass: 3 of 4
    figures = quality((said, right)).compute()
    cat, grass = (3 / 4 + 2 / 3) / 2, 3 / 4
    assert figures == {
        "pq": pytest.approx((cat + grass) / 2),
        "sq": pytest.approx((cat + grass) / 2),
        "rq": 1.0,
        "pq_things": pytest.approx(cat),
        "pq_stuff": pytest.approx(grass),
    }


def test_exactly_half_is_no_match() -> None:
    right, said = made([[1, 1, 0, 0]], {1: 0}), made([[4, 0, 0, 0]], {4: 0})
    assert quality((said, right)).compute()["pq"] == 0


def test_another_class_is_no_match() -> None:
    figures = quality((made([[1, 1]], {1: 1}), made([[1, 1]], {1: 0}))).compute()
    assert figures["pq"] == figures["sq"] == figures["rq"] == 0


def test_void_and_crowds() -> None:
    """Void leaves a union; what lies mostly in void, or in a crowd of its class, is not told for nothing; a crowd need not be found."""
    right = made([[1, 1, 0, 0, 0, 2, 2, 2, 3, 3]], {1: 0, 2: 0, 3: 1}, crowds=(2,))
    said = made([[4, 4, 4, 5, 5, 6, 6, 6, 7, 7]], {4: 0, 5: 1, 6: 0, 7: 1})
    assert quality((said, right)).per_class() == [
        {"class": "cat", "pq": 1.0, "sq": 1.0, "rq": 1.0},
        {"class": "dog", "pq": 1.0, "sq": 1.0, "rq": 1.0},
        {"class": "grass", "pq": None, "sq": None, "rq": None},
    ]
    wrong = made([[4, 4, 4, 5, 5, 6, 6, 6, 7, 7]], {4: 0, 5: 1, 6: 1, 7: 1})  # of another class than the crowd
    assert quality((wrong, right)).compute()["rq"] == pytest.approx((1 + 1 / 1.5) / 2)


CASES = (  # the truth, its classes and crowds; what is told, its classes
    ([[1, 1, 1, 1, 2, 2, 3, 3, 3, 3]], {1: 0, 2: 0, 3: 2}, (), [[5, 5, 5, 6, 6, 6, 7, 7, 7, 0]], {5: 0, 6: 0, 7: 2}),
    ([[1, 1, 0, 0, 0, 2, 2, 2, 3, 3]], {1: 0, 2: 0, 3: 1}, (2,), [[4, 4, 4, 5, 5, 6, 6, 6, 7, 7]], {4: 0, 5: 1, 6: 0, 7: 1}),
    ([[1, 1, 0, 0, 0, 2, 2, 2, 3, 3]], {1: 0, 2: 0, 3: 1}, (2,), [[4, 4, 4, 5, 5, 6, 6, 6, 7, 7]], {4: 0, 5: 1, 6: 1, 7: 1}),
    ([[1, 1, 1, 2, 2, 2], [1, 1, 2, 2, 2, 2]], {1: 1, 2: 2}, (), [[4, 4, 4, 4, 5, 0], [4, 4, 5, 5, 5, 5]], {4: 1, 5: 2}),
    ([[1, 1, 1, 2, 2, 2]], {1: 1, 2: 2}, (), [[4, 4, 4, 4, 5, 0]], {4: 2, 5: 1}),
)


def test_equal_to_panopticapi() -> None:
    """What `pq_compute_single_core` of github.com/cocodataset/panopticapi, commit 7bb4655, printed for these five images together."""
    metric = quality(*((made(said, told), made(right, labels, crowds)) for right, labels, crowds, said, told in CASES))
    assert metric.compute() == pytest.approx({
        "pq": 0.6572971781305115, "sq": 0.8435846560846562, "rq": 0.7777777777777777,
        "pq_things": 0.7418981481481481, "pq_stuff": 0.48809523809523814,
    }, abs=1e-12)  # fmt: skip
    wanted = {
        "cat": (0.8541666666666666, 0.8541666666666666, 1.0),
        "dog": (0.6296296296296297, 0.9444444444444445, 0.6666666666666666),
        "grass": (0.48809523809523814, 0.7321428571428572, 0.6666666666666666),
    }
    assert {row["class"]: (row["pq"], row["sq"], row["rq"]) for row in metric.per_class()} == {
        name: pytest.approx(figures, abs=1e-12) for name, figures in wanted.items()
    }


def by_the_rules(said: Panoptic, right: Panoptic) -> dict[int, tuple[float, int, int, int]]:
    """Class -> sum of overlaps, TP, FP, FN, pixel by pixel, as the evaluation of panopticapi describes itself."""
    found = {}
    for k in range(len(CLASSES)):
        overlaps: list[float] = []
        met: set[int] = set()
        told = [one.id for one in said.segments if one.label == k]
        true = [one for one in right.segments if one.label == k]
        for one in true:
            for i in told:
                a, b = right.map == one.id, (said.map == i)
                union = (a | b & (right.map != 0)).sum()
                if not one.crowd and (a & b).sum() / union > 0.5:
                    overlaps.append((a & b).sum() / union)
                    met |= {i, -one.id}
        excused = np.isin(right.map, [0, *[one.id for one in true if one.crowd]])
        false = sum(i not in met and (excused & (said.map == i)).sum() / (said.map == i).sum() <= 0.5 for i in told)
        missed = sum(not one.crowd and -one.id not in met for one in true)
        found[k] = (sum(overlaps), len(overlaps), int(false), int(missed))
    return found


@st.composite
def scenes(draw: Any) -> Panoptic:
    values = np.array(draw(st.lists(st.integers(0, 3), min_size=12, max_size=12)), np.int32).reshape(3, 4)
    ids = [i for i in np.unique(values).tolist() if i]
    crowds = tuple(i for i in ids if draw(st.booleans()) and draw(st.booleans()))
    return made(values.tolist(), {i: draw(st.integers(0, 2)) for i in ids}, crowds)


@given(scenes(), scenes())
def test_by_the_rules(said: Panoptic, right: Panoptic) -> None:
    said = Panoptic.of(said.map, tuple(Segment(one.id, one.label) for one in said.segments), CLASSES)
    rows = quality((said, right)).per_class()
    for k, (overlap, tp, fp, fn) in by_the_rules(said, right).items():
        count = tp + fp / 2 + fn / 2
        assert rows[k]["pq"] == (pytest.approx(overlap / count) if count else None)
        assert rows[k]["sq"] == (pytest.approx(overlap / tp if tp else 0) if count else None)


def test_weights_count_images() -> None:
    first = made([[1, 1]], {1: 0}), made([[1, 1]], {1: 0})
    second = made([[1, 0]], {1: 0}), made([[1, 1]], {1: 0})
    third = made([[2, 1]], {1: 2, 2: 0}), made([[1, 1]], {1: 2})
    metric = quality(first, second, third)
    assert metric.compute(np.array([1, 0, 2])) == quality(first, third, third).compute() != metric.compute()
    assert set(PanopticQuality(CLASSES, THINGS).compute().values()) == {None}


def test_result(tmp_path: Any) -> None:
    result = made([[1, 1, 70000], [0, 1, 70000]], {1: 0, 70000: 2})
    assert result.summary == "1 cat, 1 grass" and result.size == (2, 3) and result.mask(1).sum() == 2
    again = Panoptic.from_dict(json.loads(json.dumps(result.to_dict())), CLASSES)
    assert np.array_equal(again.map, result.map) and again.segments == result.segments
    pixels = np.asarray(Image.open(io.BytesIO(result.save(tmp_path / "x.png").read_bytes()))).astype(int)
    np.testing.assert_array_equal(pixels @ [1, 256, 65536], result.map)
    result.plot()


def test_what_is_of_no_segment_is_of_no_class() -> None:
    """Nothing is made of it: no region, no object; it is white where classes are drawn."""
    told = made([[0, 0, 4, 4], [0, 9, 4, 4]], {4: 0, 9: 2}).to_segmentation()
    assert told.mask.tolist() == [[IGNORED, IGNORED, 0, 0], [IGNORED, 2, 0, 0]]
    assert [(one.label, one.area) for one in told.regions()] == [(0, 4), (2, 1)]
    assert told.to_instances().names == ["cat", "grass"]
    assert told.shares == {"cat": 0.8, "grass": 0.2}
    (shown,) = told.plot().axes[0].images
    assert np.asarray(shown.get_array())[0, 0].tolist() == [255] * 3
    picture = np.asarray(drawn(np.full((2, 4, 3), 90, np.uint8), told))
    assert (picture[0, 0] == 90).all() and (picture[0, -1] != 90).any()


def test_what_is_none() -> None:
    for rows, labels, words in (([[1, 2]], {1: 0}, "each segment"), ([[1]], {1: 9}, "of 3 classes"), ([[1]], {1: 0, 2: 0}, "each segment")):
        with pytest.raises(ValueError, match=words):
            made(rows, labels)
    raw = made([[1, 2]], {1: 0, 2: 1}).to_dict()
    raw["segments"][1]["mask"] = raw["segments"][0]["mask"]
    with pytest.raises(UserError, match="lies over another"):
        Panoptic.from_dict(raw, CLASSES)
    for odd in (-5, 0, 1 << 24, 1.0, "1", True, None):
        told = made([[1, 0]], {1: 0}).to_dict()
        told["segments"][0]["id"] = odd
        with pytest.raises(UserError, match="ids must be 1 to 16777215, was"):
            Panoptic.from_dict(told, CLASSES)
    for odd in (-5, 1 << 24):
        with pytest.raises(ValueError, match="ids must be 1 to 16777215"):
            made([[odd]], {odd: 0})
    with pytest.raises(UserError, match="not segments"):
        Panoptic.from_dict({"size": [1, 1], "segments": [{}]}, CLASSES)
