"""The package's public names: lazily loaded, complete, and light."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import saccade
from saccade.core.errors import UserError


def test_names_load_when_used(api: Any) -> None:
    for name in ("train", "eval", "predict", "explain", "load", "load_run", "quickstart", "eval_predictions"):
        api.answer = name
        assert getattr(saccade, name)("x") == name
    assert saccade.UserError is UserError
    assert saccade.Classification.__module__ == "saccade.core.results"
    assert saccade.TrainConfig.__module__ == "saccade.core.config"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        saccade.trian  # noqa: B018


def test_dir_and_all() -> None:
    assert set(saccade.__all__) <= set(dir(saccade))
    assert sorted(set(saccade.__all__)) == sorted(saccade.__all__)
    assert all(getattr(saccade, name) is not None for name in saccade.__all__)


def test_the_version_is_that_of_the_package() -> None:
    assert saccade.__version__ == version("saccade")


@pytest.mark.processes
def test_import_loads_nothing() -> None:
    program = "import sys; before = set(sys.modules); import saccade, saccade.data; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not {name.partition(".")[0] for name in loaded} & {"torch", "numpy", "rich", "pydantic", "click", "PIL", "difflib"}
    assert {name for name in loaded if name.startswith("saccade")} == {"saccade", "saccade.data"}


def test_make_hands_on_and_refuses_unknown_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builtin = types.ModuleType("saccade.data.builtin")
    builtin.make_shapes = lambda out, **options: {"out": out, **options}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "saccade.data.builtin", builtin)
    made = saccade.data.make("shapes", out=str(tmp_path), size=(17, 11))
    assert made == {"out": tmp_path, "task": "classify", "n": 600, "size": (17, 11), "seed": 0, "format": None, "progress": None}
    with pytest.raises(UserError, match="did you mean shapes"):
        saccade.data.make("shape", out=tmp_path)
