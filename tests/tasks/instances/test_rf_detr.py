"""RF-DETR with masks: what the table says of it, the masks that the library finds, what it learns from, answers by the image alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import saccade
from saccade.core import finish, keys, modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.core.geometry import CELL, CONIC
from saccade.data.sample import Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import pretrained, weights
from saccade.objects.detr import built
from saccade.task import Budget
from saccade.tasks.instances.models.detr_rows import ROWS
from saccade.tasks.instances.task import Instances
from saccade.training.step import Updater
from small_detr import NAMES, TINY_MASKS

SCHEMA = Schema("instances", ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
TASK = Instances()
TINY = "tiny_rfdetr_seg"
PUBLISHED = tuple(ROWS)


@pytest.fixture(autouse=True)
def row_in_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROWS, TINY, TINY_MASKS)
        yield


def made(**changes: Any) -> tuple[Any, Card, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=TINY, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", **changes})
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


def shaken(network: Any) -> Any:
    """With answers that differ from place to place, as they do once it has learned."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_is_true(name: str) -> None:
    with torch.device("meta"):
        network = built(InputSpec(3, (64, 64), "fit", (0.0,) * 3, (1.0,) * 3), ROWS[name], 80)
    (row,) = saccade.models(name)
    assert sum(one.numel() for one in network.parameters()) == row.parameters
    assert (row.task, row.source, row.dataset, row.license) == ("instances", "transformers", "COCO val2017", "apache-2.0")
    assert row.metric is not None and 0.4 <= row.metric < 0.5


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (288, 384)], ids=str)
def test_the_masks_are_the_librarys(size: tuple[int, int]) -> None:
    """Sums of prototypes, one at each cell of what the image is padded to; of images that are enlarged, the means of theirs."""
    network = shaken(made()[0])
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        rows, prototypes = network(images)
        framed = network._framed(images)
        theirs = network.network(network._prepared(framed))
    down, across = framed.shape[2] // CELL, framed.shape[3] // CELL
    assert network.multiple == 36 and prototypes.shape[2:] == (down, across) and CELL * down >= size[0]
    about, mixed = rows[..., 7:].split([CONIC, prototypes.shape[1]], 2)
    assert (about[..., 1:] == 0).all() and (about[..., 0] == network.network.segmentation_bias).all()
    summed = torch.einsum("bqf,bfhw->bqhw", mixed, prototypes) + about[..., :1, None]
    factor = theirs.pred_masks.shape[2] // down
    assert factor == network.factor
    torch.testing.assert_close(summed, nn.functional.avg_pool2d(theirs.pred_masks, factor), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rows[..., 4:7], theirs.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.long
def test_the_doors() -> None:
    """The card alone rebuilds it; its answers become results with masks; images of one shape do not depend on each other."""
    network, card, _ = made()
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    network = shaken(network)
    weights.load_into(other, weights.to_buffers(network), where="x")
    images = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        outputs = network(images)
        decoded = TASK.decode(outputs, (96, 64))
        for place in range(3):
            alone = TASK.decode(other(images[place : place + 1]), (96, 64))
            for name, value in alone.items():
                torch.testing.assert_close(value[0], decoded[name][place], atol=2e-3, rtol=1e-3)
    fitted = replace(card, input=replace(card.input, size=(96, 64)))
    results: list[Any] = finish.results(decoded, fitted, [(190, 128)] * 3, list("xyz"), complete=True)
    assert all(len(one) and len(one.masks) == len(one.boxes) and one.masks[0].size == (190, 128) for one in results)
    maps = gradcam(network, TASK.features(network), images[:1].expand(3, -1, -1, -1), TASK.score, [0, 1, 2])
    assert maps.shape == (3, 96, 64) and np.isfinite(maps).all()


@pytest.mark.long
def test_it_learns_masks_too() -> None:
    network, _, config = made(lr=5e-3)
    batch = TASK.example(2, keys.generator(0, "rf_detr", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    found = [update.step([batch], step, 1.0) for step in range(24)]
    assert {"ce", "bbox", "giou", "mask_ce", "mask_dice"} <= set(found[0])
    assert all(np.isfinite(list(one.values())).all() for one in found)
    assert min(one["mask_dice"] for one in found[-3:]) < 0.95 * found[0]["mask_dice"]


def test_images_without_objects_and_crowds() -> None:
    network, _, config = made()
    batch = TASK.example(2, keys.generator(0, "rf_detr", 0))
    cells = batch.targets["masks"].shape[2:]
    (phase,) = TASK.phases(network.train(), config)
    names = set()
    for labels in ([[-1], [-1]], [[-2], [-2]], [[1], [-1]], [[1], [2]]):
        targets = {"boxes": torch.tensor([[[0.0, 0, 9, 9]]] * 2), "labels": torch.tensor(labels)}
        targets["masks"] = torch.full((2, 1, *cells), 255, dtype=torch.uint8)
        network.zero_grad()
        found = phase.loss(replace(batch, targets=targets), 0)
        found.total.backward()
        assert found.total.ndim == 0 and torch.isfinite(found.total), labels
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters()), labels
        names.add(tuple(found.parts))
    assert len(names) == 1, "processes add up the same parts, whatever their images hold"


def test_published_weights_and_the_authors_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    theirs = built(InputSpec(3, (64, 64), "fit", (0.0,) * 3, (1.0,) * 3), TINY_MASKS, 91)
    file = tmp_path / "model.safetensors"
    file.write_bytes(modelfile.pack(weights.to_buffers(theirs.network), {"format": "pt"}))
    monkeypatch.setattr(pretrained, "downloaded", lambda repo, name, revision: file)
    network, card, _ = made(pretrained=True)
    assert [link["weights"] for link in card.licenses] == ["nobody/tiny-rfdetr-seg"]
    state = theirs.state_dict()
    other = [key for key, value in network.state_dict().items() if not torch.equal(value, state[key])]
    assert other and all("class_embed." in key for key in other)
    for kind, old, *new in NAMES:
        if kind == "rf_detr_seg":
            found = network.translated(weights.to_buffers({old: torch.zeros(6, 2)}))
            assert list(found) == [f"network.{one}" for one in new], old
