"""`models`: every room's rows, what is kept of them, files, names that are none; no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import saccade
from saccade import Run, UserError
from saccade.tasks import ROOMS, room


def test_every_row_of_every_room() -> None:
    found = saccade.models()
    assert len(found) == sum(len(room(task).models()) for task in ROOMS) > 1000
    assert {entry.task for entry in found} == set(ROOMS)
    assert [entry.name for entry in found] == sorted(entry.name for entry in found)
    json.dumps(found.to_dict(), allow_nan=False)
    known = {"name", "task", "source", "parameters", "flops", "size", "license", "metric", "dataset", "local", "descent"}
    assert set(found.to_dict()["models"][0]) == known


def test_what_is_kept() -> None:
    small = saccade.models(task="classify", max_params="5M", license="apache-2.0, mit", sort="parameters")
    counts = [entry.parameters for entry in small]
    assert counts == sorted(counts) and counts[-1] <= 5_000_000 and len(small) > 20
    assert {entry.license for entry in small} <= {"apache-2.0", "mit"}
    best = saccade.models(task="detect", sort="metric")
    known = [entry.metric for entry in best if entry.metric is not None]
    assert known == sorted(known, reverse=True) and best[0].name == "dfine_x"
    assert best[-1].metric is None
    assert {entry.name for entry in saccade.models("small_*")} >= {"small_unet", "small_detector", "small_instances"}
    (one,) = saccade.models("small_unet")
    assert (one.task, one.source, one.license, one.local) == ("segment", "saccade", "", False)
    assert len(saccade.models("no such*")) == 0


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"name": "resnet51"}, "did you mean resnet"),
        ({"task": "clasify"}, "did you mean classify"),
        ({"sort": "size"}, "unknown order"),
        ({"max_params": "many"}, "must be a number above 0"),
        ({"max_params": "-3M"}, "must be a number above 0"),
        ({"max_params": "nan"}, "must be a number above 0"),
    ],
)
def test_what_is_refused(request_: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        saccade.models(**request_)  # type: ignore[arg-type]


def test_a_run_and_its_file(run: Run) -> None:
    for target in (run.path, run.model):
        (one,) = saccade.models(target)
        assert (one.task, one.source, one.local) == ("classify", "file", True)
        assert one.parameters > 1000 and one.metric == run.metrics["accuracy"]


def test_weights_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of timm whatever their tag, of transformers and torchvision; a repository of which only the configuration was fetched has none."""
    for repository, file in (
        ("timm--resnet18.a1_in1k", "model.safetensors"),
        ("microsoft--resnet-50", "pytorch_model.bin"),
        ("ustc-community--dfine-nano-coco", "model.safetensors"),
        ("google--vit-base-patch16-224", "config.json"),
    ):
        place = tmp_path / f"models--{repository}/snapshots/abc"
        place.mkdir(parents=True)
        (place / file).touch()
    (tmp_path / "saccade/weights").mkdir(parents=True)
    (tmp_path / "saccade/weights/vgg16-397923af.pth").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = [entry.name for entry in saccade.models() if entry.local]
    assert here == ["dfine_n", "hf/microsoft/resnet-50", "resnet18", "torchvision/vgg16"]


@pytest.mark.processes
def test_the_command_loads_no_torch() -> None:
    code = (
        "import sys\nfrom saccade.cli.main import main\n"
        "try:\n    main(['models', '--task', 'segment', '--json'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'torch is there'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert {row["task"] for row in json.loads(done.stdout)["models"]} == {"segment"}
