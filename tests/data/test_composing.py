"""Images, boxes and masks are changed together: what a mask covers is what was painted, wherever it has gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core import keys, run_lengths
from saccade.core.class_masks import IGNORED
from saccade.core.config import AugmentConfig, TrainConfig, override
from saccade.core.errors import UserError
from saccade.core.run_lengths import Patch
from saccade.data import composing
from saccade.data.sample import Objects, Sample
from saccade.tasks import room

BACK = 40


def objects(masks: list[np.ndarray], labels: list[int], *, with_masks: bool = True, crowd: tuple[int, ...] = ()) -> Objects:
    boxes = np.array([Patch(mask, 0, 0).box for mask in masks], np.float64).reshape(-1, 4)
    covers = tuple(run_lengths.from_mask(mask) for mask in masks) if with_masks else ()
    marks = np.isin(np.arange(len(masks)), crowd)
    return Objects(boxes, np.array(labels, np.int64), marks, np.zeros(len(masks), bool), covers)


def painted(
    size: tuple[int, int], boxes: list[tuple[int, int, int, int]], *, with_masks: bool = True, crowd: tuple[int, ...] = ()
) -> Sample:
    """Rectangles (top, left, bottom, right) of colour 160 + 20 k, later ones over earlier ones, class k."""
    image, masks = np.full((*size, 3), BACK, np.uint8), []
    for k, (top, left, bottom, right) in enumerate(boxes):
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        masks = [other & ~mask for other in masks] + [mask]
        image[mask] = 160 + 20 * k
    return Sample(image, objects(masks, list(range(len(boxes))), with_masks=with_masks, crowd=crowd), 0, "x.png")


def classes(sample: Sample) -> Sample:
    """The same picture with a mask of classes: 0 the background, k + 1 the rectangles."""
    values = sample.image[..., 0].astype(int)
    return Sample(sample.image, np.where(values == BACK, 0, (values - 140) // 20).astype(np.uint8), 0, "x.png")


def same(a: Sample, b: Sample) -> bool:
    pairs = [(a.image, b.image)]
    if isinstance(a.target, Objects):
        pairs += [(getattr(a.target, name), getattr(b.target, name)) for name in ("boxes", "labels", "crowd", "difficult")]
        return all(np.array_equal(x, y) for x, y in pairs) and a.target.masks == b.target.masks
    return np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target)


SCENE = [(2, 1, 9, 6), (4, 4, 15, 10)]


@given(
    factor=st.sampled_from([1, 2, 3]),
    top=st.integers(-40, 40),
    left=st.integers(-40, 40),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_whole_factors_are_exact(factor: int, top: int, left: int, size: tuple[int, int]) -> None:
    """Scaled by a whole number, pixels that lie within an object's colour are covered by its mask, and no other ones are."""
    scene = painted((17, 11), SCENE)
    made = composing.placed(scene, size, factor, (top, left))
    of_classes = composing.placed(classes(scene), size, factor, (top, left))
    expected = np.full(size, IGNORED, np.uint8)
    whole = np.kron(classes(scene).target, np.ones((factor, factor), np.uint8))
    for row in range(size[0]):
        for column in range(size[1]):
            if 0 <= row - top < len(whole) and 0 <= column - left < whole.shape[1]:
                expected[row, column] = whole[row - top, column - left]
    assert np.array_equal(of_classes.target, expected)
    assert (made.image[expected == IGNORED] == composing.FILL).all()
    for label, mask, box in zip(made.target.labels, made.target.masks, made.target.boxes, strict=True):
        assert np.array_equal(run_lengths.to_mask(mask), expected == label + 1)
        assert tuple(box) == Patch(expected == label + 1, 0, 0).box
    left_of = {label: int((expected == label + 1).sum()) for label in (0, 1)}
    for label, area in enumerate(int((classes(scene).target == label + 1).sum()) for label in (0, 1)):
        gone = label not in made.target.labels
        height, width = (np.ptp(np.nonzero(expected == label + 1)[axis]) + 1 if left_of[label] else 0 for axis in (0, 1))
        assert gone == (left_of[label] < composing.LEAST * area * factor**2 or min(height, width) < composing.SIDE)


@given(scale=st.floats(0.3, 3), top=st.integers(-30, 30), left=st.integers(-30, 30), window=st.booleans())
def test_boxes_follow_their_pixels(scale: float, top: int, left: int, window: bool) -> None:
    """A box bounds the pixels of its colour within a pixel, at any scale; so does that of a mask."""
    size, limits = (60, 50), (10, 40, 5, 45) if window else None
    for with_masks in (False, True):
        made = composing.placed(painted((40, 36), [(6, 4, 30, 28)], with_masks=with_masks), size, scale, (top, left), window=limits)
        seen = made.image[..., 0] > (composing.FILL + 160) / 2
        if not len(made.target.labels):
            continue
        assert np.abs(np.array(Patch(seen, 0, 0).box) - made.target.boxes[0]).max() <= 1.5
        x1, y1, x2, y2 = made.target.boxes[0]
        edges = limits or (0, size[0], 0, size[1])
        assert edges[2] <= x1 < x2 <= edges[3] and edges[0] <= y1 < y2 <= edges[1]


def test_what_is_left_of_an_object_decides() -> None:
    for with_masks in (False, True):
        wide = painted((40, 40), [(10, 0, 30, 40)], with_masks=with_masks)
        for shift, stays in ((-35, True), (-36, True), (-37, False)):  # 5, 4 and 3 of its 40 columns: a tenth is four
            assert bool(len(composing.placed(wide, (40, 40), 1.0, (0, shift)).target.labels)) is stays
    thin = painted((40, 40), [(10, 0, 30, 20)], with_masks=False)
    assert not len(composing.placed(thin, (40, 40), 0.04, (0, 0)).target.labels), "thinner than a box may be"
    assert not len(composing.placed(thin, (40, 40), 1.0, (50, 0)).target.labels)


@pytest.mark.parametrize("size", [(17, 11), (1, 1), (64, 80)])
def test_four_about_a_corner(size: tuple[int, int]) -> None:
    scenes = [painted((40, 36 + 4 * k), [(3, 5, 33, 30)]) for k in range(4)]
    made, of_classes = (composing.mosaic(some, size, keys.generator(1, "t", 0)) for some in (scenes, [classes(one) for one in scenes]))
    assert made.image.shape == (*size, 3) and np.array_equal(made.image, of_classes.image)
    covered = np.zeros(size, int)
    for mask, box in zip(made.target.masks, made.target.boxes):
        assert run_lengths.patch(mask).box == tuple(box)
        covered += run_lengths.to_mask(mask)
    assert covered.max() <= 1, "quarters do not overlap"
    assert not (covered.astype(bool) & (of_classes.target != 1)).any()
    shown = of_classes.target != IGNORED
    assert (made.image[~shown] == composing.FILL).all()
    without = [painted((40, 36 + 4 * k), [(3, 5, 33, 30)], with_masks=False) for k in range(4)]
    boxes = composing.mosaic(without, size, keys.generator(1, "t", 0)).target.boxes
    if len(boxes) == len(made.target.boxes):
        assert np.abs(boxes - made.target.boxes).max(initial=0) <= 1


def test_the_corner_of_a_mosaic_is_that_of_all_four() -> None:
    for position in range(30):
        made = composing.mosaic([classes(painted((40, 36), []))] * 4, (64, 80), keys.generator(1, "t", position))
        down, across = (round(side * (0.25 + 0.5 * share)) for side, share in zip((64, 80), keys.generator(1, "t", position).random(2)))
        assert (made.target[down - 1 : down + 1, across - 1 : across + 1] == 0).all()


def test_pasted_objects_hide_what_is_below() -> None:
    onto, other = painted((30, 30), [(0, 0, 20, 20), (22, 22, 28, 28)]), painted((30, 30), [(1, 1, 25, 25)])
    for position in range(20):
        made = composing.pasted(onto, other, keys.generator(0, "t", position))
        if same(made, onto):
            continue
        assert made.target.labels.tolist() == [1, 0], "nearly all of the first is hidden"
        over = run_lengths.to_mask(made.target.masks[1])
        assert (made.image[over] == 160).all() and np.array_equal(made.image[~over], onto.image[~over])
        assert made.target.boxes.tolist() == [[22, 22, 28, 28], [1, 1, 25, 25]], "an L is left of the second"
        break
    else:
        raise AssertionError("half of the objects are pasted")
    alone = painted((30, 30), [(1, 1, 25, 25)], crowd=(0,))
    assert all(same(composing.pasted(onto, alone, keys.generator(0, "t", p)), onto) for p in range(20)), "no crowds"
    with pytest.raises(ValueError, match="one shape"):
        composing.pasted(onto, painted((30, 31), []), keys.generator(0, "t", 0))


def test_pasted_regions_bring_their_classes() -> None:
    """Each connected region by itself, one of a class that lies apart too; never the ground, nor what does not count."""
    onto = classes(painted((30, 40), [(10, 14, 28, 22)]))
    other = classes(painted((30, 40), [(2, 2, 8, 8), (20, 2, 30, 12), (20, 20, 25, 25)]))
    other.target[20:25, 20:25] = 1  # of the first's class, apart from it
    other.target[:, 35:] = IGNORED
    places = [np.s_[2:8, 2:8], np.s_[20:30, 2:12], np.s_[20:25, 20:25]]
    seen = set()
    for position in range(60):
        made = composing.pasted(onto, other, keys.generator(0, "t", position))
        taken = tuple(bool((made.image[place] == other.image[place]).all()) for place in places)
        over = np.zeros((30, 40), bool)
        for place in (place for place, there in zip(places, taken, strict=True) if there):
            over[place] = True
        assert np.array_equal(made.target, np.where(over, other.target, onto.target))
        assert np.array_equal(made.image, np.where(over[..., None], other.image, onto.image))
        seen.add(taken)
    assert len(seen) == 8, "all of them, none, and what lies between"


@pytest.mark.parametrize(
    ("regions", "pasted"),
    [
        ([np.s_[:, 0:8]], True),
        ([np.s_[:, 0:12]], False),  # a region of more than a quarter
        ([np.s_[:, 0:4], np.s_[:, 6:10]], True),
        ([np.s_[:, 0:8], np.s_[:, 10:18], np.s_[:, 20:28]], False),  # a class of more than half
    ],
)
def test_the_ground_is_not_pasted(regions: list[Any], pasted: bool) -> None:
    onto, other = classes(painted((30, 40), [])), classes(painted((30, 40), []))
    other.target[:] = IGNORED
    for region in regions:
        other.target[region] = 1
    made = [composing.pasted(onto, other, keys.generator(0, "t", position)) for position in range(10)]
    assert any((one.target == 1).any() for one in made) == pasted


def test_mirrored_twice_is_as_before() -> None:
    for scene in (painted((17, 11), SCENE), painted((17, 11), SCENE, with_masks=False), classes(painted((17, 11), SCENE))):
        once = composing.flipped(scene)
        assert not same(once, scene) and same(composing.flipped(once), scene)
        assert np.array_equal(once.image[:, 0], scene.image[:, -1])
    boxes = composing.flipped(painted((17, 11), SCENE, with_masks=False)).target.boxes
    assert np.array_equal(boxes, composing.flipped(painted((17, 11), SCENE)).target.boxes)


EVERYTHING = AugmentConfig(flip=0.5, color=0.3, hue=0.1, resize=(0.1, 2.0), mosaic=0.5, paste=0.5)


def test_a_position_decides_everything() -> None:
    scenes = [painted((30 + k, 40 - k), [(k, 2 * k, 20, 25), (18, 10, 28, 30)]) for k in range(6)]

    def at(position: int) -> Sample:
        asked = composing.partners(position, EVERYTHING, 3)
        samples = [scenes[place % 6] for place in (position, *asked)]
        return composing.changed(samples, (32, 24), EVERYTHING, keys.generator(3, "augment", position))

    made = [at(position) for position in range(40)]
    assert all(same(one, at(position)) for position, one in enumerate(made))
    assert not same(made[0], made[6])
    for one in made:
        assert one.image.shape == (32, 24, 3) and one.image.dtype == np.uint8
        assert len(one.target.boxes) == len(one.target.masks) == len(one.target.labels)
        assert (one.target.boxes >= 0).all() and (one.target.boxes <= [24, 32, 24, 32]).all()


def test_partners() -> None:
    asked = [composing.partners(position, EVERYTHING, 0) for position in range(2000)]
    share = np.bincount([len(some) for some in asked], minlength=5) / 2000
    assert share == pytest.approx([0.25, 0.25, 0, 0.25, 0.25], abs=0.04)
    assert all(position < place <= position + composing.NEAR for position, some in enumerate(asked) for place in some)
    assert composing.partners(5, AugmentConfig(flip=1.0), 0) == []
    assert {len(composing.partners(p, AugmentConfig(mosaic=1.0), 0)) for p in range(9)} == {3}


@pytest.mark.parametrize("with_masks", [False, True])
def test_images_without_objects(with_masks: bool) -> None:
    empty = painted((17, 11), [], with_masks=with_masks)
    for made in (
        composing.mosaic([empty] * 4, (20, 20), keys.generator(0, "t", 0)),
        composing.flipped(empty),
        composing.jittered(empty, (8, 9), (0.1, 2.0), keys.generator(0, "t", 0)),
        composing.pasted(empty, empty, keys.generator(0, "t", 0)),
    ):
        assert made.target.boxes.shape == (0, 4) and made.target.masks == ()


def test_grey_images_stay_grey() -> None:
    scene = painted((17, 11), SCENE)
    grey = Sample(scene.image[..., :1].copy(), scene.target, 0, "x.png")
    assert composing.changed([grey], (20, 30), EVERYTHING, keys.generator(0, "t", 0)).image.shape == (20, 30, 1)


def test_the_configuration_and_who_takes_it() -> None:
    config = override(TrainConfig(), {"augment.resize": [0.1, 2.0], "augment.mosaic": 0.5})
    assert config.augment.resize == (0.1, 2.0)
    with pytest.raises(UserError, match="resize"):
        override(TrainConfig(), {"augment.resize": [0, 2]})
    for task, model in (("classify", "resnet18"), ("generate", "vae")):
        for name, value in (("resize", (0.5, 1.0)), ("mosaic", 0.1), ("paste", 1.0)):
            changes: dict[str, Any] = {"task": task, "model": model, f"augment.{name}": value}
            with pytest.raises(UserError, match=f"{name} is no change of {task}"):
                room(task).check(override(TrainConfig(), changes))


@pytest.mark.parametrize("scale", [0.4, 0.73, 1.0, 1.31, 2.0])
def test_a_part_of_a_large_image_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = coarse.repeat(8, 0).repeat(8, 1)
    one = Sample(image, image[..., 0].copy(), 0, "x")
    for at in ((0, 0), (-31, -55), (-60, 10), (20, -7)):
        whole = composing.placed(one, (96, 80), scale, at)
        monkeypatch.setattr(composing, "LARGE", 0)
        part = composing.placed(one, (96, 80), scale, at)
        monkeypatch.undo()
        assert np.abs(whole.image.astype(int) - part.image).max() <= 2
        np.testing.assert_array_equal(whole.target, part.target)
