"""Classifiers of transformers by name: the library's own answers from a folder of its files, any size and channels, clear refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from saccade.core import keys
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.nn.embedding import Embedder
from saccade.nn.pretrained import stated
from saccade.nn.weights import load_into, to_buffers
from saccade.tasks.classification.models import hf, hf_rows
from saccade.tasks.classification.task import Classification

TASK: Any = Classification()
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.2, 0.25]
CARD = "---\nlicense: mit\ndatasets:\n- imagenet-1k\n- 'other set'\ntags:\n- vision\n---\n# a model\n"
SMALL: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
KINDS: dict[str, Any] = {
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8, num_labels=5
        )
    ),
    "convnext": lambda: ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_labels=5)),
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    ),
    "swin": lambda: SwinForImageClassification(
        SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=32, window_size=4, num_labels=5)
    ),
}


def folder(kind: str, place: Path) -> tuple[Any, Path]:
    """A network with weights of its own, and the files that its makers would publish of it."""
    torch.manual_seed(0)
    network = KINDS[kind]().eval()
    target = place / f"my-{kind}"
    network.save_pretrained(target)
    (target / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    (target / "README.md").write_text(CARD)
    return network, target


def made(name: str | Path, *, classes: int = 5, channels: int = 3, size: tuple[int, int] = (96, 96), **more: Any) -> tuple[Any, Card]:
    config = TrainConfig(model=f"hf/{name}", channels=channels, size=size, **more)
    TASK.check(config)
    names = tuple("abcdefgh"[:classes])
    model, card = TASK.create(config, Schema("classify", names, {}, channels, size, True))
    return model.eval(), card


def answers(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Any = network(images)
    return found if isinstance(found, Tensor) else found.logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_the_librarys_own_answers(kind: str, tmp_path: Path) -> None:
    """From safetensors, with the preprocessing, licence, data and sum that the folder states; rebuilt from its card."""
    theirs, place = folder(kind, tmp_path)
    model, card = made(place, pretrained=True)
    assert (card.input.mean, card.input.std) == (tuple(MEAN), tuple(STD))
    (link,) = card.licenses
    assert (link["weights"], link["license"], link["data"], len(link["sha256"])) == (f"hf/my-{kind}", "mit", "imagenet-1k, other set", 64)
    assert str(tmp_path) not in card.to_json()
    pixels = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    inner = card.architecture["inner"]
    seen = (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    if inner != [96, 96]:
        seen = nn.functional.interpolate(seen, inner, mode="bilinear", align_corners=False)
    torch.testing.assert_close(answers(model, pixels), answers(theirs, seen), rtol=1e-4, atol=1e-5)
    buffers = to_buffers(model)
    again = TASK.build(Card.from_json(card.to_json()), sum(int(np.prod(one.shape)) for one in buffers.values())).eval()
    load_into(again, buffers, where="")
    assert torch.equal(answers(again, pixels), answers(model, pixels))
    with pytest.raises(UserError, match="the file holds"):
        TASK.build(card, 100)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_other_channels_and_classes(kind: str, tmp_path: Path) -> None:
    _, place = folder(kind, tmp_path)
    colours, _ = made(place, pretrained=True)
    grey = torch.rand(2, 1, 96, 96)
    for channels in (1, 4):
        other, card = made(place, pretrained=True, channels=channels)
        assert len(card.input.mean) == channels
        wanted = answers(colours.network, grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(answers(other.network, grey.expand(-1, channels, -1, -1)), wanted, rtol=1e-4, atol=1e-5)
    fewer, _ = made(place, pretrained=True, classes=3)
    assert answers(fewer, torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    body, mine = colours.state_dict(), fewer.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in mine.items() if "classifier" not in name)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_it_learns_embeds_and_says_where_it_looks(kind: str, tmp_path: Path) -> None:
    _, place = folder(kind, tmp_path)
    torch.manual_seed(0)
    model, card = made(place, classes=3, size=(16, 16))
    assert not card.licenses and min(card.architecture["inner"]) >= 32
    (phase,) = TASK.phases(model, TrainConfig())
    batch = TASK.example(8, keys.generator(0, "test", 0))
    losses = phase.loss(batch, 0)
    losses.total.backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "classifier" in name)
    vectors = Embedder(model, "", TASK.features)(batch.images)
    assert vectors.shape == (8, 24 if kind == "vit" else 16)
    assert any(part is TASK.features(model) for part in model.modules())


@pytest.mark.processes
def test_pickled_weights_where_there_are_no_others(tmp_path: Path) -> None:
    theirs, place = folder("resnet", tmp_path)
    (place / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds neither model.safetensors nor pytorch_model.bin"):
        made(place, pretrained=True)
    torch.save(theirs.state_dict(), place / "pytorch_model.bin")
    model, _ = made(place, pretrained=True)
    assert torch.equal(model.network.model.classifier[1].weight, theirs.classifier[1].weight)
    torch.save({"classifier.1.weight": torch.zeros(5, 16)}, place / "pytorch_model.bin")
    with pytest.raises(UserError, match="do not fit"):
        made(place, pretrained=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("vit", "hf/OWNER/NAME"), ("a/../b", "hf/OWNER/NAME"), ("a/b/c", "hf/OWNER/NAME"), ("", "hf/OWNER/NAME"), ("a--b/c", "hf/OWNER/NAME")],
)
def test_names_that_are_none(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name)


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(UserError, match=r"family 'bert', must be of one of .*vit"):
        made(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must be of one of"):
        made(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"family": "os"},
        {"name": "vit"},
        {"settings": {"auto_map": {"x": "y"}}},
        {"settings": {"num_hidden_layers": 1_000_000}},
        {"settings": {"hidden_size": 1 << 40}},
        {"settings": {"no_such": 1}},
        {"arguments": {"classes": 5}},
        {"size": [1]},
        {"inner": None},
    ],
    ids=str,
)
def test_cards_that_are_none(change: dict[str, Any], tmp_path: Path) -> None:
    _, card = made(folder("vit", tmp_path)[1])
    with pytest.raises(UserError):
        TASK.build(replace(card, architecture={**card.architecture, **change}))


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(UserError, match=r"google/vit needs transformers") as caught:
        TASK.check(TrainConfig(model="hf/google/vit"))
    assert caught.value.fix == "pip install 'saccade[transformers]'"


@pytest.mark.long
@pytest.mark.parametrize("family", hf_rows.FAMILIES)
def test_every_family_gives_logits(family: str) -> None:
    """Built on the meta device as its library configures it; parameters and operations of the table are those."""
    plain = {"source": "transformers", "name": "hf/a/b", "family": family, "settings": {}, "size": [224, 224]}
    architecture = hf._first_that_works(plain | {"arguments": {"classes": 1000, "channels": 3}})
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = hf.build(architecture).eval()
        network(torch.empty(1, 3, *hf_rows.SIZE))
    counts = (sum(value.numel() for value in network.parameters()), counter.get_total_flops())
    assert all((row.parameters, row.flops) == counts for row in hf_rows.ROWS.values() if row.family == family)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CARD, ("mit", "imagenet-1k, other set")),
        ("---\nlicense: Apache-2.0\n---\n", ("apache-2.0", "")),
        ("---\ntags: [a]\n---\nlicense: mit", ("unknown", "")),
        ("license: mit", ("unknown", "")),
        ("---\nlicense: [mit]\n---", ("unknown", "")),
        ("", ("unknown", "")),
    ],
)
def test_what_a_model_card_states(text: str, found: tuple[str, str]) -> None:
    assert stated(text) == found


@pytest.mark.processes
@pytest.mark.long
def test_without_network_one_line_says_what_to_bring(tiny_folder: Path, tmp_path: Path) -> None:
    quiet = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}  # nobody listens there
    command = [
        sys.executable,
        "-m",
        "saccade",
        "train",
        str(tiny_folder),
        "--model",
        "hf/microsoft/resnet-50",
        "--out",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=200)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and not (tmp_path / "r").exists()
    assert "hf/microsoft/resnet-50: cannot fetch config.json of hf/microsoft/resnet-50" in last
    assert "asked for http://127.0.0.1:9/microsoft/resnet-50/resolve/main/config.json" in last and "its folder as hf/FOLDER" in last
