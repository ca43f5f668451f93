"""torchvision's Mask R-CNN: what the table says of it, its doors, what it learns masks from, heads on networks of timm, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core import finish, keys, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.geometry import CELL
from saccade.core.results import Instances
from saccade.core.run_lengths import Patch
from saccade.data.sample import Objects, Sample, Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.objects import library, pyramid
from saccade.objects.augmentation import gathered
from saccade.objects.models import TAG
from saccade.objects.room import MEAN, STD
from saccade.task import Budget
from saccade.tasks.instances import models
from saccade.tasks.instances.task import Instances as Room
from saccade.training.step import Updater
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here

SCHEMA = Schema("instances", ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
TASK = Room()
TINY = "maskrcnn/mobilenetv3_small_050"


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow maps, and masks of few objects: their head computes more than all else does."""
    monkeypatch.setattr(pyramid, "WIDTH", 32)
    monkeypatch.setattr(library, "MOST", 16)


def settings(name: str, **changes: Any) -> Any:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    return override(config, {"device": "cpu", "precision": "fp32", "lr": 1e-3, **changes})


def made(name: str) -> tuple[Any, Card, Any]:
    config = settings(name)
    TASK.check(config)
    torch.manual_seed(0)
    network: Any
    network, card = TASK.create(config, SCHEMA)
    network.network.roi_heads.fg_bg_sampler.batch_size_per_image = 32  # a quarter of which may be objects
    return network, card, config


def test_the_table_is_torchvisions_own() -> None:
    from torchvision import models as theirs

    for name, (count, ap, file, _) in models.THEIRS.named.items():
        default = theirs.get_model_weights(name).DEFAULT
        stated = default.meta
        assert (count, ap) == (stated["num_params"], stated["_metrics"]["COCO-val2017"]["mask_map"]), name
        assert default.url.endswith(f"/{file}")
        assert {one.name for one in theirs.get_model_weights(name)} == {TAG}, "all that is published"  # type: ignore[attr-defined]
    assert {name for name in theirs.list_models(theirs.detection) if name.startswith("maskrcnn")} == set(models.THEIRS.named)
    rows = {row.name: row for row in TASK.models()}
    assert rows["maskrcnn_resnet50_fpn_v2"].metric == 0.418 and rows["maskrcnn_resnet50_fpn"].license == "bsd-3-clause"


@pytest.mark.long
@pytest.mark.usefixtures("light")
def test_the_doors() -> None:
    """The card alone rebuilds it; it learns; images of one shape do not depend on each other; what it finds can be explained."""
    network, card, config = made(TINY)
    batch = TASK.example(3, keys.generator(0, "library", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    found = [update.step([batch], step, 1.0) for step in range(6)]
    assert all(np.isfinite(list(one.values())).all() for one in found)
    assert found[-1]["loss_mask"] < found[0]["loss_mask"] and found[-1]["loss"] < found[0]["loss"]
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert all(torch.equal(one, same) for one, same in zip(outputs, other(batch.images), strict=True))
        decoded, alone = TASK.decode(outputs, (64, 64)), TASK.decode(network(batch.images[1:2]), (64, 64))
    assert outputs.places.shape == (3, 16, 4 + 3) and outputs.grids.shape == (3, 16, 28, 28)
    assert outputs.grids.min() >= 0 and outputs.grids.max() <= 1
    torch.testing.assert_close(decoded["scores"][1:2], alone["scores"], atol=1e-4, rtol=0)
    results: Any = finish.results(decoded, card, [(128, 128)] * 3, list("xyz"), complete=True)
    assert all(isinstance(one, Instances) for one in results) and any(map(len, results))
    (single,) = finish.results(alone, card, [(128, 128)], ["y"], complete=True)
    assert results[1].agreement(single) > 0.95
    metric = TASK.metrics(card)
    truths = [Objects(np.array([[8.0, 8, 60, 60]]), np.array([0]), *np.zeros((2, 1), bool), (results[0].masks[0],))] * 3
    metric.update(results, truths)
    assert metric.compute()["map"] is not None
    maps = gradcam(network, TASK.features(network), batch.images[:1], TASK.score, [0])
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()
    with pytest.raises(UserError, match="the file holds 1,000"):
        TASK.build(read, 1000)


@pytest.mark.usefixtures("light")
def test_it_learns_from_masks_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision is given: uint8 `[N, H, W]` of the input's pixels, of no crowd, labels from 1 on."""
    network, _, config = made(TINY)
    ring = np.hypot(*(np.mgrid[0:31, 0:31] - 15)) < 15
    ring[10:21, 10:21] = False
    masks = tuple(run_lengths.from_patch(Patch(shape, 7, 5), (64, 64)) for shape in (ring, ~ring, ring))
    boxes, crowd = np.array([[6.0, 8, 35, 37]] * 3), np.array([False, True, False])
    augment = TASK.augment(override(config, {"augment.flip": 0.0, "augment.mosaic": 0.0, "augment.resize": [1.0, 1.0]}))
    target = Objects(boxes, np.array([0, 1, 2]), crowd, crowd & False, masks)
    sample = augment.apply([Sample(np.zeros((64, 64, 3), np.uint8), target, 0, "x")], np.random.default_rng(0))
    batch = augment.collate([sample], np.arange(1))
    assert batch.targets["masks"].shape == (1, 3, 64, 64)
    given: list[Any] = []
    monkeypatch.setattr(network.network, "forward", lambda images, targets: given.append(targets) or {"loss_mask": torch.ones(())})
    assert network.losses(batch).parts.keys() == {"loss_mask"}
    ((one,),) = given
    assert one["masks"].dtype == torch.uint8 and one["labels"].tolist() == [1, 3] and one["boxes"].tolist() == boxes[:2].tolist()
    assert all(np.array_equal(mask, run_lengths.to_mask(masks[0])) for mask in one["masks"].numpy())
    coarse = replace(batch, targets=gathered([target], (64, 64)))
    network.losses(coarse)
    apart = (given[1][0]["masks"] != one["masks"]).float().mean()
    assert given[1][0]["masks"].shape == (2, 64, 64) and 0 < apart < 0.1, "cells of four pixels, as the room's example has them"
    ours = TASK.augment(settings("small_instances")).collate([sample], np.arange(1))
    assert ours.targets["masks"].shape == (1, 3, 64 // CELL, 64 // CELL)


@pytest.mark.long
@pytest.mark.parametrize("name", [TINY, "maskrcnn_resnet50_fpn_v2"])
@pytest.mark.usefixtures("light")
def test_images_without_objects_and_crowds_are_learned_from(name: str) -> None:
    """Version 2 normalises over the boxes that show an object, of which there is none."""
    network, _, config = made(name)
    batch = TASK.example(2, keys.generator(0, "library", 0))
    empty = replace(batch, targets={**batch.targets, "labels": torch.tensor([[-1], [-2]])})
    (phase,) = TASK.phases(network.train(), config)
    found = phase.loss(empty, 0)
    found.total.backward()
    assert torch.isfinite(found.total) and found.weight == 2 and found.parts["loss_mask"] == 0
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert all(torch.isfinite(value.grad).all() for value in network.parameters() if value.grad is not None)


@pytest.mark.usefixtures("light")
def test_an_image_in_which_nothing_is_found() -> None:
    network, card, _ = made(TINY)
    network.network.roi_heads.score_thresh = 1.0
    with torch.no_grad():
        decoded = TASK.decode(network.eval()(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)), (64, 64))
    assert [len(one) for one in finish.results(decoded, card, [(64, 96), (20, 30)], ["x", "y"], complete=True)] == [0, 0]  # type: ignore[arg-type]


def test_a_name_is_found_without_its_task() -> None:
    from saccade.api.planning import settle

    for name in ("maskrcnn/resnet10t", "maskrcnn_resnet50_fpn"):
        assert settle(None, {"model": name})["model"] == name
    with pytest.raises(UserError, match="unknown model 'resnet51'"):
        settle(None, {"model": "maskrcnn/resnet51"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("maskrcn_resnet50_fpn", "did you mean maskrcnn_resnet50_fpn"),
        ("maskrcnn/resnet51", "unknown model 'resnet51'"),
        ("fasterrcnn/resnet50", "unknown model 'fasterrcnn/resnet50'"),
        ("maskrcnn/vit_tiny_patch16_224", "gives no maps at strides 4, 8, 16, 32, which maskrcnn needs"),
    ],
)
def test_names_that_are_none(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name)


def test_a_head_on_a_network_has_no_published_weights() -> None:
    with pytest.raises(UserError, match=f"no weights are published for {TINY}"):
        TASK.check(settings(TINY, pretrained=True))


@pytest.mark.parametrize("change", [{"name": "fasterrcnn_resnet50_fpn"}, {"name": "resnet50"}, {"arguments": {}}], ids=str)
def test_cards_that_are_none(change: dict[str, Any]) -> None:
    card = Card("instances", ("a",), models.THEIRS.architecture(TINY, classes=1, channels=3), InputSpec(3, (64, 64), "fit", MEAN, STD))
    with pytest.raises(UserError):
        TASK.build(replace(card, architecture={**card.architecture, **change}))
