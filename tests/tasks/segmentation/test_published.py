"""torchvision's published networks that segment: the classes of Pascal VOC kept where the data have them by the same names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision import models as theirs

from saccade.api import taking
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.sample import Schema
from saccade.nn import coco, fetching
from saccade.task import Budget
from saccade.tasks.segmentation.task import Segmentation

NAME = "lraspp_mobilenet_v3_large"
VOC = theirs.get_model_weights(NAME).DEFAULT.meta
CLASSES = ("tvmonitor", "unicorn", "background", "cat")
SAME = ((0, 20), (2, 0), (3, 8))  # here, there
SCHEMA = Schema("segment", CLASSES, {"train": (0,) * 4}, 3, (64, 64), True, {"train": 240, "val": 6}, None, (0.4, 0.3, 0.2, 0.1))
TASK = Segmentation()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    network = theirs.get_model(NAME, weights=None, weights_backbone=None, num_classes=21)
    second = {"aux_classifier.4.bias": torch.zeros(21)}  # as files of others have it
    return {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in network.state_dict().items()} | second


@pytest.fixture
def file(state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights as torchvision publishes them: pickled, named by their sum, in the cache already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetching.cache().mkdir(parents=True)
    torch.save(state, fetching.cache() / "x")
    told = hashlib.sha256((fetching.cache() / "x").read_bytes()).hexdigest()[:8]
    found = (fetching.cache() / "x").rename(fetching.cache() / f"{NAME}-{told}.pth")
    monkeypatch.setattr(coco, "_stated", lambda name: SimpleNamespace(url=f"http://127.0.0.1:9/{found.name}", meta=VOC))
    return found


def made(**changes: Any) -> tuple[Any, Any, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=NAME, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", **changes})
    TASK.check(config)
    torch.manual_seed(0)
    return *TASK.create(config, SCHEMA), config


@pytest.mark.processes
@pytest.mark.long
def test_taken_by_name_and_by_hand(file: Path, state: dict[str, torch.Tensor]) -> None:
    fresh = made()[0].state_dict()
    network, card, _ = made(pretrained=True)
    mine, other, config = made(weights=str(file))
    told, _ = taking.take(TASK, config, SCHEMA, mine, other, Silent())
    assert [(link["weights"], link["license"], link["data"]) for link in card.licenses] == [(file.name, "bsd-3-clause", "COCO train2017")]
    assert [link["weights"] for link in told.licenses] == [file.name]
    for one in (network, mine):
        heads = 0
        for key, value in one.state_dict().items():
            given = state[key.removeprefix("network.")]
            if value.shape == given.shape:
                assert torch.equal(value, given), key
                continue
            heads += 1
            assert all(torch.equal(value[here], given[there]) for here, there in SAME) and torch.equal(value[1], fresh[key][1]), key
        assert heads == 4, "of each of its two maps weights and biases"


def test_the_background_is_a_class_here_and_none_of_a_detector() -> None:
    assert coco.categories(NAME)[:2] == ("background", "aeroplane") and len(coco.categories(NAME)) == 21
    assert coco.categories("retinanet_resnet50_fpn")[:2] == ("person", "bicycle")


def test_without_network_one_line_says_what_to_bring(file: Path) -> None:
    file.unlink()
    with pytest.raises(UserError, match=f"cannot fetch the weights of {NAME}.*asked for http://127.0.0.1:9/{file.name}"):
        made(pretrained=True)
