"""Recipe, checks, cards, changes to images, and drawing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core import keys, modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import IGNORED, Packed, colour
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.geometry import FILL
from saccade.core.segmentation import Segmentation as Answer
from saccade.data.sample import Sample, Schema
from saccade.explanation.attribution import gradcam
from saccade.nn import checkpoints, pretrained, weights
from saccade.task import Budget
from saccade.tasks.segmentation import models
from saccade.tasks.segmentation.augmentation import ClassesAugment, gathered
from saccade.tasks.segmentation.drawing import drawn
from saccade.tasks.segmentation.task import Segmentation
from saccade.training.step import Updater

TASK = Segmentation()
SCHEMA = Schema(
    "segment", ("background", "a", "b"), {"train": (0, 0, 0)}, 3, (256, 256), True, {"train": 240, "val": 6}, None, (0.5, 0.3, 0.2)
)
LIGHT = ("unet/resnet10t", "fpn/mobilenetv3_small_050", "segformer/resnet10t", "deeplabv3plus/resnet18", "unet/vgg11", "unet/densenet121",
         "lraspp_mobilenet_v3_large", "segformer_b0")  # fmt: skip


def made(name: str, **changes: Any) -> tuple[Any, Card, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", **changes})
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


@pytest.mark.parametrize(
    ("size", "uniform", "native", "expected"),
    [
        ((256, 256), True, True, (256, 256)),
        ((520, 696), False, True, (256, 256)),
        ((100, 300), True, True, (128, 256)),
        ((17, 11), True, True, (32, 32)),
        ((3000, 4000), False, False, (384, 384)),
        ((1080, 1920), True, False, (224, 384)),
    ],
)
def test_sizes(size: tuple[int, int], uniform: bool, native: bool, expected: tuple[int, int]) -> None:
    config, reasons = TASK.recipe(replace(SCHEMA, size=size, uniform=uniform), "cpu", Budget())
    assert (config.size, config.segmentation.native) == (expected, native)
    assert any(line.startswith("minutes") for line in reasons)
    asked, _ = TASK.recipe(replace(SCHEMA, size=size, uniform=uniform), "cpu", Budget(size=(96, 64)))
    assert asked.size == (96, 64)


def test_networks_of_our_own_learn_by_muon_from_random_weights() -> None:
    for budget, expected in [(Budget(), "muon"), (Budget(pretrained=True), "adamw"), (Budget(model="unet/resnet18"), "adamw")]:
        config, reasons = TASK.recipe(SCHEMA, "cpu", budget)
        assert (config.optimizer, config.lr) == (expected, 3e-3 if expected == "muon" else 3e-4)
        assert ("to keep what the weights know" in reasons[-1]) is budget.pretrained
        assert any(line.startswith("optimizer: muon") for line in reasons) is (expected == "muon")


def test_images_are_seen_small_first_where_something_is_left_to_see() -> None:
    for size, budget, expected in [
        ((96, 96), Budget(), 0.5),
        ((32, 300), Budget(), 0.0),
        ((96, 96), Budget(pretrained=True), 0.0),
        ((96, 96), Budget(model="unet/resnet18"), 0.0),
    ]:
        config, reasons = TASK.recipe(replace(SCHEMA, size=size), "cpu", budget)
        assert config.segmentation.coarse == expected
        assert any(line.startswith("segmentation.coarse") for line in reasons) is bool(expected)


@pytest.mark.parametrize(("images", "minutes", "scales"), [(130, None, True), (130, 30.0, True), (130, 2.0, False), (700, None, False)])
def test_images_are_shown_at_other_scales_where_each_has_many_views(images: int, minutes: float | None, scales: bool) -> None:
    config, reasons = TASK.recipe(replace(SCHEMA, totals={"train": images}), "cpu", Budget(minutes=minutes))
    assert (config.augment.resize != (1.0, 1.0)) is scales
    assert any(line.startswith("augment:") and ("at other scales" in line) is scales for line in reasons)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.5, 0.3, 0.2), ()),
        ((0.9, 0.075, 0.025), ()),
        ((0.93, 0.065, 0.005), (1.0, 1.0, 2.0)),
        ((0.9999, 0.0001, 0.0), (1.0, 10.0, 10.0)),
        ((), ()),
    ],
)
def test_rare_classes_count_more(shares: tuple[float, ...], expected: tuple[float, ...]) -> None:
    config, reasons = TASK.recipe(replace(SCHEMA, shares=shares), "cpu", Budget())
    assert config.segmentation.class_weights == pytest.approx(expected)
    assert any(("rare classes count more" in line) is bool(expected) for line in reasons if line.startswith("segmentation.class_weights"))


def test_the_table_is_torchvisions_own() -> None:
    from torchvision import models as theirs

    for name, (count, iou, file) in models.TORCHVISION.items():
        default = theirs.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        stated = default.meta
        assert default.url.endswith(f"/{file}")
        assert (count, iou) == (stated["num_params"], stated["_metrics"]["COCO-val2017-VOC-labels"]["miou"]), name
        assert {one.name for one in theirs.get_model_weights(name)} == {models.TAG}, "all that is published"  # type: ignore[attr-defined]
    assert set(theirs.list_models(theirs.segmentation)) == set(models.TORCHVISION)


def test_our_own_parameters() -> None:
    for name, own in models.OWN.items():
        schema = replace(SCHEMA, classes=tuple(map(str, range(21))), shares=())
        config, _ = TASK.recipe(schema, "cpu", Budget(model=name))
        network, _ = TASK.create(config, schema)
        assert sum(p.numel() for p in network.parameters()) == own.parameters


@pytest.mark.long
@pytest.mark.parametrize("name", LIGHT)
def test_networks_of_libraries(name: str) -> None:
    """The card alone rebuilds it; it learns; an image does not depend on its neighbours; any size; what it says can be explained."""
    network, card, config = made(name, lr=1e-3)
    batch = TASK.example(3, keys.generator(0, "library", 0))
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    found = [update.step([batch], step, 1.0)["loss"] for step in range(5)]
    assert np.isfinite(found).all() and min(found[-2:]) < found[0], found
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    network.eval()
    with torch.no_grad():
        outputs = network(batch.images)
        assert torch.equal(outputs, other(batch.images))
        torch.testing.assert_close(network(batch.images[1:2]), outputs[1:2], atol=1e-4, rtol=1e-4)
        assert network(batch.images[:1, :, :17, :41]).shape == (1, 3, 17, 41)
    assert outputs.shape == (3, 3, 64, 64) and outputs.dtype == torch.float32
    maps = gradcam(network, TASK.features(network), batch.images[:1], TASK.score, [1])
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()
    with pytest.raises(UserError, match="the file holds 1,000"):
        TASK.build(read, 1000)


@pytest.mark.parametrize("decoder", sorted(models.DECODERS.keys() - {name.partition("/")[0] for name in LIGHT}))
def test_every_other_decoder_learns(decoder: str) -> None:
    """A step moves nearly all weights (some ReLU may be dead); a grey image of odd sides has a logit of each class at each pixel."""
    network, _, config = made(f"{decoder}/mobilenetv3_small_050", channels=1)
    batch = TASK.example(2, keys.generator(0, "library", 0))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    found = Updater(network, TASK.phases(network, config), config, "fp32").step([replace(batch, images=batch.images[:, :1])], 0, 1.0)
    moved = [not torch.equal(value, before[name]) for name, value in network.named_parameters()]
    assert np.isfinite(found["loss"]) and np.mean(moved) > 0.95
    with torch.no_grad():
        assert network.eval()(batch.images[:1, :1, :17, :41]).shape == (1, 3, 17, 41)


@pytest.mark.parametrize("name", list(models.segformer_rows.ROWS))
def test_sizes_of_segformer(name: str) -> None:
    from saccade.tasks.segmentation.models.library import Library

    with torch.device("meta"):
        network = Library(InputSpec(3, (64, 64), "native", (0.5,) * 3, (0.5,) * 3), name, 21)
    assert sum(value.numel() for value in network.parameters()) == models.segformer_rows.ROWS[name].parameters


OLD_NAMES = [  # of transformers 5 -> of transformers 4, in which the published files are
    (r"stages\.(\d+)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"stages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"stages\.(\d+)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc(\d)", r"mlp.dense\1"),
    ("layernorm_before", "layer_norm_1"),
    ("layernorm_after", "layer_norm_2"),
    ("linear_projections", "linear_c"),
]


def test_weights_that_forbid_commercial_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused unless their licence is allowed by name; then taken from a file as transformers 4 wrote it, by hand too."""
    for allowed in ((), ("apache-2.0", "mit")):
        with pytest.raises(UserError, match="NVIDIA's, whose licence forbids commercial use") as error:
            made("segformer_b0", pretrained=True, license=allowed)
        assert error.value.where == "--pretrained" and "--license nvidia-source-code-noncommercial" in error.value.fix
    theirs, _, _ = made("segformer_b0")
    old = {}
    for key, value in theirs.network.state_dict().items():
        for new, before in OLD_NAMES:
            key = re.sub(new, before, key)
        old[key] = torch.randn(150, 256, 1, 1) if key == "decode_head.classifier.weight" else value  # of other classes
    assert "segformer.encoder.block.1.0.attention.self.query.weight" in old and "decode_head.linear_c.0.proj.weight" in old
    file = tmp_path / "model.safetensors"
    file.write_bytes(modelfile.pack(weights.to_buffers(old), {"format": "pt"}))
    monkeypatch.setattr(pretrained, "downloaded", lambda repo, name, revision: file)
    network, card, _ = made("segformer_b0", pretrained=True, license=("nvidia-source-code-noncommercial",))
    (link,) = card.licenses
    assert link["license"] == "nvidia-source-code-noncommercial" and link["weights"] == "nvidia/segformer-b0-finetuned-ade-512-512"
    mine, _, _ = made("segformer_b0")
    checkpoints.take(mine, checkpoints.read(file), checkpoints.Place(), (), least=0.9)  # the same file by hand: --weights
    state = theirs.state_dict()
    for one in (network, mine):
        other = [key for key, value in one.state_dict().items() if not torch.equal(value, state[key])]
        assert all("decode_head.classifier" in key or "num_batches" in key for key in other)
    (row,) = [row for row in TASK.models() if row.name == "segformer_b0"]
    assert row.license == "nvidia-source-code-noncommercial"


def test_segformer_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs transformers") as error:
        made("segformer_b1")
    assert "saccade[transformers]" in error.value.fix


def test_a_single_image_of_one_place() -> None:
    network, _, config = made("small_unet")
    (phase,) = TASK.phases(network.train(), config)
    one = TASK.example(1, keys.generator(0, "library", 0))
    found = phase.loss(replace(one, images=one.images[..., :32, :32], targets={"classes": one.targets["classes"][..., :32, :32]}), 0)
    assert torch.isfinite(found.total) and found.weight == 1


def test_a_single_image_and_a_grey_one() -> None:
    network, _, config = made("deeplabv3plus/resnet18", channels=1)
    (phase,) = TASK.phases(network.train(), config)
    one = TASK.example(1, keys.generator(0, "library", 0))
    found = phase.loss(replace(one, images=one.images[:, :1]), 0)
    assert torch.isfinite(found.total) and found.weight == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("small_unett", "did you mean small_unet"),
        ("unet/resnet51", "unknown model 'resnet51'"),
        ("unett/resnet18", "did you mean unet/NETWORK"),
        ("unet/resnet18.nonsense", "unknown model"),
        ("unet/vit_tiny_patch16_224", "vit_tiny_patch16_224 .*"),
        ("unet/local-dir:/etc", "unknown model"),
    ],
)
def test_names_that_are_none(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pretrained": True}, "no weights are published for small_unet .*deeplabv3_resnet50"),
        ({"channels": 5, "model": "unet/resnet18"}, "unet/resnet18 takes grey or RGB images, got 5 channels"),
        ({"label_smoothing": 0.1}, "is for classify"),
        ({"augment.cutmix": 0.5}, "no change of segment"),
        ({"segmentation.cross_entropy": 0, "segmentation.dice": 0}, "every part of the loss has weight 0"),
        ({"segmentation.class_weights": [1, 2]}, "must be a number for each of 3 classes, was 2"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made("small_unet", **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3, "source": "library"},
        {"name": "small_unet", "source": "library"},
        {"source": "elsewhere"},
        {"arguments": {"classes": 9, "channels": 3, "widths": [8] * 5, "blocks": [1] * 5}},
        {"arguments": {"classes": 3, "channels": 3, "widths": [8] * 4, "blocks": [1] * 5}},
        {"arguments": {"classes": 3, "channels": 3, "widths": [10**9] * 5, "blocks": [1] * 5}},
        {"arguments": {"classes": 3, "channels": 3, "widths": [8] * 5, "blocks": [True] * 5}},
        {"arguments": {}},
    ],
    ids=str,
)
def test_cards_that_are_none(change: dict[str, Any]) -> None:
    card = made("small_unet")[1]
    with pytest.raises(UserError):
        TASK.build(replace(card, architecture={**card.architecture, **change}))
    with pytest.raises(UserError, match="whole images"):
        TASK.build(replace(card, input=replace(card.input, resize="crop")))


def sample(shape: tuple[int, int], rare: tuple[int, int] | None = None) -> Sample:
    """A picture whose red says the class of each pixel."""
    mask = np.zeros(shape, np.uint8)
    mask[:, shape[1] // 2 :] = 1
    if rare is not None:
        mask[rare[0] : rare[0] + 3, rare[1] : rare[1] + 3] = 2
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = mask * 100
    return Sample(image, mask, 0, "x")


@pytest.mark.parametrize("shape", [(64, 64), (300, 200), (40, 90), (17, 11)])
def test_masks_follow_their_pixels(shape: tuple[int, int]) -> None:
    config = made("small_unet", **{"augment.color": 0.0, "augment.hue": 0.0, "augment.resize": [1.0, 1.0]})[2]
    augment = ClassesAugment(config)
    for position in range(6):
        changed = augment.apply([sample(shape)], keys.generator(0, "augment", position))
        assert changed.image.shape == (64, 64, 3)
        seen = changed.target != IGNORED
        np.testing.assert_array_equal(changed.image[seen][:, 0], changed.target[seen] * 100)
        assert (changed.image[~seen] == FILL).all()


def test_rare_classes_are_seen() -> None:
    config = made("small_unet", **{"augment.resize": [1.0, 1.0]})[2]
    augment = ClassesAugment(config)
    picture = sample((600, 800), rare=(590, 400))
    seen = [bool((augment.apply([picture], keys.generator(0, "augment", p)).target == 2).any()) for p in range(200)]
    assert 0.1 < np.mean(seen) < 0.4  # a third of half of the pieces; by chance alone it would be in one of fifty


def test_distances_of_edges() -> None:
    mask = np.zeros((5, 9), np.uint8)
    mask[:, 4:] = 1
    found = gathered([mask, np.zeros((5, 9), np.uint8)], edges=True)["distances"]
    assert found.shape == (2, 2, 5, 9)
    assert found[0, 1, 0].tolist() == [4, 3, 2, 1, -1, -2, -3, -4, -5]
    assert not found[1].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_drawing(channels: int) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    mask[20:40, 40:60] = 2
    result = Answer(Packed.of(mask), ("background", "a <b>$x", "b" * 90))
    image = np.full((40, 60, channels), 120, np.uint8)
    plain = np.asarray(drawn(image, result))
    factor = plain.shape[1] // 60
    assert plain.shape[1] >= 320 and plain.shape[0] > 40 * factor
    assert plain[2 * factor, 2 * factor].tolist() == [120, 120, 120]  # the background is as it was
    inside, tone = plain[20 * factor, 20 * factor].astype(int), np.array(colour(1))
    assert np.abs(inside - (120 + 0.45 * (tone - 120))).max() <= 1
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 1
    with_truth = np.asarray(drawn(image, result, Packed.of(truth)))
    assert (with_truth[5 * factor, 30 * factor - 1] == 255).all()
    with pytest.raises(ValueError, match="of one size"):
        drawn(np.zeros((4, 4, 3), np.uint8), result)
