"""Modules that come and go while a network learns: resume is equal to the bit, what is frozen stays, what is new learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import saccade
from saccade.core.errors import Interrupted
from saccade.editing.live import Editor
from saccade.tasks.classification.task import Classification
from saccade.training.loop import Job, Trainer
from small_jobs import CONFIG, Stopping, fit, go_on, job, resolved

EDITS = {
    "modules": (
        "at step 3: replace BatchNorm GroupNorm 2",
        "at step 4: insert-after features.1 SqueezeExcite",
        "at step 5: insert-after features.2.0.conv1 Dropout2d 0.2",
        "at step 6: set-drop 0.4",
        "at step 8: remove features.1.0",
    ),
    "exits": (
        "at step 3: early-exit features.1",
        "at step 4: early-exit features.2.0",
        "at step 6: widen features.1 2",
        "at step 8: remove features.1.1",
    ),
    "low rank": ("at step 3: add-lora 2 features.2", "at step 5: factorize features.1 2", "at step 7: merge-lora"),
}


def editable(path: Path, edits: tuple[str, ...], **more: object) -> Job:
    config = replace(CONFIG, model="small_resnet_32px", edits=edits)
    return job(path, config, editor=Editor(Classification().build, config.seed), **more)  # type: ignore[arg-type]


CUTS = {"modules": (3, 6, 9), "exits": (5, 8), "low rank": (4, 8)}


@pytest.mark.parametrize(
    ("name", "after", "precision"), [*((name, cut, "fp32") for name, cuts in CUTS.items() for cut in cuts), ("exits", 5, "bf16")]
)
def test_resume_is_equal_to_the_bit(tmp_path: Path, name: str, after: int, precision: str) -> None:
    facts = replace(resolved(), precision=precision)
    whole = fit(editable(tmp_path / "whole", EDITS[name], facts=facts))
    with pytest.raises(Interrupted):
        Trainer(editable(tmp_path / "cut", EDITS[name], facts=facts, progress=Stopping(after))).fit()
    assert go_on(editable(tmp_path / "cut", EDITS[name], facts=facts)).differs(whole) == []
    file = tmp_path / "last.safetensors"
    file.write_bytes(whole.files["last"])
    model = saccade.load(file, device="cpu")
    assert [edit["text"] for edit in model.card.edits] == [text.partition(": ")[2] for text in EDITS[name]]


def test_layers_with_lora_rest_while_what_stands_beside_them_learns(tmp_path: Path) -> None:
    trainer = Trainer(editable(tmp_path, ("at step 3: add-lora 2 features.2",), progress=Stopping(3)))
    with pytest.raises(Interrupted):
        trainer.fit()
    before = {name: value.clone() for name, value in trainer.learner.model.state_dict().items()}
    again = Trainer(editable(tmp_path, ("at step 3: add-lora 2 features.2",)))
    again.resume()
    again.fit()
    after = again.learner.model.state_dict()
    bases = [name for name in after if ".base." in name]
    assert bases and all(torch.equal(after[name], before[name.replace(".base", "")]) for name in bases)
    assert all((after[name] != 0).any() for name in after if ".up." in name)


def test_a_network_with_exits_is_looked_for_anew_and_they_learn(tmp_path: Path) -> None:
    """The best model is one with the exits that were asked for, whatever was reached without them."""
    ready = editable(tmp_path, ("at step 10: early-exit features.1",))
    trainer = Trainer(replace(ready, evaluate=lambda module: {"accuracy": 1 / (1 + trainer.state.step)}))
    trainer.fit()
    card = saccade.load(tmp_path / "best.safetensors", device="cpu").card
    assert [edit["text"] for edit in card.edits] == ["early-exit features.1"] and card.edits[0]["anew"] is True
    learned = trainer.learner.model.get_submodule("network.features.1.1.linear")
    assert (learned.weight != 0).all()  # type: ignore[operator]
    (row,) = [row for row in trainer.job.run.metrics() if row["step"] == 12 and "loss" in row]
    assert row["loss"] == pytest.approx(row["last"] + card.edits[0]["steps"][0]["weight"] * row["exit_1"])
