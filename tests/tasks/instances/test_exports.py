"""Exports of transformers' networks that find masks: any number of images of any size, with the proof, of networks that have hardly
learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saccade
from saccade.core.progress import Silent
from saccade.tasks.instances.models.detr_rows import ROWS
from small_detr import TINY_MASKS
from small_jobs import one_thread
from tiny_queries import tiny

__all__ = ["one_thread", "tiny"]  # fixtures


@pytest.fixture(autouse=True)
def row_in_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROWS, "tiny_rfdetr_seg", TINY_MASKS)
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 scenes with outlines, no side of which is a multiple of 32; read-only."""
    target = tmp_path_factory.mktemp("scenes") / "set"
    saccade.data.make("shapes", task="instances", n=18, size=(48, 70), out=target, seed=2)
    return target


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["tiny_rfdetr_seg", "mask2former_swin_tiny", "eomt_dinov3_large"])
def test_one_that_has_hardly_learned_is_exported_with_proof(name: str, scenes: Path, tmp_path: Path) -> None:
    options: Any = {"model": name, "size": "64x96", "epochs": 1, "batch": 4, "device": "cpu", "seed": 1, "progress": Silent()}
    run = saccade.train(scenes, task="instances", out=tmp_path / "run", **options)
    exported = run.export(out=tmp_path / "onnx", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert exported.facts["dynamic"] == ["batch", "height", "width"] and exported.facts["agreement"] == 1
    assert saccade.verify(exported.file, scenes, progress=Silent()).passed  # type: ignore[arg-type]
    one, other = saccade.load(run.path), saccade.load(exported.file)  # type: ignore[arg-type]
    assert one.card.architecture == other.card.architecture
    answers = [model.predict(scenes, progress=Silent()) for model in (one, other)]
    assert [len(found) for found in answers[0]] == [len(found) for found in answers[1]]  # type: ignore[arg-type]
