"""transformers' detectors: what the table says of them, their doors, answers by the image alone, exact resume, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saccade
from saccade.core import finish, modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.errors import Interrupted, UserError
from saccade.core.progress import Silent
from saccade.data.loader import Batch
from saccade.explanation.attribution import gradcam
from saccade.nn import checkpoints, pretrained, weights
from saccade.task import Budget
from saccade.tasks.detection.models.detr_rows import ROWS
from saccade.training.step import Updater
from small_detr import ALL, LIGHT, SCHEMA, TASK, example, made, rebuild, rows_in_small, shaken
from small_jobs import Stopping

PUBLISHED = tuple(ROWS)
__all__ = ["rows_in_small"]  # a fixture
OLD_NAMES = [  # of transformers 5 -> of transformers 4, in which the published files are
    (r"self_attn\.o_proj", "self_attn.out_proj"),
    (r"(coder(?:\.aifi\.\d+)?\.layers\.\d+)\.mlp\.(?:fc1|layers\.0)\.", r"\1.fc1."),
    (r"(coder(?:\.aifi\.\d+)?\.layers\.\d+)\.mlp\.(?:fc2|layers\.1)\.", r"\1.fc2."),
    (r"encoder\.aifi\.", "encoder.encoder."),
]


def loss(network: Any, batch: Batch, config: Any) -> Any:
    (phase,) = TASK.phases(network.train(), config)
    torch.manual_seed(0)
    return phase.loss(batch, 0)


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_is_true(name: str) -> None:
    from saccade.objects.detr import built

    with torch.device("meta"):
        network = built(InputSpec(3, (64, 64), "fit", (0.0,) * 3, (1.0,) * 3), ROWS[name], 80)
    (row,) = saccade.models(name)
    assert sum(one.numel() for one in network.parameters()) == row.parameters == ROWS[name].parameters
    assert (row.task, row.source, row.dataset) == ("detect", "transformers", "COCO val2017")
    assert row.license == ("dinov3-license" if name in ("deimv2_s", "deimv2_m", "deimv2_l", "deimv2_x") else "apache-2.0")
    assert row.metric is not None and 0.2 < row.metric < 0.6
    assert not any("mask_token" in key for key in network.state_dict()), "which is for learning a backbone alone"


@pytest.mark.long
@pytest.mark.parametrize(("name", "steps"), [("dfine_n", 8), ("rtdetr_v2_r18", 8), ("tiny_deimv2", 8), ("tiny_rfdetr", 24)])
def test_it_learns(name: str, steps: int) -> None:
    network, _, config = made(name, lr=5e-4 if name in LIGHT else 5e-3)
    batch = example(2)
    update = Updater(network, TASK.phases(network, config), config, "fp32")
    found = [update.step([batch], step, 1.0)["loss"] for step in range(steps)]
    assert np.isfinite(found).all() and min(found[-2:]) < 0.9 * found[0], found


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_the_doors(name: str) -> None:
    """The card alone rebuilds it; what it finds is a result, and can be explained."""
    network, card = shaken(name)
    read = Card.from_json(card.to_json())
    other: Any = TASK.build(read, sum(value.numel() for value in network.state_dict().values())).eval()
    weights.load_into(other, weights.to_buffers(network), where="x")
    images = example(2).images
    with torch.no_grad():
        outputs = network(images)
        assert torch.equal(outputs, other(images))
        decoded = TASK.decode(outputs, (64, 64))
    assert outputs.shape == (2, network.network.config.num_queries, 4 + 3) and outputs.dtype == torch.float32
    assert card.architecture["nms"] is False
    results: list[Any] = finish.results(decoded, card, [(128, 128)] * 2, list("xy"), complete=True)
    assert all(map(len, results))
    maps = gradcam(network, TASK.features(network), images[:1].expand(3, -1, -1, -1), TASK.score, [0, 1, 2])
    assert maps.shape == (3, 64, 64) and np.isfinite(maps).all() and maps.max() == 1
    with pytest.raises(UserError, match="the file holds 1,000"):
        TASK.build(read, 1000)


@pytest.mark.long
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (160, 64)], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_an_answer_depends_on_the_image_alone(name: str, size: tuple[int, int]) -> None:
    """Of every multiple of 32, the same in batches of 1, 3 and 8, whatever stands beside it."""
    network, _ = shaken(name)
    images = torch.randint(0, 256, (8, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = [by_place(network(images[place : place + 1])[0]) for place in range(3)]
        three, eight = network(images[:3]), network(images)
    assert not torch.allclose(alone[0], alone[1]), "these networks look at their images"
    for several in (three, eight):
        for place, one in enumerate(alone):
            other = by_place(several[place])
            torch.testing.assert_close(other[:, :4], one[:, :4], atol=0.05, rtol=0)
            torch.testing.assert_close(other[:, 4:].sigmoid(), one[:, 4:].sigmoid(), atol=1e-4, rtol=0)
    corners = eight[..., :4].amax((0, 1))
    assert corners[2] > size[1] / 2 and corners[3] > size[0] / 2, "x goes with the width, y with the height"


def by_place(rows: torch.Tensor) -> torch.Tensor:
    """Rows `[Q, 4 + K]` in an order of their own: equally sure queries may stand in another."""
    order = np.lexsort(rows[:, :4].double().mul(10).round().numpy().T)
    return rows[torch.from_numpy(order)]


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_images_without_objects_crowds_and_a_thousand_objects(name: str) -> None:
    network, _, config = made(name)
    batch = example(2)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (2, 1000, 2))
    many = torch.from_numpy(np.concatenate([corners, corners + rng.uniform(0, 4, corners.shape)], 2)).float()
    targets = {
        "none": {"boxes": torch.zeros(2, 1, 4), "labels": torch.tensor([[-1], [-1]])},
        "crowds": {"boxes": torch.tensor([[[0.0, 0, 9, 9]]] * 2), "labels": torch.tensor([[-2], [-2]])},
        "one image": {"boxes": torch.tensor([[[0.0, 0, 9, 9]]] * 2), "labels": torch.tensor([[1], [-1]])},
        "a thousand": {"boxes": many, "labels": torch.from_numpy(rng.integers(0, 3, (2, 1000)))},
        "no extent": {"boxes": torch.tensor([[[5.0, 5, 5, 5]]] * 2), "labels": torch.tensor([[1], [2]])},
    }
    names = set()
    for what, target in targets.items():
        network.zero_grad()
        found = loss(network, replace(batch, targets=target), config)
        found.total.backward()
        assert torch.isfinite(found.total) and found.weight == 2, what
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters()), what
        names.add(tuple(found.parts))
        assert float(found.total.detach()) == pytest.approx(sum(float(one.detach()) for one in found.parts.values())), what
    assert len(names) == 1, "processes add up the same parts, whatever their images hold"


@pytest.mark.long
def test_numbers_that_are_none_are_told_as_such() -> None:
    """By the loss, where the loop looks for them, and not by an error of the library's."""
    network, _, config = made("dfine_n")
    right = loss(network, example(1), config)
    with torch.no_grad():
        network.network.model.decoder.layers[0].mlp.layers[0].weight[0, 0] = torch.nan
    wrong = loss(network, example(1), config)
    assert not torch.isfinite(wrong.total) and list(wrong.parts) == list(right.parts)


def test_the_rate_is_small_for_weights_that_know_something() -> None:
    rates = [TASK.recipe(SCHEMA, "cpu", Budget(model="dfine_n", epochs=1, pretrained=known))[0].lr for known in (False, True)]
    assert rates == [2e-4, 1e-4]


def test_how_far_small_inputs_are_enlarged() -> None:
    from saccade.objects.detr import enlarged

    found = [enlarged(size, (8, 16, 32), 300) for size in ((32, 32), (64, 64), (96, 96), (128, 128), (32, 512), (640, 640))]
    assert found == [4, 2, 2, 1, 1, 1]
    assert enlarged((64, 64), (16, 32), 300) == 4


@pytest.mark.parametrize("name", ALL)
def test_grey_images(name: str) -> None:
    network, card, _ = made(name, channels=1)
    assert card.input.channels == 1
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 1, 64, 96, dtype=torch.uint8)).shape == (1, network.network.config.num_queries, 7)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few scenes as it makes; read-only."""
    target = tmp_path_factory.mktemp("scenes") / "set"
    saccade.data.make("shapes", task="detect", n=18, size=(48, 64), out=target, seed=2)
    return target


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bits(scenes: Path, tmp_path: Path) -> None:
    """Its denoising queries too, whose noise is drawn by the library."""
    options: Any = {"model": "dfine_n", "size": "64", "epochs": 2, "batch": 4, "device": "cpu", "seed": 1}
    saccade.train(scenes, out=tmp_path / "whole", progress=Silent(), **options)
    with pytest.raises(Interrupted):
        saccade.train(scenes, out=tmp_path / "parts", progress=Stopping(2), **options)
    saccade.train(out=tmp_path / "parts", resume=True, progress=Silent())
    one, other = (modelfile.load(tmp_path / run / "last.safetensors")[0] for run in ("whole", "parts"))
    assert {name: bytes(buffer.data) for name, buffer in one.items()} == {name: bytes(buffer.data) for name, buffer in other.items()}


@pytest.mark.parametrize("name", LIGHT)
def test_published_weights_are_taken_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files as transformers 4 wrote them, all but what tells of their 80 classes."""
    torch.manual_seed(7)
    theirs: Any = rebuild(name, 80)
    old = {}
    for key, value in theirs.network.state_dict().items():
        for new, before in OLD_NAMES:
            key = re.sub(new, before, key)
        if not key.endswith("num_batches_tracked"):
            old[key] = value
    assert (
        any(".fc1." in key for key in old)
        and any("self_attn.out_proj" in key for key in old)
        and any("encoder.encoder." in key for key in old)
    )
    file = tmp_path / "model.safetensors"
    file.write_bytes(modelfile.pack(weights.to_buffers(old), {"format": "pt"}))
    monkeypatch.setattr(pretrained, "downloaded", lambda repo, name, revision: file)
    network, card, _ = made(name, pretrained=True)
    assert card.licenses == ({**card.licenses[0], "weights": ROWS[name].repository, "license": "apache-2.0"},)
    state = theirs.state_dict()
    mine, _, _ = made(name)
    taken = checkpoints.take(mine, checkpoints.read(file), checkpoints.Place(), (), least=0.9)  # the same file by hand: --weights
    assert taken.report.loaded > 100
    for one in (network, mine):
        other = [key for key, value in one.state_dict().items() if not torch.equal(value, state[key])]
        assert other and all("class_embed." in key or "enc_score_head." in key or "num_batches" in key for key in other)
    file.write_bytes(modelfile.pack(weights.to_buffers({key: value for key, value in old.items() if ".fc1." not in key})))
    with pytest.raises(UserError, match=f"do not fit {name}: .*missing"):
        made(name, pretrained=True)


@pytest.mark.processes
@pytest.mark.long
def test_without_network_one_line_says_what_to_bring(scenes: Path, tmp_path: Path) -> None:
    quiet = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}  # nobody listens there
    command = [sys.executable, "-m", "saccade", "train", str(scenes), "--model", "dfine_n", "--pretrained", "--out", str(tmp_path / "r")]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=200)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2
    assert "asked for http://127.0.0.1:9/ustc-community/dfine-nano-coco/resolve/main/model.safetensors" in last and "--weights FILE" in last


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = made("dfine_n")[2]
    card = made("dfine_n")[1]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name == "transformers" else find(name, package))
    for act in (lambda: TASK.check(config), lambda: TASK.build(card)):
        with pytest.raises(UserError, match="dfine_n needs transformers") as caught:
            act()
        assert caught.value.fix == "pip install 'saccade[transformers]'"


@pytest.mark.processes
def test_transformers_is_loaded_where_it_is_used_alone() -> None:
    code = "import sys, saccade; saccade.models(task='detect'); print('transformers' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize(
    "change",
    [{"name": 3}, {"name": "rtdetr_v2_r19"}, {"nms": True}, {"arguments": {"classes": 9, "channels": 3}}, {"arguments": {}}, {"more": 1}],
    ids=str,
)
def test_cards_that_are_none(change: dict[str, Any]) -> None:
    card = made("dfine_n")[1]
    with pytest.raises(UserError):
        TASK.build(replace(card, architecture={**card.architecture, **change}))
