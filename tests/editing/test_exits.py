"""Exits: the last layer's answer stays, each image leaves where an exit is sure of it, whoever its neighbours are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import saccade
from editing.conftest import CLASSES, Network, answers, pixels
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.results import Classification
from saccade.data.loader import Batch
from saccade.nn.layers import exits
from saccade.nn.layers.exits import Exit, Leaving, heard
from saccade.tasks.classification.metrics import ClassificationMetric
from saccade.tasks.classification.task import Classification as Room

Get = Callable[[str, str], Network]
SMALL = ("classify", "small_resnet_8px")
VIT = ("classify", "vit_tiny_patch16_224")
PLACES = [
    (SMALL, "features.1", 4),
    (SMALL, "features.2.0", 4),
    (VIT, "blocks.3", 0),
    (("classify", "flattening"), "features.2", 4),
    pytest.param(("classify", "resnet18"), "layer3", 2, marks=pytest.mark.long),
    pytest.param(("classify", "convnext_atto"), "stages.1", 3, marks=pytest.mark.long),
    pytest.param(("classify", "densenet121"), "features.transition2", 2, marks=pytest.mark.long),
]


def with_exits(network: Network, *paths: str) -> Network:
    """With exits that say something."""
    for path in paths:
        planned = network.plan(f"early-exit {path}")
        network = Network(planned.network, planned.card, network.build)
    learned = [part for part in network.module.modules() if isinstance(part, Exit)]
    for number, one in enumerate(learned):
        nn.init.normal_(one.linear.weight, std=0.05 * 2**number, generator=torch.Generator().manual_seed(number))
    return network


@pytest.fixture(scope="module")
def two(networks: Get) -> Network:
    return with_exits(networks(*SMALL), "features.1", "features.2.0")


@torch.no_grad()
def told(network: Network, images: Tensor) -> list[Tensor]:
    """The last layer's logits and those of each exit."""
    last, found = heard(network.module, images)
    return [last, *(logits for _, logits in found)]


@pytest.mark.parametrize(("which", "path", "grid"), PLACES)
def test_the_last_layer_answers_as_before(networks: Get, tmp_path: Path, which: tuple[str, str], path: str, grid: int) -> None:
    network = networks(*which)
    images = pixels(network)
    planned = network.plan(f"early-exit {path}")
    (step,) = planned.edit.steps
    assert planned.edit.promise == "exact" and planned.effect.difference == 0
    assert step.grid == grid and 0 < step.weight < 1  # type: ignore[union-attr]
    assert planned.effect.flops_after > planned.effect.flops_before
    before = answers(network.module, images)
    assert torch.equal(answers(planned.network, images), before)
    last, logits = told(Network(planned.network, planned.card, network.build), images)
    assert torch.equal(last, before) and logits.shape == (3, 3)
    if which[1] == "flattening":
        return
    file = Network(planned.network, planned.card, network.build).save(tmp_path / "m.safetensors")
    loaded: Any = saccade.load(file, device="cpu")
    assert torch.equal(answers(loaded.module, images), before) and len(exits.names(loaded.module)) == 1
    back = saccade.edit(file, undo=True, out=tmp_path / "back.safetensors").model
    assert back.read_bytes() == network.save(tmp_path / "first.safetensors").read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "widen features.1.0.conv2 1.5",
        "widen features.1 1.5",
        "widen features.2.0.0.conv1 2",
        "deepen features.1 +1",
        "insert-after features.1 SqueezeExcite",
        "add-lora 2 *",
    ],
)
def test_edits_after_it_keep_what_exits_say(two: Network, text: str) -> None:
    planned = two.plan(text)
    edited = Network(planned.network, planned.card, two.build)
    assert planned.edit.promise == "exact" and len(exits.names(edited.module)) == 2
    for before, after in zip(told(two, pixels(two)), told(edited, pixels(two)), strict=True):
        assert (before - after).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))


def test_other_classes_are_those_of_exits_too(two: Network, tmp_path: Path) -> None:
    edited = saccade.edit(two.save(tmp_path / "m.safetensors"), "set-classes +d -b").model
    loaded: Any = saccade.load(edited, device="cpu")  # type: ignore[arg-type]
    new = told(Network(loaded.module, loaded.card, two.build), pixels(two))
    for before, after in zip(told(two, pixels(two)), new, strict=True):
        assert after.shape == (3, 3) and torch.allclose(before[:, [0, 2]], after[:, :2], atol=1e-6)


def test_an_exit_is_removed_by_its_name(two: Network) -> None:
    planned = two.plan("remove features.1.1")
    edited = Network(planned.network, planned.card, two.build)
    last, first, second = told(two, pixels(two))
    assert all(torch.equal(one, other) for one, other in zip([last, second], told(edited, pixels(two)), strict=True)) and first.ndim == 2


def test_each_image_leaves_where_an_exit_is_sure_whoever_else_is_there(two: Network) -> None:
    images = pixels(two, 24)
    last, *early = told(two, images)
    sure = torch.stack([one.softmax(1).amax(1) for one in early], 1)
    threshold = middling(two, images)
    expected = [next((n for n, value in enumerate(row, 1) if value >= threshold), 3) for row in sure.tolist()]
    leaving = Leaving(two.module, threshold)
    with torch.no_grad():
        logits, numbers = leaving(images)
        alone = [leaving(images[place : place + 1]) for place in range(24)]
    assert numbers.tolist() == expected and len(set(expected)) == 3, "images at every exit"
    for place, number in enumerate(expected):
        assert torch.allclose(logits[place], [*early, last][number - 1][place], atol=1e-5)
        assert torch.allclose(logits[place], alone[place][0][0], atol=1e-5) and alone[place][1].item() == number
    with torch.no_grad():
        assert torch.equal(two.module(images), last), "nobody leaves where nobody asks"
        assert Leaving(two.module, 0.0)(images)[1].tolist() == [1] * 24
        assert Leaving(two.module, 2.0)(images)[1].tolist() == [3] * 24


def middling(network: Network, images: Tensor) -> float:
    """How sure exits must be so that images leave at each: between what two are, as rounding differs with the others in a batch."""
    _, *early = told(network, images)
    found = torch.stack([one.softmax(1).amax(1) for one in early]).flatten().sort().values
    return float(found[len(found) // 2 - 1 : len(found) // 2 + 1].mean())


def test_what_has_left_is_computed_no_further(two: Network) -> None:
    threshold, sizes = middling(two, pixels(two, 24)), list[int]()
    handle = two.module.get_submodule("network.features.3").register_forward_hook(lambda part, given, output: sizes.append(len(output)))
    try:
        with torch.no_grad():
            numbers = Leaving(two.module, threshold)(pixels(two, 24))[1]
            Leaving(two.module, 0.0)(pixels(two, 24))
    finally:
        handle.remove()
    assert sizes == [int((numbers == 3).sum())] and 0 < sizes[0] < 24


def test_each_thread_listens_to_its_own(two: Network) -> None:
    images, found = pixels(two, 6), dict[float, list[list[int]]]()

    def ask(threshold: float) -> None:
        with torch.inference_mode():
            found[threshold] = [Leaving(two.module, threshold)(images)[1].tolist() for _ in range(30)]

    threads = [threading.Thread(target=ask, args=(threshold,)) for threshold in (0.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0.0: [[1] * 6] * 30, 2.0: [[3] * 6] * 30}


def test_an_exit_sees_the_parts_of_a_map_as_adaptive_pooling_cuts_them() -> None:
    exit = Exit(5, 3, 4, 0.5)
    for size in ((17, 11), (3, 2), (4, 4), (1, 1)):
        x = torch.randn(2, 5, *size)
        expected = exit.linear(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
        assert torch.allclose(exit.logits(x), expected, atol=1e-5)


def test_costs_are_those_of_the_way_that_an_image_goes(two: Network) -> None:
    names, flops = exits.costs(two.module, pixels(two, 1))
    assert list(names) == ["network.features.1.1", "network.features.2.0.1"] and list(flops) == sorted(set(flops))
    assert flops[-1] == two.plan("freeze head").effect.flops_after


def test_training_is_about_all_exits(networks: Get) -> None:
    planned = networks(*SMALL).plan("early-exit features.1")
    network = Network(planned.network, planned.card, networks(*SMALL).build)
    labels = torch.tensor([0, 1, 2])
    batch = Batch(pixels(network), {"label": labels, "other": labels, "share": torch.ones(3)}, np.arange(3))
    (phase,) = Room().phases(network.module, TrainConfig(label_smoothing=0.0))
    losses = phase.loss(batch, 0)
    last, early = told(network, batch.images)
    ours = [nn.functional.cross_entropy(one, labels, reduction="sum") for one in (last, early)]
    (exit,) = (part for part in network.module.modules() if isinstance(part, Exit))
    assert torch.allclose(losses.total, ours[0] + exit.weight * ours[1]) and losses.weight == 3
    assert torch.allclose(losses.parts["last"], ours[0]) and torch.allclose(losses.parts["exit_1"], ours[1])
    losses.total.backward()
    assert (exit.linear.weight.grad != 0).any()  # type: ignore[union-attr]


def answer(probabilities: list[float], early: list[list[float]]) -> Classification:
    rows = np.array(probabilities, np.float32)
    labels = np.argsort(-rows, kind="stable")
    return Classification(labels, rows[labels], rows, CLASSES, early=np.array(early, np.float32))


def test_the_threshold_is_the_least_from_which_on_no_accuracy_is_lost() -> None:
    metric = ClassificationMetric(CLASSES)
    right, wrong = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    rows = [  # of the first exit: right and wrong answers of different doubts; the last layer is always right
        answer(right, [[0.5, 0.3, 0.2]]),
        answer(right, [[0.2, 0.6, 0.2]]),
        answer(right, [[0.7, 0.2, 0.1]]),
        answer(right, [[0.9, 0.1, 0.0]]),
    ]
    metric.update(rows, [0] * 4)
    figures = metric.compute()
    assert figures["exit_threshold"] == pytest.approx(0.7) and figures["exit_accuracy"] == 1 and figures["exit_share"] == 0.5
    assert figures["accuracy"] == 1, "all other figures are the last layer's"
    never = ClassificationMetric(CLASSES)
    never.update([answer(right, [[0.05, 0.9, 0.05]]), answer(wrong, [[0.6, 0.2, 0.2]])], [0, 1])
    assert never.compute() | {"exit_threshold": None, "exit_accuracy": None, "exit_share": None} == never.compute()
    again = ClassificationMetric(CLASSES)  # at 0.5 all is well again, but not at 0.6
    again.update([answer(right, [[0.2, 0.6, 0.2]]), answer(wrong, [[0.5, 0.3, 0.2]])], [0, 0])
    assert again.compute()["exit_threshold"] is None
    weighted = metric.compute(np.array([1, 0, 1, 1]))
    assert weighted["exit_threshold"] == pytest.approx(0.5) and weighted["exit_share"] == 1
    plain = ClassificationMetric(CLASSES)
    plain.update([replace(rows[0], early=None)], [0])
    assert "exit_threshold" not in plain.compute()


@pytest.fixture
def asked(two: Network, tmp_path: Path) -> tuple[Path, Path]:
    """A model whose card says how sure exits must be, and images."""
    generator = np.random.default_rng(0)
    for name in ("a cat", "b", "c=d"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for number in range(6):
            image = generator.integers(0, 256, (17, 11, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / "val" / name / f"{number}.png")
    card = replace(two.card, metrics={"accuracy": 0.5, "exit_threshold": middling(two, pixels(two, 24))})
    return Network(two.module, card, two.build).save(tmp_path / "m.safetensors"), tmp_path / "data"


def test_predict_and_eval_say_where_images_left(asked: tuple[Path, Path], two: Network) -> None:
    file, data = asked
    results = list(saccade.predict(file, data / "val", device="cpu"))
    left = [one.exit for one in results]  # type: ignore[union-attr]
    assert {1, 2, 3} >= set(left) and len(set(left)) > 1 and results[0].to_dict()["exit"] == left[0]
    assert Classification.from_dict(results[0].to_dict(), two.card.classes).exit == left[0]
    evaluation = saccade.eval(file, data, device="cpu")
    rows = evaluation.to_dict()["exits"]
    assert [row["exit"] for row in rows] == ["features.1.1", "features.2.0.1", "the last layer"]
    assert [row["images"] for row in rows] == [left.count(number) for number in (1, 2, 3)]
    hits = sum(row["images"] * (row["accuracy"] or 0.0) for row in rows)
    assert hits / 18 == pytest.approx(evaluation.metrics["accuracy"])
    mean = evaluation.metrics["mean_flops"]
    assert mean == pytest.approx(sum(row["images"] * row["flops"] for row in rows) / 18) and mean < rows[-1]["flops"]


@pytest.mark.long
def test_an_exported_network_is_whole(asked: tuple[Path, Path], two: Network) -> None:
    file, data = asked
    found = saccade.export(file, data=data, device="cpu")
    assert found.passed and found.file is not None
    exported = saccade.load(found.file)
    assert "exit_threshold" not in exported.card.metrics
    image = next((data / "val" / "b").iterdir())
    (result,) = saccade.predict(found.file, image)
    (whole,) = saccade.load(file, device="cpu").whole().predict(image)  # type: ignore[union-attr]
    assert np.allclose(result.probabilities, whole.probabilities, atol=1e-4) and result.exit is whole.exit is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("which", "text", "said"),
    [
        (SMALL, "early-exit", "must be 'early-exit PATH"),
        (SMALL, "early-exit features.1 2", "must be 'early-exit PATH"),
        (SMALL, "early-exit features.7", "has no module"),
        (SMALL, "early-exit head", "cannot leave behind head: nothing comes behind it (early-exit features would go)"),
        (SMALL, "early-exit features.2.0.conv1", "goes around it too (early-exit features.2.0 would go)"),
        (VIT, "early-exit blocks.3.mlp", "goes around it too (early-exit blocks.3 would go)"),
        (("classify", "densenet121"), "early-exit features.denseblock1.denselayer1", "(early-exit features.denseblock1 would go)"),
        (("segment", "small_unet"), "early-exit stages.1", "this one is for segment (prune PATH F makes it faster for all images)"),
    ],
)
def test_what_cannot_be_left_early(networks: Get, which: tuple[str, str], text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        networks(*which).plan(text)
    assert said in str(caught.value), str(caught.value)


def test_one_exit_at_a_place(two: Network) -> None:
    with pytest.raises(UserError, match="it has an exit"):
        two.plan("early-exit features.1")
    with pytest.raises(UserError, match="it has an exit"):
        two.plan("early-exit features.1.1")


def test_explanations_read_the_last_block_of_tokens(networks: Get) -> None:
    network = with_exits(networks(*VIT), "blocks")
    layer = Room().features(network.module)
    assert layer is network.module.get_submodule("network.blocks.11.norm1")


@pytest.mark.parametrize(
    ("exit", "shape"), [(Exit(8, 3, 2, 1.0), (2, 4, 6, 6)), (Exit(8, 3, 2, 1.0), (2, 8)), (Exit(8, 3, 0, 1.0), (2, 5, 7))]
)
def test_an_exit_that_does_not_fit_its_place_is_the_files_fault(exit: Exit, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"card: .*put together wrongly"):
        heard(exit, torch.zeros(shape))
