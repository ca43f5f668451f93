"""An image looked at several times: each object is found once, where it is, and small ones as in the tile alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from saccade.core import finish, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import CONIC
from saccade.core.images import Picture
from saccade.core.prepare import prepare
from saccade.core.results import Detections, Instances
from saccade.prediction.views import SCALES, Looks, found

CARD = Card("detect", ("red",), {}, InputSpec(3, (128, 128), "fit"), metrics={"threshold": 0.3}, ids=(7,))
SEEN = 5  # pixels of the input below which the oracle sees nothing


class Oracle:
    """Finds the red patches of an input, the surer the larger they are there."""

    streams, batch = 1, 4

    def __init__(self, card: Card = CARD) -> None:
        self.card, self.shapes = card, []  # type: ignore[var-annotated]

    def run(self, images: np.ndarray) -> dict[str, Any]:
        self.shapes.append(images.shape)
        boxes, scores = np.zeros((len(images), 60, 4), np.float32), np.zeros((len(images), 60), np.float32)
        for number, image in enumerate(images):
            red = (image[0] > 150) & (image[1] < 100)
            for place, (rows, columns) in enumerate(ndimage.find_objects(ndimage.label(red)[0])):
                side = min(rows.stop - rows.start, columns.stop - columns.start)
                boxes[number, place] = columns.start, rows.start, columns.stop, rows.stop
                scores[number, place] = min(0.99, 0.5 + side / 300) if side >= SEEN else 0
        answer = {"boxes": boxes, "scores": scores, "labels": np.zeros_like(scores)}
        if self.card.task == "instances":  # an ellipse that fills the box: 1.2 - x^2 - y^2
            weights = np.zeros((*scores.shape, CONIC + 1), np.float32)
            weights[..., 0], weights[..., 3], weights[..., 4] = 1.2, -1, -1
            answer |= {"weights": weights, "prototypes": np.zeros((len(images), 1, images.shape[2] // 4, images.shape[3] // 4), np.float32)}
        return answer


def picture(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Picture:
    pixels = np.full((*size, 3), 120, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = (230, 20, 20)
    return Picture(pixels, "x.png", size, ("a note",))


def boxes_of(one: Detections) -> list[list[float]]:
    return sorted(one.boxes.tolist())


SMALL = [(10, 20, 20, 30), (70, 90, 82, 102), (300, 200, 310, 214), (371, 371, 383, 383), (190, 190, 202, 203)]


def test_small_objects_of_a_large_image_are_found_in_tiles() -> None:
    """In the whole image they have three or four pixels of the input; in tiles of the input's size all of them."""
    image = picture((384, 400), *SMALL)
    assert len(found(Oracle(), image, "x", Looks())) == 0
    answer = found(Oracle(), image, "x", Looks(tile=128))
    assert boxes_of(answer) == sorted(list(map(float, box)) for box in SMALL)
    assert (answer.source, answer.size, answer.notes, answer.class_ids) == ("x", (384, 400), ("a note",), (7,))


def test_what_lies_in_one_tile_only_is_what_the_tile_alone_has() -> None:
    image = picture((256, 256), (20, 12, 41, 31), (200, 220, 213, 233))
    answer = found(Oracle(), image, "x", Looks(tile=128))
    alone = picture((128, 128), (20, 12, 41, 31))
    outputs = Oracle().run(prepare(alone.pixels, CARD.input)[None])
    (expected,) = finish.results(outputs, CARD, [(128, 128)], ["x"])
    assert isinstance(expected, Detections)
    place = answer.boxes.tolist().index(expected.boxes[0].tolist())
    assert answer.scores[place] == expected.scores[0]


def test_an_object_that_tiles_cut_comes_from_the_whole_image_once() -> None:
    large = (100, 60, 300, 180)
    answer = found(Oracle(), picture((384, 384), large), "x", Looks(tile=128))
    assert len(answer) == 1
    assert np.abs(answer.boxes[0] - large).max() <= 3, "of pixels three times as large"


@given(
    st.tuples(st.integers(128, 420), st.integers(128, 420)),
    st.integers(0, 1 << 32),
    st.integers(1, 6),
    st.booleans(),
)
def test_every_object_is_found_once_wherever_it_lies(size: tuple[int, int], seed: int, count: int, tta: bool) -> None:
    draws, boxes = np.random.default_rng(seed), []  # type: ignore[var-annotated]
    for _ in range(count):
        high, wide = draws.integers(8, 24, 2).tolist()
        top, left = int(draws.integers(0, size[0] - high)), int(draws.integers(0, size[1] - wide))
        box = (left, top, left + wide, top + high)
        apart = all(box[2] + 3 < b[0] or b[2] + 3 < box[0] or box[3] + 3 < b[1] or b[3] + 3 < box[1] for b in boxes)
        boxes += [box] if apart else []
    answer = found(Oracle(), picture(size, *boxes), "x", Looks(tile=128, tta=tta))
    assert len(answer) == len(boxes)
    for one in answer.boxes:
        assert min(np.abs(one - box).max() for box in boxes) <= (2 if tta else 0)


def test_mirrored_and_at_other_sizes() -> None:
    boxes, session = [(10, 20, 34, 60), (70, 5, 100, 25)], Oracle()
    answer = found(session, picture((96, 128), *boxes), "x", Looks(tta=True))
    assert len(answer) == 2, "what several views have found of one object is one"
    assert all(min(np.abs(one - box).max() for box in boxes) <= 2 for one in answer.boxes)
    assert {shape[2:] for shape in session.shapes} == {(96, 128), (128, 160), (96, 128)}
    assert sum(shape[0] for shape in session.shapes) == 2 * len(SCALES)


@pytest.mark.parametrize("tta", [False, True])
def test_masks_come_to_lie_where_they_belong(tta: bool) -> None:
    card = Card("instances", ("red",), {}, InputSpec(3, (128, 128), "fit"), metrics={"threshold": 0.3})
    boxes = [(20, 15, 44, 43), (200, 180, 224, 204)]
    answer = found(Oracle(card), picture((240, 250), *boxes), "x", Looks(tile=128, tta=tta))
    assert isinstance(answer, Instances) and len(answer) == 2
    for mask, box in zip(answer.masks, answer.boxes, strict=True):
        assert mask.size == (240, 250)
        assert np.abs(np.array(run_lengths.patch(mask).box) - box).max() <= 4
        assert run_lengths.covered(mask) == pytest.approx(1.2 * np.pi / 4 * 24**2, rel=0.25)


def test_ways_to_suppress_are_of_one_view() -> None:
    """Two of one place are the model's own affair: its card may keep both; views never make one object two."""

    class Twice(Oracle):
        def run(self, images: np.ndarray) -> dict[str, Any]:
            answer = super().run(images)
            return {name: np.concatenate([value, value], 1) for name, value in answer.items()}

    image = picture((200, 200), (30, 30, 50, 50), (150, 150, 165, 165))
    for way, count in (("class", 2), ("agnostic", 2), ("soft", 2), ("none", 4)):
        assert len(found(Twice(finish.by_way(CARD, way)), image, "x", Looks(tile=128))) == count, way


def test_complete_answers_hold_what_is_not_sure() -> None:
    strict = Card("detect", ("red",), {}, InputSpec(3, (128, 128), "fit"), metrics={"threshold": 0.9})
    image = picture((128, 128), (10, 10, 30, 30))
    assert len(found(Oracle(strict), image, "x", Looks(tta=True))) == 0
    assert len(found(Oracle(strict), image, "x", Looks(tta=True), complete=True)) == 1


def test_requests_that_cannot_be() -> None:
    with pytest.raises(UserError, match="tile: must have a side of 64 pixels at least, got 32"):
        Looks(tile=32).check(CARD)
    with pytest.raises(UserError, match="this model is for classify"):
        Looks(tta=True).check(Card("classify", ("a",), {}, InputSpec(3, (64, 64))))
    with pytest.raises(UserError, match=r"nms: unknown way to suppress doubles 'clas'.*did you mean class"):
        finish.by_way(CARD, "clas")
    with pytest.raises(UserError, match="nms: is for models that find objects"):
        finish.by_way(Card("segment", ("a", "b"), {}, InputSpec(3, (64, 64))), "soft")
    with pytest.raises(UserError, match="the model's nms must be class, agnostic, soft, none or false, its card says 'x'"):
        finish.way_of(Card("detect", ("a",), {"nms": "x"}, InputSpec(3, (64, 64))))
