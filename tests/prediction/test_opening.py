"""Which file is meant, which runtime takes it, and the one line where there is none."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from saccade.core.errors import UserError
from saccade.prediction import opening
from saccade.prediction.opening import RUNTIMES, find_export, open_export, require


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`without(name, missing)`: the package `name` cannot be imported, for want of the module `missing`."""
    real = importlib.import_module

    def hide(name: str, missing: str | None) -> None:
        def fake(wanted: str, *args: Any) -> Any:
            if wanted == name:
                raise ImportError(f"no {missing}", name=missing)
            return real(wanted, *args)

        monkeypatch.setattr(opening.importlib, "import_module", fake)

    return hide


@pytest.mark.parametrize("name", ["model.onnx", "renamed.onnx", "model.xml", "my.model.xml"])
def test_a_file_is_itself_there_or_not(tmp_path: Path, name: str) -> None:
    assert find_export(tmp_path / name) == tmp_path / name
    (tmp_path / name).write_bytes(b"")
    assert find_export(str(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_a_folder_gives_the_file_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "other.onnx").write_bytes(b"")
    assert find_export(tmp_path) == tmp_path / name
    assert find_export(f"{tmp_path}/") == tmp_path / name


@pytest.mark.parametrize("name", ["best.safetensors", "model.ONNX", "model.bin", "model.onnx.gz", "model", "", "onnx", ".onnx"])
def test_what_is_no_export(tmp_path: Path, name: str) -> None:
    assert find_export(tmp_path / name) is None


def test_a_run_and_folders_without_one(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "best.safetensors").write_bytes(b"")
    (tmp_path / "other.onnx").write_bytes(b"")
    assert find_export(tmp_path) is None
    assert find_export(tmp_path / "gone") is None
    assert find_export(tmp_path / "run.json" / "model") is None


def test_a_folder_that_is_called_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    assert find_export(folder) is None
    assert find_export(tmp_path) is None
    (folder / "model.xml").write_bytes(b"")
    assert find_export(folder) == folder / "model.xml"


def test_a_file_that_is_not_there_is_said_before_a_runtime_is_wanted(tmp_path: Path, without: Any) -> None:
    without("onnxruntime", "onnxruntime")
    with pytest.raises(UserError, match="no such file") as caught:
        open_export(tmp_path / "gone.onnx")
    assert caught.value.where == str(tmp_path / "gone.onnx")


@pytest.mark.parametrize(("target", "fix"), [("onnx", "pip install 'onnxruntime'"), ("openvino", "pip install 'saccade[openvino]'")])
def test_a_runtime_that_is_missing_is_one_line_with_what_to_install(tmp_path: Path, without: Any, target: str, fix: str) -> None:
    path = tmp_path / f"model{RUNTIMES[target].suffix}"
    path.write_bytes(b"x")
    for missing in (RUNTIMES[target].package, None):
        without(RUNTIMES[target].package, missing)
        for ask in (lambda: open_export(path), lambda: require(target)):
            with pytest.raises(UserError, match=f"{target} needs the package") as caught:
                ask()
            assert caught.value.fix == fix
            assert "\n" not in str(caught.value)


def test_a_runtime_that_is_there_but_broken_is_no_mistake_of_the_users(tmp_path: Path, without: Any) -> None:
    without("onnxruntime", "numpy.core")
    with pytest.raises(ImportError, match=r"no numpy\.core"):
        require("onnx")


def test_a_file_that_is_opened_gets_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    module = importlib.import_module("saccade.prediction.onnx_file")
    monkeypatch.setattr(module, "OnnxFile", lambda path, device: seen.append((path, device)) or "opened")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert open_export(tmp_path / "model.onnx", device="cuda:1") == "opened"
    assert open_export(tmp_path / "model.onnx") == "opened"
    assert seen == [(tmp_path / "model.onnx", "cuda:1"), (tmp_path / "model.onnx", "auto")]
