"""Mask2Former and EoMT in the room of instances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.eomt.image_processing_eomt import EomtImageProcessor
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentationOutput

import saccade
from saccade.core import finish, keys, run_lengths
from saccade.core.card import Card
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.core.results import Instances
from saccade.data.sample import Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.queries.criterion import Answers
from saccade.task import Budget
from saccade.tasks.instances.models.masked import _boxes, _goals
from saccade.tasks.instances.task import Instances as Room
from saccade.training.step import Updater
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here
from tiny_queries import TINY, figures_by_batch, tiny  # noqa: F401  a fixture

TASK = Room()
SCHEMA = Schema("instances", ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
pytestmark = pytest.mark.usefixtures("tiny")


def settings(name: str, **changes: Any) -> Any:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    return override(config, {"device": "cpu", "precision": "fp32", **changes})


def made(name: str, **changes: Any) -> tuple[Any, Card, Any]:
    config = settings(name, **changes)
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


def shaken(name: str) -> tuple[Any, Card]:
    network, card, _ = made(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval(), card


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_the_doors(name: str) -> None:
    """The card alone rebuilds it; it learns; what it finds are instances with masks, and can be explained."""
    network, card, config = made(name, lr=3e-3)
    batch = TASK.example(4, keys.generator(0, "queries", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    update.progress = lambda step: step / 12
    found = [update.step([batch], step, 1.0)["loss"] for step in range(12)]
    assert np.isfinite(found).all() and min(found[-2:]) < 0.9 * found[0], found
    read = Card.from_json(card.to_json())
    assert read.architecture["nms"] is False
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert all(torch.equal(one, same) for one, same in zip(outputs, other(batch.images), strict=True))
        decoded, alone = TASK.decode(outputs, (64, 64)), TASK.decode(network(batch.images[1:2]), (64, 64))
    torch.testing.assert_close(decoded["scores"][1:2], alone["scores"], atol=1e-4, rtol=0)
    results: Any = finish.results(decoded, card, [(128, 96)] * 4, list("wxyz"), complete=True)
    assert all(isinstance(one, Instances) for one in results)
    maps = gradcam(network, TASK.features(network), batch.images[:1], TASK.score, [0])
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(64, 96), (47, 31), (17, 11)], ids=str)
def test_boxes_are_those_of_the_masks(name: str, size: tuple[int, int]) -> None:
    """In the original's pixels, to the pixel."""
    network, card = shaken(name)
    card = replace(card, input=replace(card.input, size=(size[0] + 5, size[1])))
    shape = [-(-side // 32) * 32 for side in size]
    with torch.no_grad():
        decoded = TASK.decode(network(torch.randint(0, 256, (1, 3, *shape), dtype=torch.uint8)), (64, 64))
    (found,) = finish.results(decoded, card, [size], ["x"], complete=True)
    assert len(found)  # type: ignore[arg-type]
    for box, mask in zip(found.boxes, found.masks, strict=True):  # type: ignore[union-attr]
        rows, columns = np.nonzero(run_lengths.to_mask(mask))
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == tight


def test_boxes_of_masks() -> None:
    masks = torch.full((1, 3, 8, 8), -1.0)
    masks[0, 0, 2:4, 3:6] = 1.0
    masks[0, 1, 7, 7] = 1e-6
    assert _boxes(masks)[0].tolist() == [[12, 8, 24, 16], [30, 30, 32, 32], [0, 0, 0, 0]]


def test_answers_are_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own post-processing: its scores, and its masks at the pixels of the input."""
    network, card = shaken("eomt_large")
    card = replace(card, input=replace(card.input, size=(384, 384)))
    rng = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(5 * torch.randn(1, 12, 5, 5, generator=rng), (96, 96), mode="bicubic")
    told = Answers(2 * torch.randn(1, 12, 4, generator=rng), smooth)
    monkeypatch.setattr(network, "layers", lambda images: [told])
    outputs = network(torch.zeros(1, 3, 384, 384, dtype=torch.uint8))
    given = EomtForUniversalSegmentationOutput(class_queries_logits=told.classes, masks_queries_logits=told.masks)
    size = {"shortest_edge": 384, "longest_edge": 384}
    (theirs,) = EomtImageProcessor().post_process_instance_segmentation(given, [(384, 384)], threshold=0.0, size=size)
    (ours,) = finish.results(TASK.decode(outputs, (384, 384)), card, [(384, 384)], ["x"], complete=True)
    ranked: Any = ours
    assert len(theirs["segments_info"]) > 3
    for row in theirs["segments_info"]:
        mask = (theirs["segmentation"] == row["id"]).numpy()
        alike = [place for place, label in enumerate(ranked.labels.tolist()) if label == row["label_id"]]
        nearest = min(alike, key=lambda place: abs(float(ranked.scores[place]) - row["score"]))
        assert float(ranked.scores[nearest]) == pytest.approx(row["score"], abs=0.005)
        assert not (mask & ~run_lengths.to_mask(ranked.masks[nearest])).any(), "what lies over it takes of its pixels"


def test_crowds_count_in_no_mask() -> None:
    masks = torch.zeros(4, 2, 3, dtype=torch.uint8)
    masks[0, 0], masks[1, :, 0], masks[2] = torch.tensor([255, 51, 0]), 200, 0
    goals = _goals(masks, torch.tensor([2, -2, 1, -1]))
    assert goals.labels.tolist() == [2], "what shows nothing is not looked for"
    torch.testing.assert_close(goals.masks[0], torch.tensor([[1.0, 0.2, 0], [0, 0, 0]]))
    assert goals.counted.tolist() == [[0, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize("name", TINY)
def test_images_without_objects_crowds_and_a_hundred_objects(name: str) -> None:
    network, _, config = made(name)
    batch = TASK.example(2, keys.generator(0, "queries", 0))
    (phase,) = TASK.phases(network.train(), config)
    many = torch.randint(0, 2, (2, 100, 16, 16), dtype=torch.uint8) * 255
    targets = {"none": (many[:, :1] * 0, [[-1]] * 2), "crowds": (many[:, :1], [[-2]] * 2), "many": (many, [[1] * 100, [-1] * 100])}
    for what, (masks, labels) in targets.items():
        network.zero_grad()
        found = phase.loss(replace(batch, targets={**batch.targets, "masks": masks, "labels": torch.tensor(labels)}), 0)
        found.total.backward()
        assert torch.isfinite(found.total) and found.weight == (101 if what == "many" else 2), what
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters()), what


def test_weights_under_other_licences_and_names_that_are_none() -> None:
    for name, license in (("mask2former_swin_tiny", "cc-by-nc-4.0"), ("eomt_dinov3_large", "dinov3-license")):
        with pytest.raises(UserError, match=f"are under {license}"):
            TASK.check(settings(name, pretrained=True))
        TASK.check(settings(name, pretrained=True, license=(license,)))
    with pytest.raises(UserError, match="did you mean eomt_large"):
        TASK.check(replace(settings("eomt_large"), model="eomt_larg"))
    _, card, _ = made("eomt_large")
    for wrong in (replace(card, input=replace(card.input, resize="native")), replace(card, architecture={**card.architecture, "boxes": 3})):
        with pytest.raises(UserError, match="fitted whole"):
            TASK.build(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask2former_swin_tiny", "eomt_large"])
def test_a_run_on_files(name: str, tmp_path: Path) -> None:
    """Images of odd sizes are learned from, measured alike in batches of 1, 3 and 8, and answered for at their own pixels."""
    data = tmp_path / "set"
    saccade.data.make("shapes", task="instances", n=24, size=(61, 83), out=data, seed=1)
    run = saccade.train(data, out=tmp_path / "run", model=name, size="64x96", epochs=2, batch=4, device="cpu", seed=1, progress=Silent())
    first, *others = figures_by_batch(run.path, data)
    assert first["map"] is not None
    for other in others:
        assert other == pytest.approx(first, abs=1e-4)
    measured = saccade.eval(run.path, split="val", progress=Silent()).metrics
    assert measured["map"] == pytest.approx(first["map"], abs=1e-4)
    image = np.random.default_rng(0).integers(0, 256, (17, 11, 3), dtype=np.uint8)
    (answer,) = saccade.load(run.path).predict(image).results
    assert answer.size == (17, 11)
