"""Mask2Former and EoMT in the room that segments."""

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
from saccade.core import finish, keys
from saccade.core.card import Card
from saccade.core.class_masks import IGNORED
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.sample import Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.task import Budget
from saccade.tasks.segmentation.models.semantic import _goals
from saccade.tasks.segmentation.task import Segmentation
from saccade.training.step import Updater
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here
from tiny_queries import TINY, figures_by_batch, tiny  # noqa: F401  a fixture

TASK = Segmentation()
SCHEMA = Schema("segment", ("a", "b", "c"), {"train": (0, 0, 0)}, 3, (64, 64), True, {"train": 240, "val": 6}, None, (0.9, 0.07, 0.03))
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


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_the_doors(name: str) -> None:
    """The card alone rebuilds it; it learns; an image does not depend on its neighbours; any size; what it says can be explained."""
    network, card, config = made(name, lr=3e-3)
    batch = TASK.example(4, keys.generator(0, "queries", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    update.progress = lambda step: step / 12
    found = [update.step([batch], step, 1.0)["loss"] for step in range(12)]
    assert np.isfinite(found).all() and min(found[-2:]) < 0.9 * found[0], found
    assert network.shares is None or network.shares.tolist() == [0, 0], "the run has told how far it is"
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert torch.equal(outputs, other(batch.images))
        torch.testing.assert_close(network(batch.images[1:2]).softmax(1), outputs[1:2].softmax(1), atol=1e-4, rtol=1e-4)
        assert network(batch.images[:1, :, :17, :41]).shape == (1, 3, 17, 41)
        assert network(batch.images[:1, :1].expand(-1, 3, -1, -1)).isfinite().all()
    assert outputs.shape == (4, 3, 64, 64) and outputs.dtype == torch.float32
    maps = gradcam(network, TASK.features(network), batch.images[:1], TASK.score, [0])
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()
    answers: Any = finish.results(TASK.decode(outputs, (64, 64)), card, [(64, 64)] * 4, list("wxyz"))
    assert all(one.mask.shape == (64, 64) and one.uncertainty is not None for one in answers)


def test_answers_are_as_published() -> None:
    """The library's own post-processing, at whose fixed size its masks are held."""
    network, card, _ = made("eomt_large")
    image = torch.randint(0, 256, (1, 3, 384, 384), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        told = network.eval().layers(image)[-1]
        outputs = network(image)
    given = EomtForUniversalSegmentationOutput(class_queries_logits=told.classes, masks_queries_logits=told.masks)
    size = {"shortest_edge": 384, "longest_edge": 384}
    (theirs,) = EomtImageProcessor().post_process_semantic_segmentation(given, target_sizes=[(384, 384)], size=size)
    (ours,) = finish.results(TASK.decode(outputs, (384, 384)), card, [(384, 384)], ["x"])
    assert len(theirs.unique()) > 1 and (ours.mask == theirs.numpy()).mean() > 0.9999  # type: ignore[union-attr]


def test_pixels_that_count_in_nothing() -> None:
    classes = torch.tensor([[2, 2, IGNORED], [0, IGNORED, 0]], dtype=torch.uint8)
    goals = _goals(classes)
    assert goals.labels.tolist() == [0, 2] and goals.labels.dtype == torch.int64
    assert goals.masks.tolist() == [[[0, 0, 0], [1, 0, 1]], [[1, 1, 0], [0, 0, 0]]]
    assert goals.counted.tolist() == [[1, 1, 0], [1, 0, 1]]
    nothing = _goals(torch.full((4, 4), IGNORED, dtype=torch.uint8))
    assert nothing.masks.shape == (0, 4, 4) and nothing.counted.sum() == 0


@pytest.mark.parametrize("name", TINY)
def test_images_of_which_nothing_is_known(name: str) -> None:
    network, _, config = made(name)
    batch = TASK.example(2, keys.generator(0, "queries", 0))
    (phase,) = TASK.phases(network.train(), config)
    found = phase.loss(replace(batch, targets={"classes": torch.full_like(batch.targets["classes"], IGNORED)}), 0)
    found.total.backward()
    assert torch.isfinite(found.total) and found.weight == 2
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters())


def test_its_loss_is_its_own() -> None:
    config, reasons = TASK.recipe(SCHEMA, "cpu", Budget(model="eomt_large"))
    assert config.segmentation.class_weights == () and config.lr == 1e-4
    assert any("a loss of its own" in line for line in reasons) and not any(line.startswith("segmentation.dice") for line in reasons)
    for change in ({"segmentation.dice": 0.5}, {"segmentation.lovasz": 1}, {"segmentation.class_weights": [1, 2, 3]}):
        with pytest.raises(UserError, match="a loss of its own") as caught:
            TASK.check(settings("mask2former_swin_tiny", **change))
        assert caught.value.where == next(iter(change))
    with pytest.raises(UserError, match="a class for each pixel"):
        TASK.check(settings("eomt_large", **{"segmentation.multi": True}))


def test_weights_under_other_licences() -> None:
    for name, license in (("mask2former_swin_tiny", "cc-by-nc-4.0"), ("eomt_dinov3_large", "dinov3-license")):
        with pytest.raises(UserError, match=f"are under {license}"):
            TASK.check(settings(name, pretrained=True))
        TASK.check(settings(name, pretrained=True, license=(license,)))
    TASK.check(settings("eomt_large", pretrained=True))
    with pytest.raises(UserError, match="did you mean eomt_large"):
        TASK.check(replace(settings("eomt_large"), model="eomt_larg"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask2former_swin_tiny", "eomt_large"])
def test_a_run_on_files(name: str, tmp_path: Path) -> None:
    """Images of odd sizes are learned from, measured alike in batches of 1, 3 and 8, and answered for at their own pixels."""
    data = tmp_path / "set"
    saccade.data.make("shapes", task="segment", n=24, size=(61, 83), out=data, seed=1)
    run = saccade.train(data, out=tmp_path / "run", model=name, size="64", epochs=2, batch=4, device="cpu", seed=1, progress=Silent())
    first, *others = figures_by_batch(run.path, data)
    assert first["miou"] is not None
    for other in others:
        assert other == pytest.approx(first, abs=1e-4)
    measured = saccade.eval(run.path, split="val", progress=Silent()).metrics
    assert measured["miou"] == pytest.approx(first["miou"], abs=1e-4)
    image = np.random.default_rng(0).integers(0, 256, (17, 11, 3), dtype=np.uint8)
    (answer,) = saccade.load(run.path).predict(image).results
    assert answer.mask.shape == (17, 11)
