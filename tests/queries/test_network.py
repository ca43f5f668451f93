"""transformers' networks whose queries answer with masks: their table, the library's own answers, any size, weights as published."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.core import modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.editing.planning import plan
from saccade.nn import checkpoints, pretrained, weights
from saccade.queries import rows
from saccade.queries.network import Queries, checked, paced, rebuild, start_from_published
from saccade.task import Budget, Phase
from saccade.tasks import answering
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here
from tiny_queries import TINY, tiny  # noqa: F401  a fixture

SPEC = InputSpec(3, (64, 64), "native", (0.5,) * 3, (0.5,) * 3)
CLASSES = {"segment": 21, "instances": 80, "panoptic": 133}
EOMT = ("eomt_large", "eomt_dinov3_large")


def made(name: str, task: str = "segment", classes: int = 3, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    network = Queries(SPEC, task, name, classes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def images(count: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.long
@pytest.mark.parametrize(("task", "name"), [(task, name) for task, table in rows.ROWS.items() for name in table])
def test_the_table_is_true(task: str, name: str) -> None:
    with torch.device("meta"):
        network = Queries(SPEC, task, name, CLASSES[task])
    row = rows.ROWS[task][name]
    assert sum(one.numel() for one in network.parameters()) == row.parameters
    (listed,) = [one for one in rows.listed(task) if one.name == name]
    assert (listed.license, listed.weights, listed.metric) == (row.license, row.repository, round(row.figure / 100, 3))
    assert row.license == ("mit" if name == "eomt_large" else "dinov3-license" if "dinov3" in name else "cc-by-nc-4.0")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_the_librarys_own_answers(name: str, train: bool) -> None:
    """At the size that EoMT is built for, with masks on its attention."""
    network = made(name).train(train)
    torch.manual_seed(5)
    ours = network.layers(images(2))[-1]
    torch.manual_seed(5)
    theirs = network.network(network.normalize(images(2)))
    torch.testing.assert_close(ours.classes, theirs.class_queries_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.masks, theirs.masks_queries_logits, atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", EOMT)
def test_attention_without_masks_is_the_librarys_too(name: str) -> None:
    network = made(name)
    masked = network.layers(images(2))
    network.shares.zero_()
    (told,) = network.layers(images(2))
    theirs = network.network(network.normalize(images(2)))
    torch.testing.assert_close(told.masks, theirs.masks_queries_logits, atol=1e-4, rtol=1e-5)
    assert len(masked) == 3 and not torch.allclose(masked[-1].masks, told.masks, atol=1e-2)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_layers_that_are_learned_from(name: str) -> None:
    network = made(name).train()
    assert len(network.layers(images(1))) == (3 if name in EOMT else 4), "with the answer before any layer"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (160, 64), (17, 41)], ids=str)
@pytest.mark.parametrize("name", TINY)
def test_an_answer_depends_on_the_image_alone(name: str, size: tuple[int, int]) -> None:
    """Of any size, the same in batches of 1, 3 and 8, whatever stands beside it."""
    network, given = made(name), images(8, size)
    with torch.no_grad():
        alone = [network.layers(given[place : place + 1])[-1] for place in range(3)]
        assert not torch.allclose(alone[0].masks, alone[1].masks, atol=1e-2), "these networks look at their images"
        for several in (network.layers(given[:3])[-1], network.layers(given)[-1]):
            for place, one in enumerate(alone):
                torch.testing.assert_close(several.masks[place], one.masks[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(several.classes[place], one.classes[0], atol=1e-4, rtol=1e-4)
    assert alone[0].masks.shape[2:] == (-(-size[0] // 32) * 8, -(-size[1] // 32) * 8)


@pytest.mark.usefixtures("tiny")
def test_positions_are_resampled() -> None:
    """So that they say the same of the same part of an image: a gradient stays one."""
    network = made("eomt_large")
    side = 64 // 16
    down = torch.arange(side).repeat_interleave(side).float()
    with torch.no_grad():
        network.network.embeddings.position_embeddings.weight.copy_(down[:, None].expand(-1, 32))
        network.network.embeddings.patch_embeddings.projection.weight.zero_()
        network.network.embeddings.patch_embeddings.projection.bias.zero_()
        hidden, grid, _ = network._embedded(torch.zeros(1, 3, 128, 32))
    places = hidden[0, 5:].view(*grid, -1)
    assert grid == (8, 2) and torch.allclose(places[:, 0], places[:, 1], atol=1e-5)
    assert (places[1:, 0, 0] > places[:-1, 0, 0]).sum() >= 6 and places[-1, 0, 0] > 2.5


@pytest.mark.usefixtures("tiny")
def test_masks_of_attention_go_as_the_run_goes_on() -> None:
    network, found = made("eomt_large"), []
    (phase,) = paced([Phase("train", [network], lambda batch, step: None)], network, TrainConfig())  # type: ignore[arg-type,return-value]
    assert phase.pace is not None
    for done in (0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0):
        phase.pace(done)
        found.append([round(share, 3) for share in network.shares.tolist()])
        network.layers(images(1))
        assert network.masked == tuple(share > 0.5 for share in found[-1])
    half = round(0.5**0.9, 3)
    assert found == [[1, 1], [1, 1], [half, 1], [0, 1], [0, half], [0, 0], [0, 0]]
    told: list[float] = []
    (both,) = paced([replace(phase, pace=told.append)], network, TrainConfig())
    assert both.pace is not None
    both.pace(0.5)
    assert told == [0.5] and network.shares.tolist() == pytest.approx([0, 1]), "what the phase did before is done as well"
    for known in ({"pretrained": True}, {"weights": "x.safetensors"}):
        (same,) = paced([phase], network, replace(TrainConfig(), **known))  # type: ignore[arg-type]
        assert same is phase, "weights that have learned to do without"
    (other,) = paced([replace(phase, pace=None)], made("mask2former_swin_tiny"), TrainConfig())
    assert other.pace is None


OLD_NAMES = [  # of transformers 5 -> of transformers 4, in which the published files of Mask2Former are
    (r"encoder\.swin\.", "encoder."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.relative_position_bias\.relative_position_bias_table", "attention.self.relative_position_bias_table"),
    (r"(blocks\.\d+\.attention)\.o_proj", r"\1.output.dense"),
    (r"(blocks\.\d+)\.mlp\.fc1", r"\1.intermediate.dense"),
    (r"(blocks\.\d+)\.mlp\.fc2", r"\1.output.dense"),
]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_published_weights_are_taken_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what tells of their classes; by hand too."""
    theirs = made(name, classes=9, seed=1)
    old = {}
    for key, value in theirs.network.state_dict().items():
        for new, before in OLD_NAMES if name not in EOMT else ():
            key = re.sub(new, before, key)
        old[key] = value
    assert name in EOMT or any("attention.self.query" in key for key in old)
    old["criterion.empty_weight"] = torch.ones(10)  # of the library's loss, which is not used
    file = tmp_path / "model.safetensors"
    file.write_bytes(modelfile.pack(weights.to_buffers(old), {"format": "pt"}))
    monkeypatch.setattr(pretrained, "downloaded", lambda repo, name, revision: file)
    network, mine = made(name), made(name)
    before, own = start_from_published(network, "segment", name)
    row = rows.ROWS["segment"][name]
    assert own["weights"] == row.repository and own["license"] == row.license and own["data"] == "ADE20K" and before == row.before
    found = weights.rows_of_classes(mine, made(name, classes=4), 3)
    assert {key: (part.first, part.each, part.last) for key, part in found.items()} == {
        "network.class_predictor.weight": (0, 1, 1),
        "network.class_predictor.bias": (0, 1, 1),
    }
    taken = checkpoints.take(mine, checkpoints.read(file), checkpoints.Place(found), [(7, 1)], least=0.9)
    assert taken.report.loaded > 30
    state = theirs.state_dict()
    for one in (network, mine):
        other = [key for key, value in one.state_dict().items() if not torch.equal(value, state[key])]
        assert len(other) == 2 and all("class_predictor." in key for key in other)
    bias, given = (one.network.class_predictor.bias for one in (mine, theirs))
    assert bias[1] == given[7] and bias[3] == given[9] and bias[0] != given[0], "the same class, and nothing"


@pytest.mark.parametrize("name", ["mask2former_swin_tiny", "eomt_dinov3_large"])
def test_licences_that_must_be_allowed_by_name(name: str) -> None:
    license = rows.ROWS["segment"][name].license
    for allowed in ((), ("mit", "apache")):
        with pytest.raises(UserError, match=f"are under {license}") as caught:
            rows.check_license("segment", name, allowed)
        assert f"--license {license}" in caught.value.fix
    rows.check_license("segment", name, (license,))
    rows.check_license("segment", "eomt_large", ())


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("task", CLASSES)
def test_classes_may_be_others(task: str) -> None:
    """Those kept keep their rows, and nothing keeps its own; what is told of them changes, as they share a softmax."""
    room: Any = answering(task, "this test")
    schema = Schema(task, ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})  # type: ignore[arg-type]
    network, card = room.create(room.recipe(schema, "cpu", Budget(model="eomt_large", size=(64, 64), epochs=1))[0], schema)
    planned = plan("set-classes +d -b", network, card, room.build)
    assert planned.card.classes == ("a", "c", "d") and planned.edit.promise == "changes the function"
    old, new = network.network.class_predictor, planned.network.network.class_predictor  # type: ignore[union-attr]
    for place, before in ((0, 0), (1, 2), (3, 3)):
        assert torch.equal(new.weight[place], old.weight[before]) and new.bias[place] == old.bias[before]
    assert not new.weight[2].any()
    assert plan("set-classes a=e", network, card, room.build).edit.promise == "exact"


@pytest.mark.usefixtures("tiny")
def test_cards_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("segment", ("a", "b"), rows.architecture("eomt_large", 2, 3), SPEC)
    network = rebuild(Queries, card, checked(card), 10**6)
    assert isinstance(network, nn.Module)
    for change in ({"name": 3}, {"arguments": {"classes": 9, "channels": 3}}, {"arguments": {}}, {"more": 1}):
        with pytest.raises(UserError, match="not the architecture"):
            checked(replace(card, architecture={**card.architecture, **change}))
    with pytest.raises(
        UserError, match=r"no network of transformers for segment is called 'eomt_giant' .the model was made by another version"
    ):
        checked(replace(card, architecture={**card.architecture, "name": "eomt_giant"}))
    with pytest.raises(UserError, match="must have 1 to 1 classes, was 2"):
        checked(card, 1)
    with pytest.raises(UserError, match="the file holds 1,000"):
        rebuild(Queries, card, "eomt_large", 1000)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name == "transformers" else find(name, package))
    with pytest.raises(UserError, match="eomt_large needs transformers"):
        checked(card)
