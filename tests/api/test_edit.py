"""`edit` from Python and the command line, on a trained classifier: what it writes, says and refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saccade
from saccade import Run
from saccade.api import controlling
from saccade.cli.main import main
from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.core.rundir import RunDir
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here

pytestmark = pytest.mark.long
Captured = pytest.CaptureFixture[str]
BEST = "best.safetensors"
KEYS = {"text", "promise", "parameters_before", "parameters_after", "flops_before", "flops_after", "modules", "shapes", "difference"}


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_edited_classifier_predicts_and_is_measured_as_before(run: Run, shapes: Path, tmp_path: Path) -> None:
    edited = saccade.edit(run.path / BEST, "widen features.2 1.5", "deepen features.3 +1", out=tmp_path / "wide.safetensors")
    assert edited.model == tmp_path / "wide.safetensors"
    card, before = modelfile.read_card(edited.model), modelfile.read_card(run.path / BEST)
    assert [row["text"] for row in card.edits] == ["widen features.2 1.5", "deepen features.3 +1"]
    assert card.metrics == before.metrics and card.licenses == before.licenses
    models = [saccade.load(path, device="cpu") for path in (run.path / BEST, edited.model)]
    one, other = (model.evaluate(shapes, split="val", progress=Silent()).metrics for model in models)
    assert one == pytest.approx(other, abs=1e-5)
    one, other = (model.predict(shapes / "test", progress=Silent()) for model in models)
    assert [result.label for result in one] == [result.label for result in other]


def test_a_model_for_other_classes_is_exported_with_proof(run: Run, shapes: Path, tmp_path: Path) -> None:
    classes = modelfile.read_card(run.path / BEST).classes
    file = saccade.edit(run.path / BEST, f"set-classes {classes[0]}=thing", "widen features 1.2", out=tmp_path / "m.safetensors").model
    assert file is not None
    renamed = tmp_path / "shapes"
    renamed.mkdir()
    for split in ("train", "val"):
        (renamed / split).mkdir()
        for folder in sorted((shapes / split).iterdir()):
            (renamed / split / ("thing" if folder.name == classes[0] else folder.name)).symlink_to(folder)
    exported = saccade.export(file, data=renamed, out=tmp_path / "onnx", device="cpu", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert saccade.verify(exported.file, renamed, progress=Silent()).passed  # type: ignore[arg-type]
    card = saccade.load(exported.file).card  # type: ignore[arg-type]
    assert "thing" in card.classes and len(card.edits) == 2


def test_a_dry_run_writes_nothing_and_says_all(run: Run, tmp_path: Path, capsys: Captured) -> None:
    before = digest(run.path)
    argv = ["edit", str(run.path / BEST), "widen features.2 1.5", "--dry-run"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["step"]) == (None, None)
    (row,) = found["edits"]
    assert set(row) == KEYS
    assert row["promise"] == "exact" and row["difference"] <= 1e-5
    assert row["parameters_after"] > row["parameters_before"] and row["flops_after"] > row["flops_before"]
    assert {"name": "features.2.0.bn1.weight", "before": [64], "after": [96]} in row["shapes"]
    gone = saccade.edit(run.path / BEST, "remove features.1", dry_run=True).edits[0]["shapes"]
    assert gone and all(shape["before"] and not shape["after"] for shape in gone), "no counters, which have no shape"
    with pytest.raises(UserError, match="edits must be texts, one after the other, got a list"):
        saccade.edit(run.path / BEST, ["remove features.1"], dry_run=True)  # type: ignore[arg-type]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "nothing was written" in text and "features.2.0.bn1.weight  64 -> 96" in text
    assert digest(run.path) == before


def test_the_command_line_writes_undoes_and_refuses(run: Run, tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "m.safetensors"
    source.write_bytes((run.path / BEST).read_bytes())
    assert main(["edit", str(source), "widen features.2 1.5", "--json", "--seed", "4"]) == 0
    made = json.loads(capsys.readouterr().out)["model"]
    assert made == str(tmp_path / "m-edited.safetensors")
    assert modelfile.read_card(made).edits[0]["seed"] == 4
    back = str(tmp_path / "back.safetensors")
    assert main(["edit", made, "--undo", "--out", back]) == 0
    assert "undo widen features.2 1.5" in capsys.readouterr().out
    assert modelfile.load(back)[0] == modelfile.load(source)[0]
    before = digest(tmp_path)
    for argv, said in (
        ([str(source), "widen features.2 1.5"], "exists already"),
        ([str(source), "widen features.2 1.5", "--out", str(tmp_path / "x.pt")], "must end in .safetensors"),
        ([str(source)], "edits, or --undo alone"),
        ([str(source), "--undo", "--out", str(tmp_path / "x.safetensors")], "no edit to take back"),
        ([str(run.path), "widen features.2 1.5"], "the run has ended"),
        ([str(tmp_path / "none.safetensors"), "widen x 2"], "no such run or model"),
        ([str(source), "widen features.2 1.5", "widn x 2", "--out", back + "x.safetensors"], "did you mean widen"),
    ):
        assert main(["edit", *argv]) == 2
        told = capsys.readouterr()
        assert said in told.err and told.err.count("\n") == 1 and told.out == ""
    assert digest(tmp_path) == before


def test_a_model_of_many_edits_is_exported_with_proof(run: Run, shapes: Path, tmp_path: Path) -> None:
    """All edits that put modules of other kinds into a network."""
    texts = (
        "insert-after features.1 SqueezeExcite",
        "add-lora 2 features.2",
        "replace features.3.*.bn1 GroupNorm",
        "remove features.3.0.bn2",
    )
    more = ("factorize features.3.0.conv2 8", "insert-after features.2 Dropout2d 0.1", "set-drop 0.3", "set-size 40x40")
    file = saccade.edit(run.path / BEST, *texts, *more, out=tmp_path / "many.safetensors").model
    exported = saccade.export(file, data=shapes, out=tmp_path / "onnx", device="cpu", progress=Silent())  # type: ignore[arg-type]
    assert exported.passed, exported.facts["checks"]
    assert saccade.load(exported.file).card.input.size == (40, 40)  # type: ignore[arg-type]


def test_a_model_that_makes_images_makes_the_same_ones(tmp_path: Path) -> None:
    from editing.conftest import make

    file = make("generate", "vae", (8, 8)).save(tmp_path / "m.safetensors")
    edited = saccade.edit(file, "widen upward 1.5")
    before, after = (saccade.generate(model, n=2, seed=3, device="cpu").images for model in (file, edited.model))  # type: ignore[arg-type]
    assert edited.edits[0]["promise"] == "exact"
    assert np.abs(before.astype(int) - after).max() <= 1


def test_of_a_run_the_edits_before_one_that_is_refused_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made, and stay so."""
    place = RunDir(tmp_path / "run")
    place.path.mkdir()
    place.write_run({"state": "running"})
    monkeypatch.setattr(controlling, "trains", lambda run: True)

    def asked(run: RunDir, request: dict[str, Any]) -> dict[str, Any]:
        if request["edits"] == ["widen nosuch 2"]:
            raise UserError("the network has no module 'nosuch'", where="nosuch", fix="did you mean head?")
        return {"step": 3, "edits": [{"text": request["edits"][0]}]}

    monkeypatch.setattr(controlling, "asked", asked)
    with pytest.raises(UserError) as caught:
        saccade.edit(place.path, "freeze a", "freeze b", "widen nosuch 2")
    undo = "--undo takes the last of them back, if that has a way back"
    assert caught.value.fix == f"did you mean head?; made before it: freeze a, freeze b; {undo}"
    with pytest.raises(UserError) as caught:
        saccade.edit(place.path, "widen nosuch 2", "freeze a")
    assert caught.value.fix == "did you mean head?"
    with pytest.raises(UserError, match="by its own seed"):
        saccade.edit(place.path, "freeze a", seed=3)
