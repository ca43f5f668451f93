"""What a model descends from is told link by link, and `--license` refuses other weights before anything is read, fetched or written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import saccade
from saccade import Run, UserError
from saccade.cli.main import main
from saccade.core.modelfile import pack
from saccade.core.progress import Silent
from saccade.nn import pretrained
from saccade.nn.weights import to_buffers
from saccade.tasks.classification.models.classic import LeNet5

HERE = Silent()
NAME = "lenet5"


def sum_of(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def plain(tmp_path: Path) -> Path:
    """Weights of somebody, which say nothing of where they are from."""
    torch.manual_seed(0)
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(pack(to_buffers(LeNet5(3, channels=3))))
    return file


def train(data: Path, out: Path, **options: object) -> Run:
    return saccade.train(data, out=out, epochs=1, batch=8, size=16, workers=0, device="cpu", progress=HERE, report=False, **options)  # type: ignore[arg-type]


@pytest.mark.long
def test_every_link_is_told(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Published, adopted, trained from it, trained from that: four links, in the file, on the terminal and in JSON."""
    file, adopted = plain(tmp_path), tmp_path / "adopted.safetensors"
    saccade.adopt(file, model=NAME, channels=3, out=adopted, license="MIT", source="https://example.org/theirs", data="MNIST")
    first = train(tiny_folder, tmp_path / "one", weights=adopted, license="mit")
    second = train(tiny_folder, tmp_path / "two", weights=first.model, license="apache-2.0, mit")
    theirs = {
        "weights": "theirs.safetensors",
        "source": "https://example.org/theirs",
        "sha256": sum_of(file),
        "license": "mit",
        "data": "MNIST",
    }
    chain = [
        theirs,
        {"weights": "adopted.safetensors", "sha256": sum_of(adopted)},
        {"weights": "one/best.safetensors", "sha256": sum_of(first.model), "data": "tiny"},
        {"weights": "this model", "data": "tiny"},
    ]
    card = saccade.load(second.model, device="cpu").card
    assert list(card.descent) == chain and second.config.license == ("apache-2.0", "mit")
    (entry,) = saccade.models(second.path)
    assert list(entry.descent) == chain and entry.license == "mit" and entry.dataset == "tiny"
    assert main(["models", str(second.path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("descent")]
    assert len(lines) == 4 and "licence mit" in lines[0] and "https://example.org/theirs" in lines[0] and sum_of(file) in lines[0]
    assert main(["models", str(second.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["descent"] == chain
    with pytest.raises(UserError, match=r"theirs.safetensors are under mit, must be under apache-2.0"):
        train(tiny_folder, tmp_path / "three", weights=second.model, license="apache-2.0")
    assert not (tmp_path / "three").exists()
    assert "--license apache-2.0,mit" in json.loads((second.path / "run.json").read_text())["command"]


def test_a_model_from_nothing_descends_from_none(run: Run) -> None:
    card = saccade.load(run.model, device="cpu").card
    assert (card.licenses, card.descent) == ((), ({"weights": "this model", "data": "shapes"},))


def test_the_report_tells_it(run: Run, page: Callable[[str], object]) -> None:
    text = page((run.path / "report.html").read_text()).text  # type: ignore[attr-defined]
    assert "Where the weights come from" in text and "this model · learned from shapes" in text


def test_unknown_and_other_licences_are_refused_unread(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> Path:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(pretrained, "fetch", never)
    monkeypatch.setattr(pretrained, "from_hub", never)
    for options, words in (
        ({"weights": plain(tmp_path)}, r"theirs.safetensors are of unknown licence, must be under mit .*saccade adopt"),
        ({"model": "resnet18", "pretrained": True}, "resnet18 are under apache"),
        ({"model": "resnet18.fb_swsl_ig1b_ft_in1k", "pretrained": True}, "ig1b_ft_in1k are under cc-by-nc"),
        ({"model": "torchvision/vit_b_16.IMAGENET1K_SWAG_E2E_V1", "pretrained": True}, "under cc-by-nc"),
        ({"model": "dfine_n", "task": "detect", "pretrained": True}, "dfine_n are under apache"),
        ({"task": "generate", "set": {"generation.features": "resnet18"}}, "generation.features: the weights resnet18 are under"),
    ):
        with pytest.raises(UserError, match=words):
            saccade.train(tiny_folder, out=tmp_path / "r", epochs=1, license="mit", progress=HERE, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="resnet18 are under apache"):
        saccade.embed("resnet18", tiny_folder, pretrained=True, license=["mit"], progress=HERE)
    asked = [
        "train",
        str(tiny_folder),
        "--model",
        "resnet18",
        "--pretrained",
        "--license",
        "mit, bsd",
        "--out",
        str(tmp_path / "r"),
        "--json",
    ]
    assert main(asked) == 2
    assert "must be under mit or bsd" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "r").exists()


@pytest.mark.long
def test_a_run_that_is_drawn_to_its_start_goes_on_from_the_same_start(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    for asked, words in (({"unfreeze": 0.5}, "unfreeze: is for weights"), ({"start_decay": 0.1}, "start_decay: is for weights")):
        with pytest.raises(UserError, match=words):
            train(tiny_folder, tmp_path / "none", model="small_resnet_8px", set=asked)
    file = tmp_path / "start.safetensors"
    file.write_bytes(run.model.read_bytes())
    asked = {"unfreeze": 0.5, "start_decay": 0.1, "layer_decay": 0.8}
    begun = train(tiny_folder, tmp_path / "r", weights=file, set=asked)
    assert any(line.startswith("layer_decay: 0.9, with ") for line in train(tiny_folder, tmp_path / "s", weights=file).to_dict()["reasons"])
    saccade.edit(file, "replace ReLU SiLU", out=tmp_path / "other.safetensors")
    file.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(UserError, match="no longer what they were"):
        saccade.train(out=begun.path, resume=True, progress=HERE)
