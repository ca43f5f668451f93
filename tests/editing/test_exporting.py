"""Edited networks of other rooms pass the export gate too (classifiers: tests/api/test_edit.py)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import saccade
from editing.conftest import make
from saccade.core.progress import Silent
from saccade.data.opening import open_dataset

pytestmark = pytest.mark.slow
EDITS = {
    ("detect", "small_detector"): (
        "widen head 1.25",
        "deepen backbone.stages.2 +1",
        "insert-after backbone.stages.1 SqueezeExcite",
        "add-lora 2 head",
        "prune backbone.stages.3 0.3",
    ),
    ("instances", "small_instances"): ("widen prototypes 1.5", "replace SiLU ReLU"),
    ("segment", "small_unet"): (
        "widen stages.2 1.5",
        "deepen ups.2 +1",
        "insert-after stages.1 SqueezeExcite",
        "replace BatchNorm GroupNorm 2",
        "factorize stages.3 4",
    ),
}


@pytest.mark.parametrize(("task", "model"), EDITS)
def test_an_edited_model_is_exported_with_proof(tmp_path: Path, task: str, model: str) -> None:
    network = make(task, model, (64, 64))
    saccade.data.make("shapes", task=task, n=20, size=(64, 64), out=tmp_path / "shapes", seed=1)
    old, new = network.card.classes, open_dataset(tmp_path / "shapes", task=task).schema.classes
    words = [f"{one}={other}" for one, other in zip(old, new, strict=False)] + [f"+{one}" for one in new[len(old) :]]
    classes = f"set-classes {shlex.join(words + [f'-{one}' for one in old[len(new) :]])}"
    file = saccade.edit(network.save(tmp_path / "m.safetensors"), classes, *EDITS[task, model]).model
    exported = saccade.export(file, data=tmp_path / "shapes", out=tmp_path / "onnx", device="cpu", progress=Silent())  # type: ignore[arg-type]
    assert exported.passed, exported.facts["checks"]
    assert [edit["text"] for edit in saccade.load(exported.file).card.edits][1:] == list(EDITS[task, model])  # type: ignore[arg-type]
