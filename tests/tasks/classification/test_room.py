"""The room of classification but for its metrics and models: loss, decoding, recipe, augmentation, drawing, example."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.core import config as configuration
from saccade.core.config import AugmentConfig, TrainConfig
from saccade.core.results import Classification
from saccade.data.loader import Batch
from saccade.data.sample import Sample, Schema
from saccade.task import Budget
from saccade.tasks.classification.augmentation import ClassificationAugment
from saccade.tasks.classification.decode import decode
from saccade.tasks.classification.drawing import NEUTRAL, RIGHT, WRONG, caption
from saccade.tasks.classification.example import CLASSES, example
from saccade.tasks.classification.loss import cross_entropy
from saccade.tasks.classification.recipes import choose


def batch(label: torch.Tensor, other: torch.Tensor | None = None, share: torch.Tensor | None = None) -> Batch:
    targets = {"label": label, "other": label if other is None else other, "share": torch.ones(len(label)) if share is None else share}
    return Batch(torch.zeros(len(label), 1, 1, 1, dtype=torch.uint8), targets, np.arange(len(label)))


LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_torchs(smoothing: float) -> None:
    losses = cross_entropy(LOGITS, batch(LABELS), smoothing)
    assert torch.allclose(losses.total, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="sum"))
    assert losses.weight == 7.0 and losses.total.shape == ()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_pairs_is_that_of_their_mixed_probabilities(smoothing: float) -> None:
    other, share = LABELS.roll(1), torch.linspace(0, 1, 7)
    truth = F.one_hot(LABELS, 5) * share[:, None] + F.one_hot(other, 5) * (1 - share)[:, None]
    expected = F.cross_entropy(LOGITS, truth, label_smoothing=smoothing, reduction="sum")
    assert torch.allclose(cross_entropy(LOGITS, batch(LABELS, other, share), smoothing).total, expected)


def test_the_loss_in_half_precision_is_taken_in_single() -> None:
    losses = cross_entropy(LOGITS.bfloat16(), batch(LABELS), 0.1)
    assert losses.total.dtype == torch.float32
    assert torch.allclose(losses.total, cross_entropy(LOGITS.bfloat16().float(), batch(LABELS), 0.1).total)


def test_the_losses_of_parts_add_up() -> None:
    whole = cross_entropy(LOGITS, batch(LABELS), 0.1)
    parts = [cross_entropy(LOGITS[rows], batch(LABELS[rows]), 0.1) for rows in (slice(0, 3), slice(3, 7))]
    assert torch.allclose(whole.total, torch.stack([part.total for part in parts]).sum())
    assert sum(part.weight for part in parts) == whole.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_decode(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 0.0], [1000.0, -1000.0], [np.log(3), 0.0]]).to(dtype)
    probabilities = decode(logits)["probabilities"]
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities, torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.75, 0.25]]), atol=2e-3)
    assert decode(torch.empty(0, 3))["probabilities"].shape == (0, 3)


def schema(size: tuple[int, int], *, channels: int = 3, images: int = 600, uniform: bool = True) -> Schema:
    return Schema("classify", ("a", "b"), {"train": (images // 2, images - images // 2), "val": (5, 5)}, channels, size, uniform)


CASES = {
    "digits of 8 pixels": (schema((8, 8), channels=1, images=1500), "cpu", Budget()),
    "digits of 28 pixels": (schema((28, 28), channels=1, images=60_000), "cpu", Budget()),
    "small colour": (schema((32, 32), images=50_000), "cuda", Budget(epochs=3)),
    "icons of odd size": (schema((17, 11), uniform=False), "cpu", Budget(minutes=1)),
    "photos": (schema((480, 640), uniform=False), "cpu", Budget()),
    "grey photos": (schema((480, 640), channels=1), "cuda", Budget()),
    "fine-tuning": (schema((480, 640)), "cpu", Budget(pretrained=True, model="resnet18")),
    "a model by name": (schema((480, 640)), "cpu", Budget(model="resnet18", size=(96, 64))),
    "no training image": (schema((8, 8), images=0), "cpu", Budget()),
    "one image": (schema((1, 1), images=1), "cpu", Budget()),
}


@pytest.mark.parametrize("case", CASES)
def test_every_reason_starts_with_its_key_and_the_recipe_is_a_configuration(case: str) -> None:
    config, reasons = choose(*CASES[case])
    keys = [reason.partition(": ")[0] for reason in reasons]
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(keys) <= known and len(set(keys)) == len(keys) and {"size", "model", "batch", "augment", "epochs", "lr"} <= set(keys)
    assert all(reason.partition(": ")[2] and "\n" not in reason for reason in reasons)
    assert configuration.from_dict(config.to_dict()) == config
    assert config.channels == CASES[case][0].channels and config.epochs > 0


@pytest.mark.parametrize("case", CASES)
def test_reasons_name_the_values(case: str) -> None:
    config, reasons = choose(*CASES[case])
    told = dict(reason.split(": ", 1) for reason in reasons)
    assert told["size"].startswith(f"{config.size[0]}x{config.size[1]},") and told["model"].startswith(f"{config.model},")
    assert told["batch"].startswith(f"{config.batch},") and told["lr"].startswith(f"{config.lr:g},")


def test_small_grey_images_are_not_mirrored_and_photos_are() -> None:
    for case, (data, device, budget) in CASES.items():
        config, _ = choose(data, device, budget)
        characters = data.channels == 1 and max(data.size) <= 64
        assert (config.augment.flip == 0) == characters, case
        if data.channels == 1:
            assert config.augment.hue == config.augment.grey == 0
        if characters:
            assert config.augment.mixup == config.augment.cutmix == config.augment.color == 0 and config.augment.crop == 1


@pytest.mark.parametrize(
    ("case", "size", "model"),
    [
        ("digits of 8 pixels", (8, 8), "small_resnet_8px"),
        ("digits of 28 pixels", (28, 28), "small_resnet_28px"),
        ("small colour", (32, 32), "small_resnet_28px"),
        ("icons of odd size", (17, 11), "small_resnet_32px"),
        ("photos", (128, 128), "small_resnet_128px"),
        ("fine-tuning", (224, 224), "resnet18"),
        ("a model by name", (96, 64), "resnet18"),
    ],
)
def test_size_and_model_by_rule(case: str, size: tuple[int, int], model: str) -> None:
    config, _ = choose(*CASES[case])
    assert (config.size, config.model) == (size, model)


def test_epochs_and_minutes_by_rule() -> None:
    def chosen(images: int, device: str, **budget: float) -> TrainConfig:
        return choose(schema((480, 640), images=images), device, Budget(**budget))[0]  # type: ignore[arg-type]

    assert chosen(600, "cpu").minutes == 18 and chosen(600, "cuda").minutes is None and chosen(600, "cpu", epochs=3).minutes is None
    assert chosen(600, "cpu", minutes=2).minutes == 2 and chosen(600, "cpu", minutes=2).epochs == 2 * chosen(600, "cuda").epochs
    epochs = [chosen(images, "cuda").epochs for images in (0, 100, 5000, 20_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] == 400 and epochs[-1] == 8
    assert [chosen(images, "cuda").batch for images in (999, 1000, 19_999, 20_000)] == [32, 64, 64, 128]


def test_weights_that_have_learned_are_adapted_by_the_images_of_each_class() -> None:
    def chosen(each: int, **budget: Any) -> tuple[TrainConfig, dict[str, str]]:
        config, reasons = choose(schema((64, 64), images=2 * each), "cpu", Budget(**budget))
        return config, dict(reason.split(": ", 1) for reason in reasons)

    few, why = chosen(99, pretrained=True, model="resnet18")
    assert (few.lr, few.layer_decay) == (1e-3, 0.75)
    assert chosen(99, pretrained=True, model="cifar_resnet20")[0].layer_decay == 0.9
    assert why["layer_decay"].startswith("0.75, with 99 images a class") and why["lr"].startswith("0.001, as 198 images make few steps")
    many, why = chosen(100, pretrained=True, model="resnet18")
    assert (many.lr, many.layer_decay) == (3e-4, 1.0) and why["layer_decay"].startswith("1, one rate for all layers, as 100 images")
    assert ["probe" in chosen(each, pretrained=True)[1]["layer_decay"] for each in (4, 5)] == [True, False]
    for budget in ({}, {"model": "resnet18"}):
        config, why = chosen(10, **budget)
        assert config.layer_decay == 1 and "layer_decay" not in why
        assert config == choose(schema((64, 64), images=20), "cpu", Budget(**budget))[0]
    for config in (few, many):  # what would refuse --shard, or edits on the way
        assert not config.unfreeze and not config.start_decay


def test_without_augmentation_images_arrive_as_they_are() -> None:
    pixels = np.random.Generator(np.random.Philox(2)).integers(0, 256, (5, 17, 11, 3), dtype=np.uint8)
    samples = [Sample(image, i % 2, i, "") for i, image in enumerate(pixels)]
    made = ClassificationAugment(TrainConfig(size=(17, 11))).collate(samples, np.arange(5))
    assert torch.equal(made.images, torch.from_numpy(pixels).permute(0, 3, 1, 2)) and made.images.is_contiguous()
    assert made.targets["label"].tolist() == [0, 1, 0, 1, 0] and made.targets["share"].tolist() == [1] * 5


def test_labels_of_mixed_pairs_go_with_their_images() -> None:
    samples = [Sample(np.full((4, 4, 1), 10 * i, np.uint8), i, i, "") for i in range(8)]
    config = TrainConfig(size=(4, 4), channels=1, augment=AugmentConfig(mixup=1))
    made = ClassificationAugment(config).collate(samples, np.arange(8))
    mean = made.targets["share"] * made.targets["label"] * 10 + (1 - made.targets["share"]) * made.targets["other"] * 10
    assert made.targets["other"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert (made.images.float().mean((1, 2, 3)) - mean).abs().max() <= 0.5


@pytest.mark.parametrize(("size", "shape"), [((8, 8), (8, 8, 3)), ((17, 11), (17, 11, 3)), ((72, 80), (90, 115, 3))])
def test_what_is_kept_of_an_image(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    room = ClassificationAugment(TrainConfig(size=size))
    kept = room.preparation.apply(np.full((200, 256, 3), 7, np.uint8))
    assert kept.shape == shape and (kept == 7).all() and room.partners(5) == ()
    other = ClassificationAugment(TrainConfig(size=(size[0] + 1, size[1])))
    assert room.preparation.name != other.preparation.name


def answer(classes: tuple[str, ...] = ("cat", "dog")) -> Classification:
    probabilities = np.linspace(1, 0.1, len(classes), dtype=np.float32)
    return Classification(np.arange(len(classes)), probabilities, probabilities, classes)


def colours(picture: np.ndarray, top: int) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in picture[top:].reshape(-1, 3).tolist()}


@pytest.mark.parametrize(("truth", "colour"), [(None, NEUTRAL), (0, RIGHT), (1, WRONG)])
@pytest.mark.parametrize("shape", [(8, 8, 3), (17, 11, 1), (17, 11, 3), (300, 500, 3)])
def test_a_caption_stands_below_the_image(shape: tuple[int, int, int], truth: int | None, colour: str) -> None:
    image = np.random.Generator(np.random.Philox(3)).integers(0, 256, shape, dtype=np.uint8)
    page = caption(image, answer(), truth)
    factor = page.width // shape[1]
    assert page.mode == "RGB" and page.width == shape[1] * factor and max(shape[0] * factor, page.width) >= 224
    pixels, top = np.asarray(page), shape[0] * factor
    assert np.array_equal(pixels[:top:factor, ::factor], np.broadcast_to(image, (*shape[:2], 3)))
    assert page.height > top and tuple(bytes.fromhex(colour[1:])) in colours(pixels, top)


@pytest.mark.parametrize("name", ["x" * 255, "a b " * 60, "new\nline", "", "犬", "\udce9", "$\\frac{$", "\u202eabc", "…" * 40])
def test_captions_of_names_of_every_kind(name: str) -> None:
    image = np.zeros((17, 11, 1), np.uint8)
    for truth in (None, 0, 1):
        page = caption(image, answer((name, f"{name}2")), truth)
        assert page.size == caption(image, answer(), truth).size
        below = np.asarray(page)[17 * (page.width // 11) :]
        assert (below[:, -3:] == 255).all()  # nothing runs out of the picture


def test_a_caption_is_one_line() -> None:
    image = np.zeros((17, 11, 1), np.uint8)
    for truth in (None, 1):
        broken, straight = (caption(image, answer((f"new{gap}line", f"b{gap}c")), truth) for gap in ("\n", " "))
        assert np.array_equal(np.asarray(broken), np.asarray(straight))


def test_example_is_learnable_and_keyed() -> None:
    made = example(7, np.random.Generator(np.random.Philox(0)))
    again = example(7, np.random.Generator(np.random.Philox(0)))
    assert torch.equal(made.images, again.images) and made.images.shape == (7, 3, 16, 16) and made.images.dtype == torch.uint8
    assert made.targets["label"].tolist() == [0, 1, 2, 0, 1, 2, 0] and len(CLASSES) == 3
    patches = torch.stack([made.images[:, :, c : c + 6, c : c + 6].float().mean((1, 2, 3)) for c in (0, 10, 5)], 1)
    assert patches.argmax(1).tolist() == made.targets["label"].tolist()
    assert len(example(0, np.random.Generator(np.random.Philox(0)))) == 0
