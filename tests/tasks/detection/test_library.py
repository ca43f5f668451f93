"""torchvision's detectors: what the table says of them, their doors, heads on any network of timm, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core import finish, keys
from saccade.core.card import Card
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.results import Detections
from saccade.data.sample import Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.objects.models import TAG
from saccade.objects.pyramid import Pyramid
from saccade.task import Budget
from saccade.tasks.detection import models
from saccade.tasks.detection.task import Detection
from saccade.training.step import Updater

SCHEMA = Schema("detect", ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
TASK = Detection()
LIGHT = (
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn/resnet10t",
    "retinanet/mobilenetv3_small_050",
    "fcos/vgg11",
    "fcos/torchvision/shufflenet_v2_x0_5",
)


def made(name: str, **changes: Any) -> tuple[Any, Card, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", "lr": 1e-3, **changes})
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


def test_the_table_is_torchvisions_own() -> None:
    from torchvision import models as theirs

    for name, (count, ap, file, _) in models.THEIRS.named.items():
        default = theirs.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        stated = default.meta
        assert (count, ap) == (stated["num_params"], stated["_metrics"]["COCO-val2017"]["box_map"]), name
        assert default.url.endswith(f"/{file}")
        assert {one.name for one in theirs.get_model_weights(name)} == {TAG}, "all that is published"  # type: ignore[attr-defined]
    known = {name for name in theirs.list_models(theirs.detection) if not name.startswith(("maskrcnn", "keypoint"))}
    assert known == set(models.THEIRS.named)


def same(found: torch.Tensor, again: torch.Tensor) -> None:
    """Scores to 1e-4, boxes to 0.05 px: each that is found stands in the other of its image and class, in whatever order (equally sure
    ones may change places)."""
    for one, other in zip(found, again, strict=True):
        sure, label = one[:, 4:].sigmoid().max(1)
        sure_again, label_again = other[:, 4:].sigmoid().max(1)
        far = (one[:, None, :4] - other[None, :, :4]).abs().amax(2)
        fits = (far <= 0.05) & (label[:, None] == label_again) & ((sure[:, None] - sure_again).abs() <= 1e-4)
        assert fits[sure > 1e-3].any(1).all()


@pytest.mark.long
@pytest.mark.parametrize("name", LIGHT)
def test_the_doors(name: str) -> None:
    """The card alone rebuilds it; it learns; images of one shape do not depend on each other; what it finds can be explained."""
    network, card, config = made(name)
    batch = TASK.example(3, keys.generator(0, "library", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    found = [update.step([batch], step, 1.0)["loss"] for step in range(4)]
    assert np.isfinite(found).all() and min(found[-2:]) < found[0], found
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert torch.equal(outputs, other(batch.images))
        eight = TASK.example(8, keys.generator(0, "library", 1)).images
        whole = network(eight)
        for count in (1, 3):
            same(whole, torch.cat([network(part) for part in eight.split(count)]))
        decoded = TASK.decode(outputs, (64, 64))
    assert outputs.shape == (3, finish.MOST, 4 + 3) and outputs.dtype == torch.float32
    results = finish.results(decoded, card, [(128, 128)] * 3, list("xyz"), complete=True)
    assert all(isinstance(one, Detections) for one in results) and any(map(len, results))  # type: ignore[arg-type]
    first = next(place for place, one in enumerate(results) if len(one))  # type: ignore[arg-type]
    wanted = [int(results[first].labels[0])]
    maps = gradcam(network, TASK.features(network), batch.images[first : first + 1], TASK.score, wanted)
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()
    with pytest.raises(UserError, match="the file holds 1,000"):
        TASK.build(read, 1000)


@pytest.mark.parametrize(
    "name", ["fasterrcnn/densenet121", "retinanet/vgg16_bn", "fasterrcnn/torchvision/resnet50", "fcos/torchvision/regnet_x_400mf"]
)
def test_heads_on_networks_of_many_kinds(name: str) -> None:
    head, _, network = name.partition("/")
    with torch.device("meta"):
        maps = Pyramid(network, head).eval()(torch.zeros(2, 3, 96, 160))
    finest = 4 if "rcnn" in head else 8
    assert [tuple(value.shape[2:]) for value in maps.values()][:3] == [(96 // s, 160 // s) for s in (finest, 2 * finest, 4 * finest)]
    assert {value.shape[1] for value in maps.values()} == {256}


def test_images_without_objects_and_crowds_are_learned_from() -> None:
    network, _, config = made("ssdlite320_mobilenet_v3_large")
    batch = TASK.example(2, keys.generator(0, "library", 0))
    labels = torch.tensor([[-1], [-2]])
    empty = replace(batch, targets={"boxes": torch.zeros(2, 1, 4), "labels": labels})
    (phase,) = TASK.phases(network.train(), config)
    found = phase.loss(empty, 0)
    assert torch.isfinite(found.total) and found.weight == 2


def test_a_single_image() -> None:
    """As an image of a batch of two: the last map of an SSD is a single place."""
    network, _, config = made("ssdlite320_mobilenet_v3_large")
    (phase,) = TASK.phases(network.train(), config)
    one = TASK.example(1, keys.generator(0, "library", 0))
    found = phase.loss(one, 0)
    assert torch.isfinite(found.total) and found.weight == 1


def test_images_that_are_small_for_a_network() -> None:
    network, _, _ = made("ssd300_vgg16")
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape == (1, finish.MOST, 7)


def test_a_name_is_found_without_its_task() -> None:
    from saccade.api.planning import settle

    for name in (
        "fasterrcnn/resnet10t",
        "fcos/torchvision/shufflenet_v2_x0_5",
        "small_instances",
        "resnet18.a1_in1k",
        "vqvae",
        "ssd300_vgg16",
    ):
        assert settle(None, {"model": name})["model"] == name
    with pytest.raises(UserError, match="unknown model 'resnet51'"):
        settle(None, {"model": "fasterrcnn/resnet51"})
    with pytest.raises(UserError, match="did you mean small_detector"):
        settle(None, {"model": "smal_detector"})


def test_grey_images() -> None:
    network, card, _ = made("ssdlite320_mobilenet_v3_large", channels=1)
    assert card.input.channels == 1
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 1, 64, 96, dtype=torch.uint8)).shape == (1, finish.MOST, 7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fasterrcn_resnet50_fpn", "did you mean fasterrcnn_resnet50_fpn"),
        ("fasterrcnn/resnet51", "unknown model 'resnet51'"),
        ("maskrcnn/resnet50", "unknown model 'maskrcnn/resnet50'"),
        ("fasterrcnn/vit_tiny_patch16_224", "gives no maps at strides 4, 8, 16, 32, which fasterrcnn needs"),
        ("retinanet/local-dir:/etc", "unknown model"),
        ("fasterrcnn/resnet18.nonsense", "unknown model"),
        ("fcos/torchvision/shufflenet_v2_x0_6", "did you mean shufflenet_v2_x0_5"),
        ("fcos/torchvision/fasterrcnn_resnet50_fpn", "unknown model"),
        ("fcos/torchvision/squeezenet1_1", "gives no maps at strides 8, 16, 32, which fcos needs"),
        ("fasterrcnn/swin_tiny_patch4_window7_224", "gives no maps for images of any size"),
    ],
)
def test_names_that_are_none(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name)


def test_a_head_on_a_network_has_no_published_weights() -> None:
    config = made("ssdlite320_mobilenet_v3_large")[2]
    with pytest.raises(UserError, match="no weights are published for fasterrcnn/resnet10t"):
        TASK.check(override(config, {"model": "fasterrcnn/resnet10t", "pretrained": True}))


@pytest.mark.parametrize(
    "change", [{"name": 3}, {"name": "resnet50"}, {"arguments": {"classes": 9, "channels": 3}}, {"arguments": {}}], ids=str
)
def test_cards_that_are_none(change: dict[str, Any]) -> None:
    card = made("ssdlite320_mobilenet_v3_large")[1]
    with pytest.raises(UserError):
        TASK.build(replace(card, architecture={**card.architecture, **change}))
