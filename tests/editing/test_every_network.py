"""The promises of exact edits on every kind of network, one edit after the other in a run: the loss goes on where it was, moments move as
weights do, resume is equal to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from editing.conftest import Network, make
from saccade.core.errors import Interrupted
from saccade.editing.live import Editor
from saccade.training.learner import Learner
from saccade.training.loop import Job, Trainer
from small_jobs import CONFIG, SIZE, STEPS, Stopping, detecting_job, fit, go_on, job, making_job, segmenting_job


@dataclass(frozen=True)
class Case:
    """edits: all exact, in training too."""

    job: Callable[[Path], Job]
    edits: tuple[str, ...]

    def frozen(self, path: Path) -> int:
        """The step from which on a batch normalisation is frozen."""
        if not any(isinstance(module, _BatchNorm) for module in self.job(path).model.modules()):
            return STEPS
        return next(step for step, text in enumerate(self.edits, 1) if text.startswith("freeze"))

    def made(self, path: Path, edits: tuple[str, ...], lr: float = CONFIG.lr, after: int = 0) -> Job:
        """A run with an edit before each step from the second on, without dropout."""
        one = self.job(path)
        planned = tuple(f"at step {step}: {text}" for step, text in enumerate(edits, 1))
        for module in one.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        config = replace(one.config, lr=lr, edits=planned)
        return replace(one, config=config, editor=Editor(one.task.build, 0), progress=Stopping(after))


def classifying(model: str, *before: str) -> Callable[[Path], Job]:
    """A run on the room's example of a network of timm's, with edits that it begins with."""

    def made(path: Path) -> Job:
        network = make("classify", model, SIZE)
        for text in before:
            planned = network.plan(text)
            network = Network(planned.network, planned.card, network.build)
        module = network.module.to(memory_format=torch.channels_last)
        return job(path, replace(CONFIG, model=model), model=module, card=network.card)

    return made


def usual(stage: str, other: str, thin: str, first: str, deep: str = "", leave: str = "") -> tuple[str, ...]:
    """An edit of each kind that can be made of any network of maps, and one of a classifier."""
    wide = (f"widen {stage} 1.5", f"deepen {deep or other} +1", f"insert-after {other} SqueezeExcite", f"insert-after {other} Dropout2d 0")
    exits = (f"early-exit {leave}",) if leave else ()
    return (*wide, f"add-lora 2 {thin}", "merge-lora", *exits, f"freeze {first}", "unfreeze *")


CASES = {
    "resnet": Case(classifying("test_resnet"), usual("layer2", "layer3", "layer4", "layer1", leave="layer2")),
    "vgg": Case(
        classifying("vgg11_bn", "prune * 0.8"), usual("features.4", "features.8", "features.11", "features.0", leave="features.10")
    ),
    "densenet": Case(
        classifying("densenet121"),
        usual(
            "features.denseblock1",
            "features.denseblock2",
            "features.denseblock3.denselayer2",
            "features.conv0",
            leave="features.transition2",
        ),
    ),
    "convnext": Case(
        classifying("test_convnext"),
        usual("stages.1", "stages.2", "stages.0", "stem", "stages.2.blocks", leave="stages.1"),
    ),
    "vit": Case(
        classifying("test_vit"),
        (
            "widen blocks.*.mlp 1.5",
            "deepen blocks +1",
            "insert-after blocks.1 Dropout 0",
            "add-lora 2 blocks.*.attn.qkv",
            "merge-lora",
            "early-exit blocks.1",
            "freeze blocks.0",
            "unfreeze *",
        ),
    ),
    "detector": Case(detecting_job, usual("*", "backbone.stages.2", "head", "backbone.stem")),
    "unet": Case(segmenting_job, usual("*", "stages.2", "ups", "stages.0")),
    "gan": Case(
        lambda path: making_job(path, "r3gan"),
        usual("generator.upward", "generator.upward.last", "generator", "judge.downward", "generator.upward.stages.0"),
    ),
    "vae": Case(lambda path: making_job(path, "vae"), usual("upward", "upward", "upward", "downward")),
}
QUICK = ("resnet", "unet", "gan")
NETWORKS = [pytest.param(name, marks=pytest.mark.long if name in QUICK else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    """At rate 0: of every step as in the run without edits, and every figure of the averaged model; until statistics are frozen, by which a
    batch normalisation goes from then on."""
    case = CASES[name]
    plain, edited = (fit(case.made(tmp_path / str(len(edits)), edits, lr=0.0)) for edits in ((), case.edits))
    made = [(event.get("edit", {}).get("promise"), event.get("why")) for event in edited.events]
    assert made == [("exact", None)] * len(case.edits)
    assert [row["step"] for row in edited.rows] == [row["step"] for row in plain.rows] and edited.loop["step"] == STEPS
    frozen = case.frozen(tmp_path / "looked at")
    for mine, theirs in zip(edited.rows, plain.rows, strict=True):
        if theirs["step"] > frozen:
            break
        found = {**mine, **mine.get("metrics", {}), **({"loss": mine["last"]} if "last" in mine else {})}
        figures = theirs.get("metrics", {})
        for key, value in {**theirs, **figures}.items():
            if key == "loss" or key.endswith("/loss") or key in figures:
                assert found[key] == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)), (mine["step"], key)


@pytest.mark.parametrize("name", NETWORKS)
def test_moments_move_as_weights_do(tmp_path: Path, name: str) -> None:
    """Moments that are equal to the weights are so after an edit, wherever a weight was one before, and 0 where it is new."""
    case = CASES[name]
    trainer = Trainer(case.made(tmp_path, (), after=2))
    with pytest.raises(Interrupted):
        trainer.fit()
    learner, editor = trainer.learner, Editor(trainer.job.task.build, 0)
    for text in case.edits:
        held = marked(learner)
        made, _ = editor.plan(text, editor.copied(learner.model), learner.card)
        edited = trainer.workshop.edited(learner, made)
        kept = 0
        for optimizer in edited.updater.optimizers.values():
            for parameter, state in optimizer.state.items():
                moment, alive = state["exp_avg"], state["exp_avg"] != 0
                assert torch.equal(moment[alive], parameter.detach()[alive]), text
                assert torch.equal(state["exp_avg_sq"][alive], 2 * moment[alive].abs()), text
                kept += int(alive.sum())
        resting = sum(p.numel() for p in edited.model.parameters() if not p.requires_grad)
        assert text == "merge-lora" or kept >= held - resting, text
        learner = edited


def marked(learner: Learner) -> int:
    """Give a learner moments that are its weights; how many of them are not 0."""
    held = 0
    for optimizer in learner.updater.optimizers.values():
        for parameter in (one for group in optimizer.param_groups for one in group["params"]):
            state = optimizer.state[parameter]
            state.setdefault("step", torch.tensor(2.0))
            state["exp_avg"] = parameter.detach().clone()
            state["exp_avg_sq"] = 2 * parameter.detach().abs()
            held += int((parameter != 0).sum())
    return held


@pytest.mark.parametrize("name", NETWORKS)
def test_resume_is_equal_to_the_bit(tmp_path: Path, name: str) -> None:
    """From the middle of all edits."""
    case = CASES[name]
    whole = fit(case.made(tmp_path / "whole", case.edits))
    with pytest.raises(Interrupted):
        Trainer(case.made(tmp_path / "cut", case.edits, after=5)).fit()
    assert go_on(case.made(tmp_path / "cut", case.edits)).differs(whole) == []
