"""Boxes, outlines and classes: each fault put into a clean set is found once, at its place."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from faulty_sets import CASES, SQUARE, clean, with_object
from saccade.data import doctor
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.findings import Finding
from saccade.data.tree import File


def every(annotations: Annotations) -> tuple[Finding, ...]:
    """All that needs no pixels, crossings too."""
    flat = doctor.Flat(annotations)
    return (*doctor.quick(annotations), *doctor.boxes.crossings(flat))


def test_a_clean_set() -> None:
    assert every(clean()) == ()


@pytest.mark.parametrize(("code", "one"), CASES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("line", [0, 12])
def test_a_bad_object_is_found_once(code: str, one: Object, line: int) -> None:
    (found,) = every(with_object(replace(one, line=line)))
    place = ("007.txt", 12, 2) if line else ("007.png", 0, 2)
    assert (found.code, (found.path, found.line, found.object)) == (code, place)
    assert "007.png" in str(found)


GOOD = [
    Object(0, (-1, -1, 101, 81)),
    Object(0, (10.6, 10, 40, 40), (SQUARE,)),
    Object(0, (50.5, 20, 100, 80)),
    Object(1, (10, 10, 40, 40)),
    Object(1, (10, 10, 40, 40), (SQUARE,), crowd=True),
    Object(0, shape=((10, 10, 40, 10, 40, 40, 10, 10, 20, 5),)),  # touches itself
    Object(0, shape=((10, 10, 40, 10, 20, 10, 20, 30),)),  # goes back on itself
    Object(0, shape=((0.7, 0.7, 2.1, 2.1, 1.4, 1.4, 1.4, 2.8),)),  # the same, and rounding could say either
    Object(0),
]


@pytest.mark.parametrize("one", GOOD)
def test_a_good_object_is_not_found(one: Object) -> None:
    assert every(with_object(one)) == ()


@pytest.mark.parametrize(
    ("box", "words"),
    [((10, 10, 40, 40), "its outline reaches 20 px"), ((-20, 10, 40, 40), "a box from (-20, 10) to (40, 40) reaches 20 px")],
)
def test_what_reaches_over_the_edge_is_named(box: tuple[int, int, int, int], words: str) -> None:
    (found,) = every(with_object(Object(0, box, ((-20.0, 10.0, 40.0, 10.0, 40.0, 40.0),))))
    assert found.code == "box-over-edge" and found.message.startswith(words)


def test_sizes_unknown_say_nothing_of_edges() -> None:
    made = with_object(Object(0, (500, 500, 600, 600)))
    assert doctor.quick(replace(made, items=tuple(replace(item, size=None) for item in made.items))) == ()


def test_star_polygons_cross() -> None:
    angles = np.arange(5) * 4 * np.pi / 5
    points = np.stack([40 + 30 * np.cos(angles), 40 + 30 * np.sin(angles)], axis=1)
    assert [one.code for one in every(with_object(Object(0, shape=(tuple(points.reshape(-1).tolist()),))))] == ["crossing-polygon"]
    order = np.argsort(np.arctan2(*(points - 40).T))
    assert every(with_object(Object(0, shape=(tuple(points[order].reshape(-1).tolist()),)))) == ()


def relabelled(label_of: dict[int, int]) -> Annotations:
    made = clean()
    items = [
        replace(item, objects=tuple(replace(one, label=label_of.get(one.label, one.label)) for one in item.objects)) for item in made.items
    ]
    return replace(made, items=tuple(items))


def codes(annotations: Annotations) -> list[str]:
    return [found.code for found in doctor.quick(annotations)]


def test_classes() -> None:
    assert codes(replace(clean(), classes=("cat", "dog", "owl", "never"))) == ["unused-class"]
    shifted = replace(relabelled({0: 1}), problems=(Finding("unknown-class", "a.txt", "no class 3", 4),))
    assert codes(shifted) == ["ids-from-one", "unknown-class"]
    assert codes(replace(shifted, problems=(*shifted.problems, Finding("ids-from-one", "a", "b")))) == [
        "ids-from-one",
        "unknown-class",
        "unused-class",
    ]
    rare = with_object(Object(3, (1, 1, 9, 9)))
    assert codes(replace(rare, classes=("cat", "dog", "owl", "rare"))) == ["rare-class"]
    owls = {i: Object(3, (1, 1, 9, 9)) for i in range(6)}
    few = clean(126)
    items = tuple(replace(item, objects=(*item.objects, owls[i]) if i in owls else item.objects) for i, item in enumerate(few.items))
    assert codes(replace(few, items=items, classes=("cat", "dog", "owl", "six"))) == []
    many = tuple(replace(item, objects=(*item.objects, *[Object(0, (k, 1, k + 9, 9)) for k in range(1)])) for item in items)
    assert codes(replace(few, items=many, classes=("cat", "dog", "owl", "six"))) == ["imbalanced-classes"]


def test_a_class_missing_in_a_split() -> None:
    made = clean()
    items = tuple(
        replace(item, objects=tuple(one for one in item.objects if item.split == "train" or one.label != 2)) for item in made.items
    )
    (found,) = doctor.quick(replace(made, items=items))
    assert found.code == "missing-class" and "val" in found.message and "owl" in found.message


def test_unlabelled_images_are_one_finding() -> None:
    made = clean()
    items = tuple(replace(item, objects=()) if i in (3, 5) else item for i, item in enumerate(made.items))
    (found,) = doctor.quick(replace(made, items=items))
    assert (found.code, found.path) == ("unlabelled-image", "003.png") and "2 of 60" in found.message


def test_an_image_in_two_splits() -> None:
    made = clean()
    twice = replace(made.items[0], split="val")
    found = doctor.quick(replace(made, items=(made.items[0], twice, *made.items[1:])))
    assert [(one.code, one.path) for one in found] == [("image-in-two-splits", "000.png")]


def test_problems_are_passed_on_and_nothing_is_nothing() -> None:
    problem = Finding("missing-image", "list.txt", "gone.png is not there", 3)
    assert doctor.quick(replace(clean(), problems=(problem,))) == (problem,)
    assert doctor.quick(replace(clean(), items=())) == ()
    assert doctor.quick(replace(clean(), items=(), classes=())) == ()


def test_a_million_objects_in_seconds() -> None:
    """The aim is 2 s; a busy machine may take longer."""
    per = tuple(Object(k % 3, (k, k, k + 20.0, k + 20.0)) for k in range(10))
    items = tuple(Item(File(f"{i}.png", 1, 1), "train", objects=per, size=(80, 100)) for i in range(100_000))
    made = replace(clean(), items=items)
    began = time.perf_counter()
    assert doctor.quick(made) == ()
    assert time.perf_counter() - began < 10
