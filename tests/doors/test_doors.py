"""Every door of every room: a room that keeps to these can be trained, measured, explained and shipped by all engines."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import small_jobs
from saccade.core import finish, keys
from saccade.core.card import Card
from saccade.core.class_masks import Packed
from saccade.core.config import GROUPS, TrainConfig, override
from saccade.core.errors import UserError
from saccade.core.geometry import whole
from saccade.core.results import OBJECTS
from saccade.data.sample import Objects, Sample, Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import weights
from saccade.task import SECTIONS, Budget, Task, refuse_sections
from saccade.tasks import MAKING, ROOMS, answering, making, room
from saccade.training.step import Updater

SIZE = (16, 16)
SCHEMAS = {
    name: Schema(name, ("a", "b", "c"), {"train": (80, 80, 80), "val": (2, 2, 2)}, 3, SIZE, True, {"train": 240, "val": 6})
    for name in ("classify", "detect", "instances", "segment", "panoptic", "generate")
}
SCHEMAS["panoptic"] = replace(SCHEMAS["panoptic"], stuff=(2,))
BOXED = (*OBJECTS, "panoptic")  # truths are objects
CPU = torch.device("cpu")
OTHERS = ("timm", "torchvision", "transformers")
DOORS = [(name, row.name) for name in ROOMS for row in room(name).models() if row.source not in OTHERS] + [("classify", "resnet18")]
ANSWERING = [(name, model) for name, model in DOORS if name not in MAKING]
MAKERS = [(name, model) for name, model in DOORS if name in MAKING]


def config(name: str, model: str = "", size: tuple[int, int] = SIZE) -> TrainConfig:
    chosen, _ = room(name).recipe(SCHEMAS[name], "cpu", Budget(model=model, size=size, epochs=1))
    return override(chosen, {"device": "cpu", "precision": "fp32", "seed": 3})


@pytest.mark.parametrize("name", ["classify", "detect", "instances", "segment"])
def test_who_asks_for_published_weights_gets_a_model_that_has_some(name: str) -> None:
    chosen, reasons = room(name).recipe(SCHEMAS[name], "cpu", Budget(pretrained=True, published=True))
    (row,) = [row for row in room(name).models() if row.name == chosen.model]
    assert row.license in ("apache-2.0", "bsd-3-clause") and row.metric
    assert f"model: {chosen.model}, the smallest usual one with published weights" in reasons
    room(name).check(replace(chosen, pretrained=True))
    assert room(name).recipe(SCHEMAS[name], "cpu", Budget(pretrained=True))[0].model != chosen.model, "weights from a file are of ours"


@cache
def made(name: str, model: str) -> tuple[Task, nn.Module, Card]:
    """A room, a network of it and its card; tests leave the network as it is."""
    torch.manual_seed(0)
    task = room(name)
    network, card = task.create(config(name, model), SCHEMAS[name])
    with torch.no_grad():
        for parameter in network.parameters():  # heads and last norms start at zero in some networks, which would hide faults
            parameter.add_(0.02 * torch.randn_like(parameter))
    return task, network.eval(), card


def outputs(task: Task, network: nn.Module, n: int) -> torch.Tensor:
    """All numbers that a network gives: for images, or, where it makes images, for latents."""
    batch = example(task, n)
    given = (batch.images,) if task.name not in MAKING else (torch.randn(n, network.latent), batch.targets["label"])  # type: ignore[call-overload]
    found = network(*given)
    return torch.cat([one.flatten() for one in found]) if isinstance(found, tuple) else found


def example(task: Task, n: int) -> Any:
    return task.example(n, keys.generator(0, "doors", 0))


def truths(name: str, batch: Any) -> list[Any]:
    """What is to be learned of each image of an example, as an evaluation takes it."""
    if name == "segment":
        return [Packed.of(mask) for mask in batch.targets["classes"].numpy()]
    return list(small_jobs.boxed(batch).targets) if name in BOXED else batch.targets["label"].tolist()


def test_every_room_is_tested_here() -> None:
    assert set(SCHEMAS) == set(ROOMS)
    with pytest.raises(UserError, match="unknown task"):
        room("clasify")


@pytest.mark.parametrize("name", ROOMS)
def test_settings_of_other_rooms_are_refused(name: str) -> None:
    """Else they would be passed over."""
    assert {*SECTIONS, "augment"} == set(GROUPS)
    task, plain = room(name), config(name)
    task.check(plain)
    refuse_sections(plain, name)
    for section, whose in SECTIONS.items():
        for one in fields(getattr(plain, section)) if name not in whose else ():
            changed = replace(plain, **{section: replace(getattr(plain, section), **{one.name: "other"})})  # type: ignore[arg-type]
            words = f'{section}.{one.name}: is for {", ".join(whose)}, and must be .* for {name}, was "other" .leave it out'
            with pytest.raises(UserError, match=words):
                refuse_sections(changed, name)


@pytest.mark.parametrize(("name", "model"), DOORS)
def test_the_card_alone_rebuilds_the_network(name: str, model: str) -> None:
    task, network, card = made(name, model)
    read = Card.from_json(card.to_json())
    assert read.to_json() == card.to_json()
    torch.manual_seed(12345)
    other = task.build(read, sum(value.numel() for value in network.state_dict().values())).eval()

    def of(module: nn.Module) -> torch.Tensor:
        torch.manual_seed(1)
        return outputs(task, module, 4)

    with torch.no_grad():
        fresh = of(other)
        weights.load_into(other, weights.to_buffers(network), where="x")
        assert torch.equal(of(other), of(network))
        assert not torch.equal(fresh, of(network))
    with pytest.raises(UserError):
        task.build(read, 1000)


@pytest.mark.parametrize(("name", "model"), ANSWERING)
def test_which_tensors_have_rows_of_classes_is_known(name: str, model: str) -> None:
    task, network, card = made(name, model)
    wider = replace(SCHEMAS[name], classes=("a", "b", "c", "d"))
    other, _ = task.create(config(name, model), wider)
    rows = weights.rows_of_classes(network, other, len(card.classes))
    layers = {one.rpartition(".")[0] for one in rows}
    assert len(layers) == {"small_unet": 5, "small_panoptic": 2}.get(model, 1) and len(rows) <= 2 * len(layers), (
        "weight and bias of the last layers"
    )
    assert all(part.first == 0 and part.each in (1, 4) for part in rows.values())


@pytest.mark.parametrize(("name", "model"), ANSWERING)
def test_decoded_shapes_do_not_depend_on_the_batch(name: str, model: str) -> None:
    _, network, _ = made(name, model)
    task = answering(name, "this test")
    images = example(task, 5).images
    with torch.no_grad():
        five, one = (task.decode(network(some), SIZE) for some in (images, images[:1]))
    assert five.keys() == one.keys()
    for key, value in five.items():
        assert (len(value), len(one[key])) == (5, 1)
        assert value.shape[1:] == one[key].shape[1:]
        assert value.dtype == torch.float32
        if key not in finish.BY_RANK:  # of places that are equally sure but for the last bits any may stand first
            # Logits have no scale of their own: held to the same are the probabilities that they stand for, as other rooms give them.
            first, alone = (part.softmax(1) if key == "logits" else part for part in (value[:1], one[key]))
            torch.testing.assert_close(first, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "model"), [*ANSWERING, *((name, model) for name, model in MAKERS if "gan" not in model)])
def test_a_few_steps_learn_the_example(name: str, model: str) -> None:
    task = room(name)
    settings = override(config(name, model), {"lr": 3e-3, "label_smoothing": 0.0})
    torch.manual_seed(0)
    network, _ = task.create(settings, SCHEMAS[name])
    update = Updater(network, task.phases(network, settings), settings, "fp32")
    batch = example(task, 12)
    part = "boxes" if name in OBJECTS else ""  # goals of its classes rise as boxes get better
    found = [update.step([batch], step, 1.0) for step in range(12)]
    losses = [means[part] if part else next(iter(means.values())) for means in found]
    least = 0.6 if name == "classify" else 0.8  # of the noise in the example's pixels nothing can be learned
    assert min(losses[-3:]) < least * losses[0], losses


@pytest.mark.parametrize(("name", "model"), ANSWERING)
def test_features_and_score_serve_attribution(name: str, model: str) -> None:
    _, network, _ = made(name, model)
    task = answering(name, "this test")
    images = example(task, 3).images
    layer = task.features(network)
    assert any(layer is part for part in network.modules())
    maps = gradcam(network, layer, images, task.score, [0, 1, 2])
    assert maps.shape == (3, *images.shape[2:])
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() == 1
    outputs = network(images)
    score = task.score(outputs, torch.tensor([2, 0, 1]))
    assert score.shape == (3,)
    assert score.requires_grad


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ANSWERING[0],
        ("detect", "small_detector"),
        ("instances", "small_instances"),
        ("segment", "small_unet"),
        ("panoptic", "small_panoptic"),
    ],
)
def test_metrics(name: str, model: str) -> None:
    _, network, card = made(name, model)
    task = answering(name, "this test")
    batch = example(task, 9)
    with torch.no_grad():
        outputs = {key: value.numpy() for key, value in task.decode(network(batch.images), SIZE).items()}
    sizes = [(64, 64) if name in ("segment", "panoptic") else (20, 30)] * 9  # the truth lies in pixels of the image
    results = finish.results(outputs, card, sizes, [f"{i}.png" for i in range(9)], complete=True)
    right = truths(name, batch)
    empty, one, parts, twice = (task.metrics(card) for _ in range(4))
    assert set(empty.compute().values()) == {None}
    one.update(results, right)
    parts.update(results[:4], right[:4])
    parts.update(results[4:], right[4:])
    figures = one.compute()
    assert one.primary in figures
    assert figures == pytest.approx(parts.compute())
    weight = np.array([0, 2, 1, 3, 0, 1, 1, 0, 2])
    twice.update(list(np.repeat(np.array(results, object), weight)), [one for one, n in zip(right, weight, strict=True) for _ in range(n)])
    assert one.compute(weight) == pytest.approx(twice.compute())
    assert len(one.per_class()) == len(card.classes)
    json.dumps([figures, one.per_class(), one.details(), one.row(results[0], right[0])], allow_nan=False)
    picture = task.draw(batch.images[0].permute(1, 2, 0).numpy(), results[0], right[0])
    assert min(picture.size) >= 16


@pytest.mark.parametrize("size", [(16, 16), (70, 90)], ids=["small", "large"])
@pytest.mark.parametrize("name", ROOMS)
def test_augmentation_is_a_function_of_the_position(name: str, size: tuple[int, int]) -> None:
    augment = room(name).augment(config(name, size=size))
    raw = np.random.Generator(np.random.Philox(0)).integers(0, 255, (101, 117, 3), dtype=np.uint8)
    kept = augment.preparation.apply(raw)
    none = np.zeros(1, bool)
    target: Any = Objects(np.array([[2.0, 3, 60, 50]]), np.array([1]), none, none) if name in BOXED else 1
    if name == "segment":
        target = np.zeros(kept.shape[:2], np.uint8)
        target[:, 40:] = 1
    assert kept.dtype == np.uint8
    assert augment.preparation.name

    def batch(positions: list[int]) -> Any:
        samples = []
        for p in positions:
            several = [Sample(kept, target, 0, "x")] * (1 + len(augment.partners(p)))
            samples.append(augment.apply(several, keys.generator(3, "augment", p)))
        return augment.collate(samples, np.array(positions))

    both = batch([4, 5, 6, 7])
    assert both.images.shape == (4, 3, *(whole(size, room(name).resize(config(name, size=size)))))
    assert both.images.dtype == torch.uint8
    assert all(len(value) == 4 for value in both.targets.values())
    assert torch.equal(both.images, batch([4, 5, 6, 7]).images)
    assert torch.equal(both.images[2:], batch([6, 7]).images), "whole pairs may stand in any micro-batch"
    differing = [*both.targets.values(), both.images]
    assert any(not torch.equal(value[0], value[2]) for value in differing), "each position draws its own numbers"


@pytest.mark.parametrize(("name", "model"), MAKERS)
def test_images_are_made_one_by_one_as_together(name: str, model: str) -> None:
    _, network, card = made(name, model)
    task = making(name)
    latents = np.random.default_rng(0).standard_normal((5, task.latent(network)), np.float32)
    labels = np.arange(5) % 3
    assert task.frequencies(network).tolist() == pytest.approx([1 / 3] * network.classes)  # type: ignore[operator]
    five, one = task.sample(network, latents, labels), task.sample(network, latents[3:4], labels[3:4])
    assert five.shape == (5, *card.input.size, card.input.channels)
    assert five.dtype == np.uint8
    assert np.abs(five[3:4].astype(int) - one).max() <= 1
    assert task.sample(network, latents[:0], labels[:0]).shape == (0, *five.shape[1:])
    if network.classes:
        with pytest.raises(UserError, match="labels are needed"):
            task.sample(network, latents, None)
    assert network.training is False


@pytest.mark.parametrize(("name", "model"), MAKERS)
def test_a_step_of_a_maker_moves_every_part(name: str, model: str) -> None:
    settings = override(config(name, model), {"lr": 1e-3})
    torch.manual_seed(0)
    task = room(name)
    network, _ = task.create(settings, SCHEMAS[name])
    before = {key: value.clone() for key, value in network.named_parameters()}
    update = Updater(network, task.phases(network, settings), settings, "fp32")
    batch = task.augment(settings).collate(
        [Sample(image.permute(1, 2, 0).numpy(), i % 3, i, "x") for i, image in enumerate(example(task, 12).images)], np.arange(12)
    )
    for step in range(3):  # the last layer of each residual block starts at zero: those before it move from the second step on
        losses = update.step([batch], step, 1.0)
        assert all(np.isfinite(value) for value in losses.values())
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert still in ([], ["judge.score.bias"]), "a relativistic loss sees nothing but differences of scores"


@pytest.mark.parametrize(("model", "by_class"), [("r3gan", True), ("dcgan", True), ("vae", False), ("vqvae", True), ("vq_model", True)])
def test_which_models_make_images_by_class(model: str, by_class: bool) -> None:
    assert config("generate", model).generation.conditional is by_class


@pytest.mark.parametrize("name", ROOMS)
def test_the_recipe_gives_reasons_and_check_knows_the_names(name: str) -> None:
    task = room(name)
    chosen, reasons = task.recipe(SCHEMAS[name], "cpu", Budget())
    task.check(chosen)
    assert reasons
    assert all(reason and "\n" not in reason for reason in reasons)
    with pytest.raises(UserError, match="unknown model"):
        task.check(override(chosen, {"model": "no such network"}))


def some_rows() -> list[str]:
    """A dozen small networks of as many families of timm, the same each time."""
    rows = [row for row in room("classify").models() if row.source == "timm" and row.parameters < 6_000_000]
    random.Random(4).shuffle(rows)
    families = {row.name.split("_")[0].rstrip("0123456789"): row.name for row in rows}
    return sorted(list(families.values())[:12])


@pytest.mark.long
@pytest.mark.parametrize("model", some_rows())
def test_rows_of_the_table_build_for_small_images(model: str) -> None:
    torch.manual_seed(0)
    task = room("classify")
    network, card = task.create(config("classify", model, (32, 32)), SCHEMAS["classify"])
    other = task.build(Card.from_json(card.to_json()))
    weights.load_into(other, weights.to_buffers(network), where="x")
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        outputs = network.eval()(images)
        assert outputs.shape == (2, 3)
        assert torch.equal(outputs, other.eval()(images))
