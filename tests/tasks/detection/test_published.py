"""torchvision's published detectors: fetched once, by address and sum; COCO's classes kept where the data have them by the same names."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision import models as theirs

from saccade.api import taking
from saccade.core.card import InputSpec
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.sample import Schema
from saccade.nn import coco, fetching, weights
from saccade.objects.library import Library
from saccade.task import Budget
from saccade.tasks.detection.task import Detection

NAME = "ssdlite320_mobilenet_v3_large"
COCO = theirs.get_model_weights(NAME).DEFAULT.meta
CLASSES = ("toothbrush", "unicorn", "person", "N/A")  # COCO's 90th, none of its, its first, and what numbers that none has are called
TASK: Any = Detection()
SCHEMA = Schema("detect", CLASSES, {"train": (80,) * 4}, 3, (64, 64), True, {"train": 240, "val": 6})


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    found = theirs.get_model(NAME, weights=None, weights_backbone=None, num_classes=91).state_dict()
    return {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in found.items()}


@pytest.fixture(scope="module")
def file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as torchvision publishes them: pickled, named by their sum."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(state, folder / "x.pth")
    told = hashlib.sha256((folder / "x.pth").read_bytes()).hexdigest()[:8]
    return (folder / "x.pth").rename(folder / f"{NAME}_coco-{told}.pth")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> SimpleNamespace:
    """What torchvision's table says of them; an empty cache."""
    found = SimpleNamespace(url=f"http://127.0.0.1:9/{file.name}", meta=COCO)  # nobody listens there
    monkeypatch.setattr(coco, "_stated", lambda name: found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


@pytest.fixture
def server(file: Path, told: SimpleNamespace) -> Iterator[list[str]]:
    """The paths that it was asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *parts: Any) -> None:
            asked.append(self.path)

    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(file.parent)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{serving.server_port}/{file.name}"
    yield asked
    serving.shutdown()
    serving.server_close()


def config(**changes: Any) -> Any:
    found, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=NAME, size=(64, 64), epochs=1))
    return override(found, {"device": "cpu", "precision": "fp32", **changes})


def created(**changes: Any) -> tuple[Any, Any]:
    asked = config(**changes)
    TASK.check(asked)
    torch.manual_seed(0)
    network, card = TASK.create(asked, SCHEMA)
    return network, card


def check(network: Any, fresh: Any, state: dict[str, torch.Tensor]) -> None:
    """All of the file is in the network, and of its classes those of the same names, whatever stands beside them at an anchor."""
    before = fresh.state_dict()
    mixed = 0
    for key, value in network.state_dict().items():
        other = state[key.removeprefix("network.")]
        if value.shape == other.shape:
            assert torch.equal(value, other), key
            continue
        mixed += 1
        anchors = len(value) // 5
        mine, other, first = (part.view(anchors, -1, *part.shape[1:]) for part in (value, other, before[key]))
        for here, there in ((0, 0), (1, 90), (3, 1)):  # nothing, a toothbrush, a person
            assert torch.equal(mine[:, here], other[:, there]), key
        assert torch.equal(mine[:, [2, 4]], first[:, [2, 4]]), "a unicorn stays as it was"
    assert mixed == 12


@pytest.mark.processes
@pytest.mark.long
def test_they_are_fetched_once(server: list[str], file: Path, state: dict[str, torch.Tensor]) -> None:
    fresh, _ = created()
    for _ in range(2):
        network, card = created(pretrained=True)
        check(network, fresh, state)
    assert len(server) == 1, "the second time they lie in the cache"
    assert card.licenses == (
        {
            "weights": file.name,
            "source": coco.weights(NAME).address,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "license": "bsd-3-clause",
            "data": "COCO train2017",
        },
    )
    assert card.input.mean == (0.5,) * 3 and card.input.std == (0.5,) * 3, "what these weights have seen"
    assert fresh.normalize.scale.flatten().tolist() != network.normalize.scale.flatten().tolist()


@pytest.mark.usefixtures("told")
def test_without_network_one_line_says_what_to_bring(file: Path) -> None:
    with pytest.raises(UserError, match=f"cannot fetch the weights of {NAME}.*asked for http://127.0.0.1:9/{file.name}") as caught:
        created(pretrained=True)
    assert "--weights FILE" in caught.value.fix


def test_a_file_whose_sum_is_another_is_refused(server: list[str], told: SimpleNamespace, file: Path) -> None:
    other = file.parent / "ssd-00000000.pth"
    other.write_bytes(file.read_bytes())
    told.url = told.url.replace(file.name, other.name)
    with pytest.raises(UserError, match="is not the file that is published"):
        created(pretrained=True)
    assert server and not list(fetching.cache().glob("*"))


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.usefixtures("told")
def test_the_file_by_hand(file: Path, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Known by its name and sum; under another name its classes are not, and nothing is taken of them."""
    fresh, card = created()
    network, _ = created()
    card, _ = taking.take(TASK, config(weights=str(file)), SCHEMA, network, card, Silent())
    check(network, fresh, state)
    assert [link["weights"] for link in card.licenses] == [file.name]
    other = tmp_path / "mine.pth"
    other.write_bytes(file.read_bytes())
    network, card = created()
    taking.take(TASK, config(weights=str(other)), SCHEMA, network, card, Silent())
    heads = [
        key for key, value in network.state_dict().items() if torch.equal(value, fresh.state_dict()[key]) and value.is_floating_point()
    ]
    assert len(heads) == 12 and all("classification_head" in key for key in heads)


@pytest.mark.parametrize(
    ("name", "layouts"),
    [
        ("fasterrcnn/resnet10t", {"cls_score": (1, 1), "bbox_pred": (1, 4)}),
        ("retinanet/mobilenetv3_small_050", {"cls_logits": (9, 1)}),
        ("fcos/mobilenetv3_small_050", {"cls_logits": (1, 1)}),
    ],
)
def test_rows_of_the_same_classes(name: str, layouts: dict[str, tuple[int, int]]) -> None:
    """Anchors first, then the background and the classes, then what is told of each."""
    spec = InputSpec(3, (64, 64), "fit", (0.0,) * 3, (1.0,) * 3)
    with torch.device("meta"):
        wider = Library(spec, name, 4)
    ours, other = (Library(spec, name, count) for count in (3, 5))
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    rows = weights.rows_of_classes(ours, wider, 3)
    assert len(rows) == 2 * len(layouts)
    report = weights.load_matching(ours, weights.to_buffers(other), rows, [(4, 0), (0, 2)])
    assert not report
    for key, part in rows.items():
        blocks, each = next(layout for end, layout in layouts.items() if end in key)
        assert (part.blocks, part.each, part.first, part.last) == (blocks, each, each, 0)
        shape = (blocks, -1, each, *before[key].shape[1:])
        mine, theirs, first = (value[key].view(shape) for value in (ours.state_dict(), other.state_dict(), before))
        assert torch.equal(mine[:, [0, 1, 3]], theirs[:, [0, 5, 1]]) and torch.equal(mine[:, 2], first[:, 2])


def test_what_is_no_file_of_theirs_tells_no_classes(tmp_path: Path) -> None:
    file = tmp_path / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    file.write_bytes(b"x")
    assert coco.classes(NAME, file) == () == coco.classes("small_detector", file)
    known = coco.categories("fasterrcnn_resnet50_fpn")
    assert len(known) == 90 and known[0] == "person" and known[89] == "toothbrush" and known.count("") == 10
    told = coco.weights("maskrcnn_resnet50_fpn")
    assert told.address.endswith(f"/{told.file}") and told.license == "bsd-3-clause" and told.parameters == 44_401_393


def test_grey_images_take_the_mean_of_the_colours() -> None:
    mean, std = TASK._colours(replace(config(), model="ssd300_vgg16", channels=1, pretrained=True))
    assert mean == pytest.approx((0.449,), abs=1e-3) and std == pytest.approx((1 / 255,))
