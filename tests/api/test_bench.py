"""`bench`: real processes, one a model, measured in turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.api import benching
from saccade.cli.main import main
from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.exporting import targets
from saccade.exporting.graph import assemble
from saccade.nn import weights
from saccade.tasks.classification.task import Classification
from small_jobs import CARD, one_thread  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.safetensors, model.onnx and model.xml of one network, and six images."""
    folder, task = tmp_path_factory.mktemp("bench"), Classification()
    module = task.build(CARD).eval()
    modelfile.save(folder / "model.safetensors", weights.to_buffers(module), CARD)
    graph = assemble(module, task.decode, CARD)
    for target in ("onnx", "openvino"):
        for name, content in targets.write(target, graph, "fp32").files.items():
            (folder / name).write_bytes(content)
    for number, name in enumerate(CARD.classes):
        (folder / "data" / name).mkdir(parents=True)
        for image in range(2):
            pixels = np.random.default_rng(10 * number + image).integers(0, 256, (20, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{image}.png")
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "ROUNDS", 2)
    monkeypatch.setattr(benching, "REPEATS", 3)
    monkeypatch.setattr(benching, "SECONDS", 0.02)


def test_three_runtimes_side_by_side(place: Path, tmp_path: Path) -> None:
    files = [place / name for name in ("model.safetensors", "model.onnx", "model.xml")]
    found = saccade.bench(files, data=place / "data", batch=3, out=tmp_path / "out", device="cpu", progress=Silent())
    rows = found.to_dict()["rows"]
    assert [(row["model"], row["target"], row["precision"], row["batch"]) for row in rows] == [
        (str(file), target, "fp32", 3) for file, target in zip(files, ("torch", "onnx", "openvino"), strict=True)
    ]
    measured = saccade.load(files[0], device="cpu").evaluate(place / "data", progress=Silent()).metrics["accuracy"]
    for row in rows:
        assert row["metric"] == measured
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["images_per_second"] > 0 and row["start_s"] > 0
    assert rows[0]["memory_mb"] > rows[1]["memory_mb"] > 20, "torch takes more than ONNX Runtime, which takes some"
    assert rows[2]["file_mb"] == pytest.approx(sum((place / f"model.{end}").stat().st_size for end in ("xml", "bin")) / 1e6)
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == found.to_dict()
    with Image.open(tmp_path / "out" / "bench.png") as picture:
        assert picture.size[0] > 500
    page = found._repr_html_()
    assert page.count("<tr>") == 4 and "openvino" in page


def test_without_data_there_is_no_metric_and_other_sizes_go(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(place / "model.onnx"), "--size", "20x33", "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["metric"] is None and row["batch"] == 8
    found = saccade.bench(place / "model.onnx", progress=Silent())
    assert found.plot().axes[0].get_xlabel() == "milliseconds for one image (median)"


def test_a_run_stands_for_its_model_and_its_exports(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "exports" / "onnx-fp32").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {"data": str(place / "data")}}))
    (run / "best.safetensors").write_bytes((place / "model.safetensors").read_bytes())
    (run / "exports" / "onnx-fp32" / "model.onnx").write_bytes((place / "model.onnx").read_bytes())
    models = benching._models(run, None)
    assert [(file.name, data) for file, data in models] == [
        ("best.safetensors", str(place / "data")),
        ("model.onnx", str(place / "data")),
    ]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{place}/gone.onnx"], "no such file"),
        (["{place}/gone"], "no such run or model"),
        (["{place}/data"], "neither a run folder nor a model file"),
        (["{place}/model.onnx", "--precision", "fp16"], "computes in fp32"),
        (["{place}/model.onnx", "--batch", "0"], "--batch"),
        (["{place}/model.onnx", "{place}/broken.onnx"], "is no ONNX file"),
    ],
)
def test_what_is_wrong_is_one_line(place: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    (place / "broken.onnx").write_bytes(b"no graph")
    assert main(["bench", *(word.format(place=place) for word in argv), "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert words in printed.err and "Traceback" not in printed.err


def test_a_worker_that_dies_is_a_defect_and_leaves_no_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = benching.subprocess.Popen

    def start(*args: Any, **options: Any) -> Any:
        started.append(popen(["/bin/false"], **options))
        return started[-1]

    monkeypatch.setattr(benching.subprocess, "Popen", start)
    with pytest.raises(RuntimeError, match="has ended with code 1"):
        saccade.bench(place / "model.onnx", progress=Silent())
    assert started[0].poll() == 1
    with pytest.raises(UserError):
        saccade.bench(place / "gone.onnx", progress=Silent())
