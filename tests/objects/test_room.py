"""Recipe, checks, changes to images, and drawing of the rooms of objects."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.core import run_lengths
from saccade.core.config import AugmentConfig, TrainConfig, override
from saccade.core.errors import UserError
from saccade.core.geometry import FILL
from saccade.core.results import Detections
from saccade.data.loader import Batch
from saccade.data.sample import Objects, Sample, Schema
from saccade.objects.augmentation import ObjectsAugment, gathered, halved
from saccade.objects.drawing import drawn
from saccade.task import Budget
from saccade.tasks.detection.task import Detection


def schema(size: tuple[int, int], *, uniform: bool = True, channels: int = 3, images: int = 200) -> Schema:
    return Schema("detect", ("a", "b"), {"train": (900, 30)}, channels, size, uniform, {"train": images, "val": 20})


@pytest.mark.parametrize(
    ("size", "uniform", "expected"),
    [
        ((480, 640), True, (256, 320)),
        ((640, 480), True, (320, 256)),
        ((3000, 4000), False, (320, 320)),
        ((96, 96), True, (96, 96)),
        ((17, 11), True, (32, 32)),
        ((20, 2000), True, (32, 320)),
    ],
)
def test_sizes(size: tuple[int, int], uniform: bool, expected: tuple[int, int]) -> None:
    config, reasons = Detection().recipe(schema(size, uniform=uniform), "cpu", Budget())
    assert config.size == expected
    assert config.minutes == 18 and any(line.startswith("minutes") for line in reasons)


@pytest.mark.parametrize(
    ("size", "extent", "expected"),
    [((256, 256), 12.7, (352, 352)), ((256, 256), 16.0, (256, 256)), ((480, 640), 90.0, (256, 320)), ((2000, 2000), 12.7, (480, 480))],
)
def test_small_objects_are_enlarged(size: tuple[int, int], extent: float, expected: tuple[int, int]) -> None:
    config, reasons = Detection().recipe(replace(schema(size), extent=extent), "cpu", Budget())
    assert config.size == expected
    assert ("half of the objects" in reasons[0]) is (extent == 12.7)


@pytest.mark.parametrize(
    ("extent", "size", "budget", "expected"),
    [
        (99.0, (320, 320), Budget(), 0.5),
        (99.0, (480, 640), Budget(), 0.0),  # of which half is seen: 50 pixels
        (129.0, (480, 640), Budget(), 0.5),
        (99.0, (320, 320), Budget(pretrained=True), 0.0),
        (99.0, (320, 320), Budget(model="fasterrcnn/resnet18"), 0.0),
        (None, (320, 320), Budget(), 0.0),
    ],
)
def test_scenes_of_large_objects_are_seen_small_first(extent: float | None, size: tuple[int, int], budget: Budget, expected: float) -> None:
    config, reasons = Detection().recipe(replace(schema(size), extent=extent), "cpu", budget)
    assert config.objects.coarse == expected
    assert any(line.startswith("objects.coarse") for line in reasons) is bool(expected)


def test_networks_of_our_own_learn_by_muon_from_random_weights() -> None:
    for budget, expected in [(Budget(), "muon"), (Budget(pretrained=True), "adamw"), (Budget(model="fasterrcnn/resnet18"), "adamw")]:
        config, reasons = Detection().recipe(schema((320, 320)), "cpu", budget)
        assert config.optimizer == expected
        assert any(line.startswith("optimizer: muon") for line in reasons) is (expected == "muon")


def test_a_batch_at_half_its_size_has_boxes_and_masks_of_half_the_size() -> None:
    rows, columns = torch.arange(32)[:, None], torch.arange(64)
    images = (10 * (rows // 2) + columns // 2)[None, None].expand(2, 3, -1, -1).byte()
    targets = {
        "boxes": torch.tensor([[[8.0, 4.0, 24.0, 20.0]]]).expand(2, -1, -1),
        "labels": torch.tensor([[1], [-1]]),
        "masks": torch.tensor([[0, 255], [255, 255]]).byte().repeat(4, 8)[None, None].expand(2, -1, -1, -1),
    }
    found = halved(Batch(images, targets, np.arange(2)))
    assert (found.images[:, :, 16:] == FILL).all()
    assert torch.equal(found.images[:, :, :16], (10 * torch.arange(16)[:, None] + torch.arange(32))[None, None].expand(2, 3, -1, -1).byte())
    assert found.targets["boxes"][0].tolist() == [[4.0, 2.0, 12.0, 10.0]]
    assert torch.equal(found.targets["labels"], targets["labels"])
    masks = found.targets["masks"]
    assert masks.shape == (2, 1, 8, 8) and (masks[:, :, :4] == 191).all() and not masks[:, :, 4:].any()
    assert targets["boxes"][0, 0, 0] == 8.0, "what the loader gave is left as it was"


def test_only_the_first_part_of_a_run_is_seen_small() -> None:
    config, _ = Detection().recipe(schema((64, 64)), "cpu", Budget())
    config = override(config, {"objects.coarse": 0.5})
    network: Any = Detection().create(config, schema((64, 64)))[0]
    seen: list[tuple[int, ...]] = []
    network.backbone.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape[2:])))
    (phase,) = Detection().phases(network, config)
    sample = Objects(np.array([[8, 8, 40, 40]], np.float32), np.array([1]), np.array([False]), np.array([False]))
    batch = Batch(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), gathered([sample, sample]), np.arange(2))
    assert phase.pace is not None
    for step in range(4):
        phase.pace(step / 4)
        assert phase.loss(batch, step).total.isfinite()
    assert seen == [(32, 32), (32, 32), (64, 64), (64, 64)]


def test_budgets_and_grey_images() -> None:
    config, _ = Detection().recipe(schema((96, 96), channels=1), "cpu", Budget(epochs=3, size=(17, 11)))
    assert (config.channels, config.augment.hue, config.size, config.minutes) == (1, 0.0, (17, 11), None)
    Detection().check(override(config, {"epochs": 3.0}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "smal_detector"}, "did you mean small_detector"),
        ({"augment.rotate": 5}, "rotate is no change of detect"),
        ({"augment.paste": 0.5}, "paste is no change of detect"),
        ({"pretrained": True}, "no published weights"),
        ({"channels": 4}, "1 or 3 channels"),
        ({"label_smoothing": 0.1}, "goals of detect are soft already"),
    ],
)
def test_what_no_detector_does_is_refused(change: dict[str, object], words: str) -> None:
    config, _ = Detection().recipe(schema((96, 96)), "cpu", Budget())
    with pytest.raises(UserError, match=words):
        Detection().check(override(config, change))


def objects(*rows: tuple[list[float], int], crowd: bool = False) -> Objects:
    flags = np.full(len(rows), crowd)
    return Objects(
        np.array([box for box, _ in rows], np.float64).reshape(-1, 4), np.array([label for _, label in rows]), flags, ~flags & False
    )


def test_a_mirrored_image_has_mirrored_boxes() -> None:
    config = TrainConfig(task="detect", size=(64, 64), augment=AugmentConfig(flip=1.0))
    augment = ObjectsAugment(config)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    found = augment.apply([Sample(pixels, objects(([4, 5, 20, 30], 1)), 0, "x")], np.random.default_rng(1))
    assert np.array_equal(found.image, pixels[:, ::-1])
    assert found.target.boxes.tolist() == [[44, 5, 60, 30]]
    assert augment.partners(3) == []


def test_the_canvas_is_padded_and_what_is_kept_is_never_enlarged() -> None:
    augment = ObjectsAugment(TrainConfig(task="detect", size=(17, 40), augment=AugmentConfig(resize=(0.5, 2.0), mosaic=1.0)))
    assert augment.shape((10, 24)) == (32, 64)
    assert augment.preparation.apply(np.zeros((10, 9, 3), np.uint8)).shape == (10, 9, 3)
    assert augment.preparation.apply(np.zeros((640, 640, 3), np.uint8)).shape == (64, 64, 3)
    assert len(augment.partners(5)) == 3
    alone = ObjectsAugment(TrainConfig(task="detect", size=(64, 64)))
    sample = alone.apply([Sample(np.zeros((10, 20, 3), np.uint8), objects(([0, 0, 20, 10], 0)), 0, "x")], np.random.default_rng(0))
    assert sample.image.shape == (64, 64, 3)
    assert set(np.unique(sample.image)) == {0, FILL}
    box = sample.target.boxes[0]
    assert (sample.image[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] == 0).all()


@pytest.mark.parametrize(
    ("source", "expected"),
    [((480, 640), (256, 320)), ((640, 480), (320, 256)), ((500, 500), (320, 320)), ((1080, 1920), (192, 320)), ((10, 2000), (64, 320))],
)
def test_canvases_are_of_the_images_shape(source: tuple[int, int], expected: tuple[int, int]) -> None:
    augment = ObjectsAugment(TrainConfig(task="detect", size=(320, 320)))
    assert augment.shape(source) == expected
    kept = augment.preparation.apply(np.zeros((*source, 3), np.uint8))
    assert augment.apply([Sample(kept, objects(), 0, "x")], np.random.default_rng(0)).image.shape == (*expected, 3)


def test_batches_hold_uneven_numbers_of_objects() -> None:
    found, labels = operator.itemgetter("boxes", "labels")(
        gathered([objects(([0, 0, 5, 5], 1), ([1, 1, 9, 9], 0)), objects(), objects(([2, 2, 4, 4], 1), crowd=True)])
    )
    assert found.shape == (3, 2, 4)
    assert labels.tolist() == [[1, 0], [-1, -1], [-2, -1]]
    assert gathered([objects()])["boxes"].shape == (1, 1, 4)


def test_what_is_explained_is_the_surest_place_or_that_of_a_box() -> None:
    from saccade.objects.decode import NOTHING

    rows = torch.tensor([[[0.0, 0, 10, 10, 2, -1], [20, 20, 40, 40, 1, 3], [21, 21, 40, 40, 0, NOTHING]]], requires_grad=True)
    score = Detection().score
    assert score(rows, torch.tensor([0])).tolist() == [2] and score((rows, rows), torch.tensor([1])).tolist() == [3]
    near = torch.tensor([[22.0, 22, 40, 40]])
    assert score(rows, torch.tensor([0]), boxes=near).tolist() == [0]
    assert score(rows, torch.tensor([1]), boxes=torch.tensor([[0.0, 0, 9, 9]])).tolist() == [-1]
    assert score(rows, torch.tensor([0]), boxes=near).requires_grad
    assert score(rows, torch.tensor([1]), boxes=near).tolist() == [3], "of places that tell of the class"
    for label, far in ((0, [5000.0, 5000, 5100, 5100]), (1, [11.0, 11, 19, 19])):
        with pytest.raises(UserError, match="--box: nothing that the network tells of this class overlaps the box"):
            score(rows, torch.tensor([label]), boxes=torch.tensor([far]))
    with pytest.raises(UserError, match="--class: nothing is found of this class, however unsure"):
        score(rows[:, 2:], torch.tensor([1]))


def test_drawing() -> None:
    """Boxes in the colours of their classes, names that cover neither each other nor leave the picture; odd and grey images too."""
    image = np.full((60, 80, 3), 90, np.uint8)
    rows = np.array([[5, 5, 30, 30], [6, 6, 31, 31], [50, 20, 79, 59]], np.float32)
    result = Detections(rows, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]), ("a<b>", "long name " * 9), "x", (60, 80))
    picture = drawn(image, result, objects(([4, 4, 29, 29], 0)))
    assert picture.size == (320, 240)
    found = np.asarray(picture).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (255, 255, 255)):
        assert (found == colour).all(1).any()
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("a",), "x", (17, 11))
    assert isinstance(drawn(np.zeros((17, 11, 1), np.uint8), none), Image.Image)
    assert drawn(image, replace(result, boxes=rows * 40)).size == (320, 240), "boxes beyond the picture are no fault"


@pytest.mark.parametrize(("side", "half"), [(96, 64), (128, 64), (224, 128)])
def test_halved_canvases_are_multiples_of_32_again(side: int, half: int) -> None:
    """Else the network would widen the image and not the masks."""
    mask = np.zeros((side, 64), bool)
    mask[8:40, 16:32] = True
    target = Objects(np.array([[16.0, 8, 32, 40]]), np.array([0]), *np.zeros((2, 1), bool), (run_lengths.from_mask(mask),))
    images = torch.full((1, 3, side, 64), 7, dtype=torch.uint8)
    found = halved(Batch(images, gathered([target], (side, 64)), np.zeros(1, np.int64)))
    assert found.images.shape == (1, 3, half, 32) and (found.images[:, :, : side // 2] == 7).all()
    assert found.targets["masks"].shape == (1, 1, half // 4, 8)
    assert found.targets["boxes"].tolist() == [[[8, 4, 16, 20]]]
    assert (found.targets["masks"][0, 0] == 255).nonzero().tolist() == [[row, column] for row in range(1, 5) for column in (2, 3)]
