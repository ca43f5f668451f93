"""`models`: every room's rows, what is kept of them, files, names that are none; no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import saccade
from saccade import Run, UserError
from saccade.api import planning
from saccade.cli.main import main
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
    assert known == sorted(known, reverse=True) and best[0].name == "deimv2_x"
    assert best[-1].metric is None
    assert {entry.name for entry in saccade.models("small_*")} >= {"small_unet", "small_detector", "small_instances"}
    (one,) = saccade.models("small_unet")
    assert (one.task, one.source, one.license, one.local) == ("segment", "saccade", "", False)
    assert len(saccade.models("no such*")) == 0
    with pytest.raises(UserError, match="unknown model"):
        saccade.models("n" * 300)
    with pytest.raises(UserError, match="must be hf/OWNER/NAME"):
        saccade.models("hf/~nobody here/net")


def test_as_a_table_of_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas is not among what is installed for tests: a stand-in takes the rows."""
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    found = saccade.models("small_*")
    assert found.to_pandas() == found.to_dict()["models"] and len(found) > 3
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pandas is not installed"):
        found.to_pandas()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"name": "resnet51"}, "did you mean resnet"),
        ({"task": "clasify"}, "did you mean classify"),
        ({"sort": "size"}, "unknown order"),
        ({"license": "mit,apache2"}, "unknown licence 'apache2' .*did you mean apache-2.0"),
        ({"max_params": "many"}, "must be a number above 0"),
        ({"max_params": "-3M"}, "must be a number above 0"),
        ({"max_params": "nan"}, "must be a number above 0"),
    ],
)
def test_what_is_refused(request_: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        saccade.models(**request_)  # type: ignore[arg-type]


def test_all_filters_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["models", "--task", "detect", "--max-params", "30M", "--license", "apache-2.0,mit,bsd", "--sort", "metric", "--json"]
    assert main(argv) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    every = [entry for entry in saccade.models(task="detect") if entry.license]
    wanted = {entry.name for entry in every if entry.parameters <= 30_000_000 and entry.license in ("apache-2.0", "bsd-3-clause")}
    assert {row["name"] for row in rows} == wanted and len(wanted) < len(every)
    assert {row["license"] for row in rows} == {"apache-2.0", "bsd-3-clause"}
    figures = [row["metric"] for row in rows]
    assert figures == sorted(figures, reverse=True) and {row["task"] for row in rows} == {"detect"}
    (only,) = saccade.models("dfine_s", task="detect", max_params=11_000_000, license=["apache-2.0"])
    assert only.metric and len(saccade.models("dfine_s", license="mit")) == 0
    makers = saccade.models(task="generate", sort="parameters")
    assert [entry.name for entry in makers if entry.source == "diffusers"] == ["autoencoder_kl", "vq_model"]


@pytest.mark.parametrize(
    ("name", "license", "size", "metric", "data"),
    [
        ("convnext_tiny.in12k_ft_in1k", "apache-2.0", (224, 224), 0.8419, "ImageNet-12k, ImageNet-1k"),
        ("resnet18.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", (224, 224), 0.73288, "Instagram-1B, ImageNet-1k"),
        ("torchvision/resnet50.IMAGENET1K_V2", "bsd-3-clause", (224, 224), 0.80858, "ImageNet-1k"),
        ("torchvision/resnet50.IMAGENET1K_V1", "bsd-3-clause", (224, 224), 0.7613, "ImageNet-1k"),
    ],
)
def test_weights_by_their_tag(name: str, license: str, size: tuple[int, int], metric: float | None, data: str) -> None:
    """As people type them."""
    (one,) = saccade.models(name)
    assert (one.name, one.license, one.size, one.task, one.local) == (name, license, size, "classify", False)
    assert one.metric == (None if metric is None else pytest.approx(metric, abs=2e-3)) and bool(one.dataset) == (metric is not None)
    assert one.descent[0]["data"] == data and one.descent[0]["source"].startswith("https://")
    with pytest.raises(UserError, match=r"unknown weights .*did you mean .*\."):
        saccade.models(name + "x")


def test_a_model_by_the_repository_of_its_weights() -> None:
    """As people type it."""
    (one,) = saccade.models("hf/ustc-community/dfine-small-coco")
    assert (one.name, one.task) == ("dfine_s", "detect")
    asked = {"model": "hf/ustc-community/dfine-small-coco", "pretrained": True}
    assert planning.settle(None, asked)["model"] == "dfine_s" and asked["model"].startswith("hf/")
    (one,) = saccade.models("hf/microsoft/resnet-50")
    assert one.name == "hf/microsoft/resnet-50"


@pytest.mark.parametrize(
    ("name", "tag", "task"),
    [
        ("fasterrcnn_resnet50_fpn", "COCO_V1", "detect"),
        ("maskrcnn_resnet50_fpn_v2", "COCO_V1", "instances"),
        ("deeplabv3_resnet50", "COCO_WITH_VOC_LABELS_V1", "segment"),
    ],
)
def test_torchvisions_networks_that_stand_here_without_its_name(name: str, tag: str, task: str) -> None:
    """With a tag, as the weights are called where they are published, or without."""
    for asked in (f"torchvision/{name}.{tag}", f"torchvision/{name}", f"{name}.{tag}", f"torchvision/{name}.DEFAULT"):
        assert [(one.name, one.task) for one in saccade.models(asked)] == [(name, task)]
        assert planning.settle(None, {"model": asked})["model"] == name
    with pytest.raises(UserError, match=f"unknown weights 'torchvision/{name}.COCO_V2' .did you mean torchvision/{name}.{tag}"):
        planning.settle(None, {"model": f"torchvision/{name}.COCO_V2"})


INDEX = """model-index:
- name: net
  results:
  - task: {type: image-classification}
    dataset: {name: "my photos, test"}
    metrics:
    - {type: f1, value: 0.4}
    - {type: accuracy, value: %s}
"""


@pytest.mark.parametrize(
    ("head", "metric"),
    [
        (INDEX % "0.875", 0.875),
        (INDEX % "87.5", 0.875),
        (INDEX % "many", None),
        (INDEX % "nan", None),
        (INDEX % "-1", None),
        ("model-index: 3\n", None),
        ("model-index: [[\n", None),
        ("tags: [a]\n", None),
    ],
)
def test_one_of_transformers_that_stands_in_no_table(tmp_path: Path, head: str, metric: float | None) -> None:
    """What is counted is what the library itself counts."""
    from transformers import ViTConfig, ViTForImageClassification

    labels = {number: str(number) for number in range(7)}
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    }
    config = ViTConfig(**sizes, id2label=labels, label2id={name: number for number, name in labels.items()})
    config.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "README.md").write_text(f"---\nlicense: mit\n{head}---\n# a net\n")
    (one,) = saccade.models(f"hf/{tmp_path}/net")
    counted = sum(value.numel() for value in ViTForImageClassification(config).parameters())
    assert (one.task, one.source, one.parameters, one.size) == ("classify", "transformers", counted, (32, 32))
    assert one.flops and one.flops > counted and (one.license, one.local) == ("mit", False)
    assert (one.metric, one.dataset) == (metric, "my photos, test" if metric else "")
    (tmp_path / "net" / "model.safetensors").touch()
    assert saccade.models(f"hf/{tmp_path}/net")[0].local
    assert len(saccade.models(f"hf/{tmp_path}/net", license="apache-2.0")) == 0
    with pytest.raises(UserError, match="unknown model"):
        saccade.models(f"hf/{tmp_path}/net", task="detect")


def test_one_of_transformers_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(repo: str, file: str, revision: str) -> Path:
        raise OSError("no network")

    monkeypatch.setattr("saccade.nn.pretrained.downloaded", none)
    with pytest.raises(UserError, match=r"asked for https://huggingface.co/a/b/resolve/main/config.json .*hf/FOLDER"):
        saccade.models("hf/a/b")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="family 'bert'"):
        saccade.models(f"hf/{tmp_path}/net")


def test_a_run_and_its_file(run: Run) -> None:
    for target in (run.path, run.model):
        (one,) = saccade.models(target)
        assert (one.task, one.source, one.local) == ("classify", "file", True)
        learned = sum(parameter.numel() for parameter in saccade.load(run.model).module.parameters())
        assert one.parameters == learned and one.metric == run.metrics["accuracy"]


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
